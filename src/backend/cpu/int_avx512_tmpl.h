/* Re-included once per packed integer type by unpack_avx512.c. TYPE is the type's name, SUPERBLOCK its elements per superblock, GROUP its
 * scale group (16 or 32), OFFSET what was added to its values, 0 where groups have a minimum instead, BITS those of a packed value, NIBBLES 1
 * if nibbles are the value as they are, PART the units whose scales are a line of plane 1, 0: scales of all are found together. From the includer:
 * scale_TYPE(p, g, &min) gives scales (and minima, where those are floats) of group g, min_words_TYPE(p, i) four minima that are integers,
 * v_TYPE(unit, j) the values of elements 4 j .. + 3 of a unit; UNIT_BYTES_TYPE. Makes unpack_TYPE and, for each way of reading, the product
 * with one token; for superblocks of ACT_SUPER elements the same with integer scales. */

#define WHOLE_MIN (OFFSET == 0 && SUPERBLOCK == ACT_SUPER) /* minima are integers times one float */
#define GROUP_MIN (OFFSET == 0 && SUPERBLOCK != ACT_SUPER)
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, TYPE)
#define UNIT(p, u) ((p)[2] + (u) * PACK_UNIT(BITS)) /* that many units behind the first of a superblock */

#if WHOLE_MIN
/* Minima 4 i to 4 i + 3 as pairs: 4 i and 4 i + 2, 4 i + 1 and 4 i + 3. */
static inline void NAME(min_pairs_)(const uint8_t *const *p, int i, __m512i pair[2])
{
    const __m512i words = NAME(min_words_)(p, i);
    pair[0] = _mm512_and_si512(words, _mm512_set1_epi16(0xff));
    pair[1] = _mm512_srli_epi16(words, 8);
}

/* The exact sum of minima times sums of activations. */
static inline __m512i NAME(minima_)(const uint8_t *const *p, const int16_t *sums)
{
    __m512i m = _mm512_setzero_si512();
    UNROLL(8)
    for (int i = 0; i < AVX512_MIN_PAIRS(GROUP); i += 2) {
        __m512i pair[2];
        NAME(min_pairs_)(p, i / 2, pair);
        m = _mm512_dpwssd_epi32(m, pair[0], _mm512_set1_epi32(load_i32(sums + 2 * i)));
        m = _mm512_dpwssd_epi32(m, pair[1], _mm512_set1_epi32(load_i32(sums + 2 * i + 2)));
    }
    return m;
}

static inline __m512 NAME(min_scale_)(const uint8_t *const *p) { return _mm512_mul_ps(load_f16(p[0] + 32), _mm512_set1_ps(1.0f / (1 << ACT_SUM_BITS))); }
#endif

/* Superblocks [s0, s1) of one panel -> w [k4][2][64], values as they are or with the common offset of 128, and ws, wm
 * (struct avx512_chunk); the caller picks the half of the pair. */
static void NAME(unpack_)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, 1, p), s++) {
        UNROLL(16)
        for (int g = 0; g < SUPERBLOCK / GROUP; g++, ws += 32) {
            __m512 min;
            _mm512_store_ps(ws, NAME(scale_)(p, g, &min));
            if (GROUP_MIN) _mm512_store_ps(wm + 32 * g, min);
        }
#if WHOLE_MIN
        UNROLL(4)
        for (int i = 0; i < AVX512_MIN_PAIRS(GROUP); i += 2) {
            __m512i pair[2];
            NAME(min_pairs_)(p, i / 2, pair);
            _mm512_store_si512(wm + 32 * i, pair[0]);
            _mm512_store_si512(wm + 32 * i + 32, pair[1]);
        }
        _mm512_store_ps(wm + 32 * AVX512_MIN_PAIRS(GROUP), NAME(min_scale_)(p));
        wm += AVX512_MIN_STRETCH(GROUP);
#elif GROUP_MIN
        wm += SUPERBLOCK / GROUP * 32;
#endif
        for (int u = 0; u < SUPERBLOCK / 32; u++) {
            UNROLL(8)
            for (int j = 0; j < 8; j++, w += 128) {
                const __m512i v = NAME(v_)(UNIT(p, u), j);
                _mm512_store_si512(w, OFFSET % 128 ? _mm512_add_epi8(v, _mm512_set1_epi8((char)(128 - OFFSET))) : v);
            }
        }
    }
}

#define TOGETHER(N) ((N) == AVX512_APART ? (N) : 1) /* of N panels, how many take turns line by line; unit by unit is better where lines are asked for */

