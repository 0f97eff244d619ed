/* Re-included once per packed integer type by unpack_avx512.c. TYPE is the type's name, SUPERBLOCK its elements per superblock, GROUP its
 * scale group (16 or 32), OFFSET what was added to its values, 0 where groups have a minimum instead, BITS those of a packed value, NIBBLES 1
 * if nibbles are the value as they are. From the includer: scale_TYPE(p, g, &min) gives scales (and minima) of group g, v_TYPE(unit, j) the
 * values of elements 4 j .. + 3 of a unit; UNIT_BYTES_TYPE. Makes unpack_TYPE and gemv_TYPE, and for superblocks of ACT_SUPER elements the same
 * with integer scales: unpack_whole_TYPE, gemv_whole_TYPE. */

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, TYPE)
#define UNIT(p, u) ((p)[2] + (u) * PACK_UNIT(BITS)) /* that many units behind the first of a superblock */

/* Superblocks [s0, s1) of one panel -> w [k4][2][64], values as they are or with the common offset of 128, and ws, wm [group][2][16];
 * the caller picks the half of the pair. */
static void NAME(unpack_)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, 1, p), s++) {
#pragma GCC unroll 16
        for (int g = 0; g < SUPERBLOCK / GROUP; g++, ws += 32, wm += 32) {
            __m512 min;
            _mm512_store_ps(ws, NAME(scale_)(p, g, &min));
            if (!OFFSET) _mm512_store_ps(wm, min);
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++, w += 128) {
                const __m512i v = NAME(v_)(UNIT(p, u), j);
                _mm512_store_si512(w, OFFSET % 128 ? _mm512_add_epi8(v, _mm512_set1_epi8((char)(128 - OFFSET))) : v);
            }
        }
    }
}

/* start + the exact sum of values times a[GROUP], of a unit or its half. */
static inline __attribute__((always_inline)) __m512i NAME(dot_)(const uint8_t *unit, int half, const int8_t *a, __m512i start)
{
#if NIBBLES
    __m512i high = _mm512_setzero_si512(); /* 16 times too large: one shift for all */
#pragma GCC unroll 4
    for (int z = 0; z < GROUP / 8; z++) {
        const __m512i v = load(unit + (half * (GROUP / 8) + z) * 64);
        start = _mm512_dpbusd_epi32(start, _mm512_and_si512(v, _mm512_set1_epi8(0x0f)), _mm512_set1_epi32(load_i32(a + 8 * z)));
        high = _mm512_dpbusd_epi32(high, _mm512_and_si512(v, _mm512_set1_epi8((char)0xf0)), _mm512_set1_epi32(load_i32(a + 8 * z + 4)));
    }
    return _mm512_add_epi32(start, _mm512_srai_epi32(high, 4));
#else
#pragma GCC unroll 8
    for (int j = 0; j < GROUP / 4; j++)
        start = _mm512_dpbusd_epi32(start, NAME(v_)(unit, half * (GROUP / 4) + j), _mm512_set1_epi32(load_i32(a + 4 * j)));
    return start;
#endif
}