/* start + the exact sums of values times a[GROUP], of a unit or its half in each of N panels, line by line in turns. */
static inline __attribute__((always_inline)) void NAME(dot_)(const int N, const uint8_t *unit, const size_t *shift, int half, const int8_t *a, __m512i start, __m512i *sum)
{
    UNROLL(8)
    for (int i = 0; i < N; i++) sum[i] = start;
#if NIBBLES
    __m512i high[AVX512_SIDE]; /* 16 times too large: one shift for all */
    UNROLL(8)
    for (int i = 0; i < N; i++) high[i] = _mm512_setzero_si512();
    UNROLL(4)
    for (int z = 0; z < GROUP / 8; z++) {
        const __m512i a0 = _mm512_set1_epi32(load_i32(a + 8 * z)), a1 = _mm512_set1_epi32(load_i32(a + 8 * z + 4));
        UNROLL(8)
        for (int i = 0; i < N; i++) {
            __m512i v = load(unit + shift[i] + (half * (GROUP / 8) + z) * 64);
            __asm__("" : "+v"(v)); /* one load, not two */
            sum[i] = _mm512_dpbusd_epi32(sum[i], _mm512_and_si512(v, _mm512_set1_epi8(0x0f)), a0);
            high[i] = _mm512_dpbusd_epi32(high[i], _mm512_and_si512(v, _mm512_set1_epi8((char)0xf0)), a1);
        }
    }
    UNROLL(8)
    for (int i = 0; i < N; i++) sum[i] = _mm512_add_epi32(sum[i], _mm512_srai_epi32(high[i], 4));
#else
    UNROLL(8)
    for (int j = 0; j < GROUP / 4; j++) {
        const __m512i aj = _mm512_set1_epi32(load_i32(a + 4 * j));
        UNROLL(8)
        for (int i = 0; i < N; i++) sum[i] = _mm512_dpbusd_epi32(sum[i], NAME(v_)(unit + shift[i], half * (GROUP / 4) + j), aj);
    }
#endif
}

/* One token: the sums of a stretch, a superblock or as many as a stripe has, of N panels side by side, `shift` bytes apart. Minima and scales first, in the order
 * of memory: scales of PART units, which stay in registers, or of all, in a buffer. Then units in a loop, since the processor's prefetchers follow what few
 * instructions read. */
static inline __attribute__((always_inline)) void NAME(stretch_)(const int N, const uint8_t *const *p, const size_t *shift, const int n_units, const int8_t *a,
                                                                 const struct act_group *ag, const struct act_halves *ah, const int16_t *sums, struct pack_stream *stream, __m512 *sum)
{
    enum { PER_UNIT = 32 / GROUP, MOST = ACT_SUPER / GROUP };
    _Alignas(64) float ws[AVX512_SIDE][MOST][16], wm[AVX512_SIDE][MOST][16];
    const uint8_t *unit = p[2], *words = p[1];
    UNROLL(8)
    for (int i = 0; i < N; i++) sum[i] = _mm512_setzero_ps();
#if WHOLE_MIN
    __m512i minima[AVX512_SIDE];
    UNROLL(8)
    for (int i = 0; i < N; i++) {
        const uint8_t *const pi[PACK_PLANES] = PACK_FURTHER(p, shift[i]);
        minima[i] = NAME(minima_)(pi, sums);
    }
#else
    (void)sums;
#endif
    ROLLED
    for (int from = 0, n = PART ? PART : n_units; from < n_units; from += n, words += 64) {
        UNROLL(8)
        for (int i = 0; i < N; i++) {
            const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], words + shift[i], p[2] + shift[i]};
            UNROLL(16)
            for (int g = 0; g < n * PER_UNIT; g++) {
                __m512 min;
                _mm512_store_ps(ws[i][g], NAME(scale_)(pi, g, &min));
                if (GROUP_MIN) _mm512_store_ps(wm[i][g], min);
            }
        }
#if PART
        UNROLL(8)
#else
        ROLLED