/* One token: AVX512_SIDE panels side by side, from the one at `base` on, `shift` bytes apart. The same arithmetic as tile(), in the same order. */
static UNCHECKED void NAME(panels_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, __m512 *out)
{
    const int n_super = m->in / SUPERBLOCK;
    const size_t panel_bytes = pack_panel_bytes(pk, m->in);
    _Alignas(64) float ws[AVX512_SIDE][SUPERBLOCK / GROUP * 16], wm[AVX512_SIDE][SUPERBLOCK / GROUP * 16];
    const uint8_t *p[PACK_PLANES];
    struct side side = {base + side_ahead(pk), base + panel_bytes, panel_bytes};
    pack_seek(pk, base, n_super, 0, p);
    __m512 c[AVX512_SIDE], sum[AVX512_SIDE];
#pragma GCC unroll 8
    for (int i = 0; i < AVX512_SIDE; i++) c[i] = sum[i] = _mm512_setzero_ps();
    const int8_t *a = m->acts.q;
    const struct act_group *ag = m->acts.group;
    const struct act_halves *ah = m->acts.halves;
    for (int s = 0; s < n_super; s++) {
#pragma GCC unroll 8
        for (int i = 0; i < AVX512_SIDE; i++) {
            const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i]};
#pragma GCC unroll 16
            for (int g = 0; g < SUPERBLOCK / GROUP; g++) {
                __m512 min;
                _mm512_store_ps(ws[i] + 16 * g, NAME(scale_)(pi, g, &min));
                if (!OFFSET) _mm512_store_ps(wm[i] + 16 * g, min);
            }
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++, a += 32, ag++, ah++) {
            const __m512 magic = _mm512_set1_ps(ag->neg_magic);
            side_fetch(&side, shift, NAME(UNIT_BYTES_));
#pragma GCC unroll 2
            for (int half = 0; half < 32 / GROUP; half++) {
                const int init = GROUP == 32 ? ag->init : ah->init[half], g = u * (32 / GROUP) + half;
                const __m512i start = _mm512_set1_epi32(ag->start + (init - ag->start) / 128 * OFFSET);
#pragma GCC unroll 8
                for (int i = 0; i < AVX512_SIDE; i++) {
                    const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i]};
                    const __m512i acc = NAME(dot_)(UNIT(pi, u), half, a + half * 16, start);
                    sum[i] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc), magic), _mm512_load_ps(ws[i] + 16 * g), sum[i]);
                    if (OFFSET) continue;
                    const __m512 all = _mm512_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
                    sum[i] = _mm512_fnmadd_ps(all, _mm512_load_ps(wm[i] + 16 * g), sum[i]);
                }
            }
            if ((ag - m->acts.group) % (ACT_SUPER / 32) != ACT_SUPER / 32 - 1) continue;
#pragma GCC unroll 8
            for (int i = 0; i < AVX512_SIDE; i++) {
                c[i] = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag->super), c[i]);
                sum[i] = _mm512_setzero_ps();
            }
        }
        pack_next(pk, base, n_super, s, 1, p);
    }
#pragma GCC unroll 8
    for (int i = 0; i < AVX512_SIDE; i++) out[i] = m->in % ACT_SUPER ? _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag[-1].super), c[i]) : c[i];
}

/* One token, one panel: the sum of a stretch goes on with its unit u. */
static inline __attribute__((always_inline)) __m512 NAME(add_unit_)(__m512 sum, const uint8_t *const *p, int u, const int8_t *a, const struct act_group *ag,
                                                                    const struct act_halves *ah)
{
#pragma GCC unroll 2
    for (int half = 0; half < 32 / GROUP; half++) {
        const int init = GROUP == 32 ? ag[u].init : ah[u].init[half];
        const __m512i start = _mm512_set1_epi32(ag[u].start + (init - ag[u].start) / 128 * OFFSET);
        const __m512i acc = NAME(dot_)(UNIT(p, u), half, a + 32 * u + half * 16, start);
        __m512 min;
        const __m512 scale = NAME(scale_)(p, u * (32 / GROUP) + half, &min);
        sum = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc), _mm512_set1_ps(ag[u].neg_magic)), scale, sum);
        if (!OFFSET) sum = _mm512_fnmadd_ps(_mm512_set1_ps(GROUP == 32 ? ag[u].sum_scaled : ah[u].sum_scaled[half]), min, sum);
    }
    return sum;
}

/* A stretch is a superblock, or as many as a stripe has. The same arithmetic as tile(), in the same order. */
static __m512 NAME(panel_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *panel, struct stream *stream)
{
    enum { UNITS = ACT_SUPER / 32 };
    const int n_super = m->in / SUPERBLOCK, n_head = SUPERBLOCK == 32 ? UNITS * pk->scales[0] : pk->scales[1];
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, 0, p);
    __m512 c = _mm512_setzero_ps();
    const int8_t *a = m->acts.q;
    const struct act_group *ag = m->acts.group;
    const struct act_halves *ah = m->acts.halves;
    int k = 0;
    for (; k + ACT_SUPER <= m->in; k += ACT_SUPER, a += ACT_SUPER, ag += UNITS, ah += UNITS) {
        __m512 sum = _mm512_setzero_ps();
        for (int l = 64; l < n_head; l += 64) __builtin_prefetch(p[SUPERBLOCK == 32 ? 0 : 1] + l);
#pragma GCC unroll 8
        for (int u = 0; u < UNITS; u++) {
            stream_fetch(stream, u * NAME(UNIT_BYTES_), NAME(UNIT_BYTES_));
            sum = NAME(add_unit_)(sum, p, u, a, ag, ah);
        }
        stream_on(stream, UNITS * NAME(UNIT_BYTES_));
        c = _mm512_fmadd_ps(sum, _mm512_set1_ps(ag->super), c);
        pack_next(pk, panel, n_super, k / SUPERBLOCK, ACT_SUPER / SUPERBLOCK, p);
    }
    if (k == m->in) return c;
    __m512 sum = _mm512_setzero_ps();
    for (int u = 0; u < (m->in - k) / 32; u++) {
        stream_fetch(stream, u * NAME(UNIT_BYTES_), NAME(UNIT_BYTES_));
        sum = NAME(add_unit_)(sum, p, u, a, ag, ah);
    }
    stream_on(stream, (size_t)(m->in - k) / 32 * NAME(UNIT_BYTES_));
    return _mm512_fmadd_ps(sum, _mm512_set1_ps(ag->super), c);
}

static void NAME(gemv_)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    if (avx512_one_stream()) {
        struct stream stream = stream_from(m, pk, panel0, panel1);
        for (int panel = panel0; panel < panel1; panel++) avx512_store_row(m, 0, panel * PANEL, NAME(panel_)(m, pk, pack_panel(m, pk, panel), &stream));
        return;
    }
    for (int panel = panel0; panel < panel1; panel += AVX512_SIDE) {
        size_t shift[AVX512_SIDE];
        __m512 c[AVX512_SIDE];
        for (int i = 0; i < AVX512_SIDE; i++) shift[i] = (size_t)MIN(i, panel1 - 1 - panel) * pack_panel_bytes(pk, m->in); /* too few: the last one again */
        NAME(panels_)(m, pk, pack_panel(m, pk, panel), shift, c);
        for (int i = 0; i < MIN(AVX512_SIDE, panel1 - panel); i++) avx512_store_row(m, 0, (panel + i) * PANEL, c[i]);
    }
}

#if SUPERBLOCK == ACT_SUPER
/* Superblock s of a panel; the caller picks the half of the pair. */
static void NAME(unpack_whole_)(const struct pack *pk, const uint8_t *panel, int n_super, int s, int half, struct avx512_whole *to)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s, p);
#pragma GCC unroll 16
    for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(to->scale[g][half], NAME(int_scale_)(p, g));
    _mm512_store_ps(to->d[half], load_f16(p[0]));
#if !OFFSET
    _mm512_store_ps(to->dmin[half], load_f16(p[0] + 32));
#pragma GCC unroll 4
    for (int i = 0; i < SUPERBLOCK / GROUP / 4; i++) _mm512_store_si512(to->min[i][half], NAME(min_words_)(p, i));
#endif
    for (int u = 0; u < SUPERBLOCK / 32; u++) {
#pragma GCC unroll 8
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
#pragma GCC unroll 8
    for (int i = 0; i < SUPERBLOCK / GROUP / 2; i++) {
        const __m512i m = NAME(min_words_)(p, i / 2), even = byte_of(m, i % 2 * 2, 0xff), odd = byte_of(m, i % 2 * 2 + 1, 0xff);
        _mm512_store_si512(to->min[i], _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
#endif
    _Alignas(64) int32_t scale[SUPERBLOCK / GROUP][16];
#pragma GCC unroll 16
    for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(scale[g], NAME(int_scale_)(p, g));
    for (int u = 0; u < SUPERBLOCK / 32; u++) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m512i by = twice_16(_mm512_load_si512(scale[GROUP == 32 ? u : 2 * u + j / 4]));
            split_product(NAME(v_)(UNIT(p, u), j), by, OFFSET, to->w[u / 2][0][u % 2 * 8 + j], to->w[u / 2][1][u % 2 * 8 + j]);
        }
    }
}