#endif
        for (int u = 0; u < n; u++, unit += PACK_UNIT(BITS), a += 32, ag++, ah++) {
            pack_stream_go(stream, N, shift, NAME(UNIT_BYTES_));
            const __m512 magic = _mm512_set1_ps(ag->neg_magic);
            UNROLL(2)
            for (int half = 0; half < PER_UNIT; half++) {
                const int init = GROUP == 32 ? ag->init : ah->init[half];
                const __m512i start = _mm512_set1_epi32(ag->start + (init - ag->start) / 128 * OFFSET);
                __m512i acc[AVX512_SIDE];
                UNROLL(8)
                for (int i = 0; i < N; i += TOGETHER(N)) NAME(dot_)(TOGETHER(N), unit, shift + i, half, a + half * 16, start, acc + i);
                UNROLL(8)
                for (int i = 0; i < N; i++) {
                    sum[i] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc[i]), magic), _mm512_load_ps(ws[i][u * PER_UNIT + half]), sum[i]);
                    if (!GROUP_MIN) continue;
                    const __m512 all = _mm512_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
                    sum[i] = _mm512_fnmadd_ps(all, _mm512_load_ps(wm[i][u * PER_UNIT + half]), sum[i]);
                }
            }
        }
    }
#if WHOLE_MIN
    UNROLL(8)
    for (int i = 0; i < N; i++) {
        const uint8_t *const pi[PACK_PLANES] = PACK_FURTHER(p, shift[i]);
        sum[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(minima[i]), NAME(min_scale_)(pi), sum[i]);
    }
#endif
}

/* N panels, from the one at `base` on. The same arithmetic as tile(), in the same order. */
static inline __attribute__((always_inline)) void NAME(panels_)(const struct cpu_matmul *m, const struct pack *pk, const int N, const uint8_t *base, const size_t *shift,
                                                                struct pack_stream *stream, __m512 *out)
{
    enum { UNITS = ACT_SUPER / 32 };
    const int n_super = m->in / SUPERBLOCK;
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, base, n_super, 0, p);
    UNROLL(8)
    for (int i = 0; i < N; i++) out[i] = _mm512_setzero_ps();
    const int8_t *a = m->acts.q;
    const struct act_group *ag = m->acts.group;
    const struct act_halves *ah = m->acts.halves;
    const int16_t *sums = WHOLE_MIN ? m->acts.sums + (GROUP == 32 ? ACT_EIGHTHS : 0) : NULL;
    __m512 sum[AVX512_SIDE];
    int k = 0;
    for (; k + ACT_SUPER <= m->in; k += ACT_SUPER, a += ACT_SUPER, ag += UNITS, ah += UNITS) {
        NAME(stretch_)(N, p, shift, UNITS, a, ag, ah, sums, stream, sum);
        UNROLL(8)
        for (int i = 0; i < N; i++) out[i] = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag->super), out[i]);
        pack_next(pk, base, n_super, k / SUPERBLOCK, ACT_SUPER / SUPERBLOCK, p);
        if (WHOLE_MIN) sums += ACT_SUMS;
    }
    if (SUPERBLOCK == ACT_SUPER || k == m->in) return;
    NAME(stretch_)(N, p, shift, (m->in - k) / 32, a, ag, ah, sums, stream, sum);
    UNROLL(8)
    for (int i = 0; i < N; i++) out[i] = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag->super), out[i]);
}

static void NAME(apart_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, struct pack_stream *stream, __m512 *out)
{
    (void)stream; /* the prefetchers follow by themselves */
    NAME(panels_)(m, pk, AVX512_APART, base, shift, NULL, out);
}
static void NAME(one_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, struct pack_stream *stream, __m512 *out)
{
    NAME(panels_)(m, pk, 1, base, shift, stream, out);
}
static void NAME(side_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, struct pack_stream *stream, __m512 *out)
{
    NAME(panels_)(m, pk, AVX512_SIDE, base, shift, stream, out);
}

#if SUPERBLOCK == ACT_SUPER
/* Superblock s of a panel; the caller picks the half of the pair. */
static void NAME(unpack_whole_)(const struct pack *pk, const uint8_t *panel, int n_super, int s, int half, struct avx512_whole *to)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s, p);
    UNROLL(16)
    for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(to->scale[g][half], NAME(int_scale_)(p, g));
    _mm512_store_ps(to->d[half], load_f16(p[0]));
#if !OFFSET
    _mm512_store_ps(to->dmin[half], load_f16(p[0] + 32));
    UNROLL(4)
    for (int i = 0; i < SUPERBLOCK / GROUP / 4; i++) _mm512_store_si512(to->min[i][half], NAME(min_words_)(p, i));
#endif
    for (int u = 0; u < SUPERBLOCK / 32; u++) {
        UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const __m512i v = NAME(v_)(UNIT(p, u), j);
            _mm512_store_si512(to->w[u * 8 + j][half], OFFSET % 128 ? _mm512_add_epi8(v, _mm512_set1_epi8((char)(128 - OFFSET))) : v);
        }
    }
}

static void NAME(split_)(const struct pack *pk, const uint8_t *panel, int n_super, int s, struct avx512_parts *to)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s, p);
    _mm512_store_ps(to->d, load_f16(p[0]));
#if !OFFSET
    _mm512_store_ps(to->dmin, load_f16(p[0] + 32));
    UNROLL(8)
    for (int i = 0; i < SUPERBLOCK / GROUP / 2; i++) {
        const __m512i m = NAME(min_words_)(p, i / 2), even = byte_of(m, i % 2 * 2, 0xff), odd = byte_of(m, i % 2 * 2 + 1, 0xff);
        _mm512_store_si512(to->min[i], _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
#endif
    _Alignas(64) int32_t scale[SUPERBLOCK / GROUP][16];
    UNROLL(16)
    for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(scale[g], NAME(int_scale_)(p, g));
    for (int u = 0; u < SUPERBLOCK / 32; u++) {
        UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const __m512i by = twice_16(_mm512_load_si512(scale[GROUP == 32 ? u : 2 * u + j / 4]));
            split_product(NAME(v_)(UNIT(p, u), j), by, OFFSET, to->w[u / 2][0][u % 2 * 8 + j], to->w[u / 2][1][u % 2 * 8 + j]);
        }
    }
}

/* One token, AVX512_SIDE panels side by side, as above. */
static void NAME(whole_side_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, struct pack_stream *stream, __m512 *out)
{
    const int n_super = m->in / SUPERBLOCK;
    _Alignas(64) int32_t scale[AVX512_SIDE][SUPERBLOCK / GROUP * 16];
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, base, n_super, 0, p);
    __m512 c[AVX512_SIDE];
    UNROLL(8)
    for (int i = 0; i < AVX512_SIDE; i++) c[i] = _mm512_setzero_ps();
    const int8_t *a = m->acts.whole.q;
    const struct act_stretch *as = m->acts.whole.stretch;
    for (int s = 0; s < n_super; s++, as++) {
        __m512i sum[AVX512_SIDE];
        UNROLL(8)
        for (int i = 0; i < AVX512_SIDE; i++) {
            const uint8_t *const pi[PACK_PLANES] = PACK_FURTHER(p, shift[i]);
            sum[i] = _mm512_setzero_si512();
            UNROLL(16)
            for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(scale[i] + 16 * g, NAME(int_scale_)(pi, g));
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++, a += 32) {
            pack_stream_go(stream, AVX512_SIDE, shift, NAME(UNIT_BYTES_));
            UNROLL(2)
            for (int half = 0; half < 32 / GROUP; half++) {
                const int g = u * (32 / GROUP) + half;
                const __m512i start = _mm512_set1_epi32(-OFFSET * as->sum[GROUP == 16 ? g : 16 + g]);
                __m512i acc[AVX512_SIDE];
                UNROLL(8)
                for (int i = 0; i < AVX512_SIDE; i += TOGETHER(AVX512_SIDE)) NAME(dot_)(TOGETHER(AVX512_SIDE), UNIT(p, u), shift + i, half, a + half * 16, start, acc + i);
                UNROLL(8)
                for (int i = 0; i < AVX512_SIDE; i++) sum[i] = _mm512_add_epi32(sum[i], _mm512_mullo_epi32(acc[i], _mm512_load_si512(scale[i] + 16 * g)));
            }
        }
        UNROLL(8)
        for (int i = 0; i < AVX512_SIDE; i++) {
            const uint8_t *const pi[PACK_PLANES] = PACK_FURTHER(p, shift[i]);
#if OFFSET
            c[i] = avx512_whole_add(c[i], sum[i], load_f16(pi[0]), sum[i], c[i], as->super, false);
#else
            __m512i min[SUPERBLOCK / GROUP / 4];
            UNROLL(4)
            for (int j = 0; j < SUPERBLOCK / GROUP / 4; j++) min[j] = NAME(min_words_)(pi, j);
            c[i] = avx512_whole_add(c[i], sum[i], load_f16(pi[0]), avx512_whole_minima(as, min, GROUP), load_f16(pi[0] + 32), as->super, true);
#endif
        }
        pack_next(pk, base, n_super, s, 1, p);
    }
    UNROLL(8)
    for (int i = 0; i < AVX512_SIDE; i++) out[i] = c[i];
}

#endif

#undef WHOLE_MIN
#undef GROUP_MIN
#undef JOIN2
#undef JOIN
#undef NAME
#undef TYPE
#undef GROUP
#undef OFFSET
#undef SUPERBLOCK
#undef NIBBLES
#undef PART
#undef BITS
#undef UNIT
#undef TOGETHER