/* One token, AVX512_SIDE panels side by side, as above. */
static UNCHECKED void NAME(whole_panels_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift,
                                                                      __m512 *out)
{
    const int n_super = m->in / SUPERBLOCK;
    const size_t panel_bytes = pack_panel_bytes(pk, m->in);
    _Alignas(64) int32_t scale[AVX512_SIDE][SUPERBLOCK / GROUP * 16];
    const uint8_t *p[PACK_PLANES];
    struct side side = {base + side_ahead(pk), base + panel_bytes, panel_bytes};
    pack_seek(pk, base, n_super, 0, p);
    __m512 c[AVX512_SIDE];
#pragma GCC unroll 8
    for (int i = 0; i < AVX512_SIDE; i++) c[i] = _mm512_setzero_ps();
    const int8_t *a = m->acts.whole.q;
    const struct act_stretch *as = m->acts.whole.stretch;
    for (int s = 0; s < n_super; s++, as++) {
        __m512i sum[AVX512_SIDE];
#pragma GCC unroll 8
        for (int i = 0; i < AVX512_SIDE; i++) {
            const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i]};
            sum[i] = _mm512_setzero_si512();
#pragma GCC unroll 16
            for (int g = 0; g < SUPERBLOCK / GROUP; g++) _mm512_store_si512(scale[i] + 16 * g, NAME(int_scale_)(pi, g));
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++, a += 32) {
            side_fetch(&side, shift, NAME(UNIT_BYTES_));
#pragma GCC unroll 2
            for (int half = 0; half < 32 / GROUP; half++) {
                const int g = u * (32 / GROUP) + half;
                const __m512i start = _mm512_set1_epi32(-OFFSET * as->sum[GROUP == 16 ? g : 16 + g]);
#pragma GCC unroll 8
                for (int i = 0; i < AVX512_SIDE; i++) {
                    const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i]};
                    const __m512i acc = NAME(dot_)(UNIT(pi, u), half, a + half * 16, start);
                    sum[i] = _mm512_add_epi32(sum[i], _mm512_mullo_epi32(acc, _mm512_load_si512(scale[i] + 16 * g)));
                }
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < AVX512_SIDE; i++) {
            const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i]};
#if OFFSET
            c[i] = avx512_whole_add(c[i], sum[i], load_f16(pi[0]), sum[i], c[i], as->super, false);
#else
            __m512i min[SUPERBLOCK / GROUP / 4];
#pragma GCC unroll 4
            for (int j = 0; j < SUPERBLOCK / GROUP / 4; j++) min[j] = NAME(min_words_)(pi, j);
            c[i] = avx512_whole_add(c[i], sum[i], load_f16(pi[0]), avx512_whole_minima(as, min, GROUP), load_f16(pi[0] + 32), as->super, true);
#endif
        }
        pack_next(pk, base, n_super, s, 1, p);
    }
#pragma GCC unroll 8
    for (int i = 0; i < AVX512_SIDE; i++) out[i] = c[i];
}

static void NAME(gemv_whole_)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    for (int panel = panel0; panel < panel1; panel += AVX512_SIDE) {
        size_t shift[AVX512_SIDE];
        __m512 c[AVX512_SIDE];
        for (int i = 0; i < AVX512_SIDE; i++) shift[i] = (size_t)MIN(i, panel1 - 1 - panel) * pack_panel_bytes(pk, m->in); /* too few: the last one again */
        NAME(whole_panels_)(m, pk, pack_panel(m, pk, panel), shift, c);
        for (int i = 0; i < MIN(AVX512_SIDE, panel1 - panel); i++) avx512_store_row(m, 0, (panel + i) * PANEL, c[i]);
    }
}
#endif

#undef JOIN2
#undef JOIN
#undef NAME
#undef TYPE
#undef GROUP
#undef OFFSET
#undef SUPERBLOCK
#undef NIBBLES
#undef BITS
#undef UNIT
