/* Re-included once per packed integer type by unpack_avx512.c. TYPE is the type's name, SUPERBLOCK its elements per superblock, GROUP its
 * scale group (16 or 32), OFFSET what was added to its values, 0 where groups have a minimum instead, NIBBLES the number of the plane of
 * nibbles if they are the whole value, else 0. From the includer: scale_TYPE(p, g, &min) gives scales (and minima) of group g, v_TYPE(p, u, j)
 * the values of elements 32 u + 4 j .. + 3; UNIT_BYTES_TYPE. Makes unpack_TYPE and gemv_TYPE. */

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, TYPE)

/* Superblocks [s0, s1) of one panel -> w [k4][2][64], values as they are or with the common offset of 128, and ws, wm [group][2][16];
 * the caller picks the half of the pair. */
static void NAME(unpack_)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, p), s++) {
#pragma GCC unroll 16
        for (int g = 0; g < SUPERBLOCK / GROUP; g++, ws += 32, wm += 32) {
            __m512 min;
            _mm512_store_ps(ws, NAME(scale_)(p, g, &min));
            if (!OFFSET) _mm512_store_ps(wm, min);
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++, w += 128) {
                const __m512i v = NAME(v_)(p, u, j);
                _mm512_store_si512(w, OFFSET % 128 ? _mm512_add_epi8(v, _mm512_set1_epi8((char)(128 - OFFSET))) : v);
            }
        }
    }
}

/* start + the exact sum of values times a[GROUP], of a unit or its half. */
static inline __attribute__((always_inline)) __m512i NAME(dot_)(const uint8_t *const *p, int u, int half, const int8_t *a, __m512i start)
{
#if NIBBLES
    __m512i high = _mm512_setzero_si512(); /* 16 times too large: one shift for all */
#pragma GCC unroll 4
    for (int z = 0; z < GROUP / 8; z++) {
        const __m512i v = load(p[NIBBLES] + (u * 4 + half * (GROUP / 8) + z) * 64);
        start = _mm512_dpbusd_epi32(start, _mm512_and_si512(v, _mm512_set1_epi8(0x0f)), _mm512_set1_epi32(load_i32(a + 8 * z)));
        high = _mm512_dpbusd_epi32(high, _mm512_and_si512(v, _mm512_set1_epi8((char)0xf0)), _mm512_set1_epi32(load_i32(a + 8 * z + 4)));
    }
    return _mm512_add_epi32(start, _mm512_srai_epi32(high, 4));
#else
#pragma GCC unroll 8
    for (int j = 0; j < GROUP / 4; j++)
        start = _mm512_dpbusd_epi32(start, NAME(v_)(p, u, half * (GROUP / 4) + j), _mm512_set1_epi32(load_i32(a + 4 * j)));
    return start;
#endif
}

/* One token: N panels side by side, from the one at `base` on, `shift` bytes apart. The same arithmetic as tile(), in the same order. */
static inline __attribute__((always_inline)) void NAME(panels_)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift,
                                                                struct stream *stream, __m512 *out, const int N)
{
    const int n_super = m->in / SUPERBLOCK;
    const size_t panel_bytes = pack_panel_bytes(pk, m->in);
    _Alignas(64) float ws[AVX512_SIDE][SUPERBLOCK / GROUP * 16], wm[AVX512_SIDE][SUPERBLOCK / GROUP * 16];
    const uint8_t *p[PACK_PLANES], *end = base + panel_bytes, *at = N == 1 ? base : base + MIN(pack_plane(pk, pk->stripe, PACK_PLANES), (size_t)SIDE_AHEAD);
    pack_seek(pk, base, n_super, 0, p);
    __m512 c[AVX512_SIDE], sum[AVX512_SIDE];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) c[i] = sum[i] = _mm512_setzero_ps();
    const int8_t *a = m->acts.q;
    const struct act_group *ag = m->acts.group;
    const struct act_halves *ah = m->acts.halves;
    for (int s = 0; s < n_super; s++) {
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) {
            const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i], p[3] + shift[i]};
#pragma GCC unroll 16
            for (int g = 0; g < SUPERBLOCK / GROUP; g++) {
                __m512 min;
                _mm512_store_ps(ws[i] + 16 * g, NAME(scale_)(pi, g, &min));
                if (!OFFSET) _mm512_store_ps(wm[i] + 16 * g, min);
            }
        }
        for (int u = 0; u < SUPERBLOCK / 32; u++, a += 32, ag++, ah++) {
            const __m512 magic = _mm512_set1_ps(ag->neg_magic);
            at += NAME(UNIT_BYTES_);
            if (N == 1) stream_fetch(stream, at);
            else {
                if (at >= end) at += (N - 1) * panel_bytes, end = (const uint8_t *)UINTPTR_MAX; /* to the next N */
#pragma GCC unroll 8
                for (int i = 0; i < N; i++)
#pragma GCC unroll 9
                    for (int l = 0; l < NAME(UNIT_BYTES_); l += 64) __builtin_prefetch(at + shift[i] + l);
            }
#pragma GCC unroll 2
            for (int half = 0; half < 32 / GROUP; half++) {
                const int init = GROUP == 32 ? ag->init : ah->init[half], g = u * (32 / GROUP) + half;
                const __m512i start = _mm512_set1_epi32(ag->start + (init - ag->start) / 128 * OFFSET);
#pragma GCC unroll 8
                for (int i = 0; i < N; i++) {
                    const uint8_t *const pi[PACK_PLANES] = {p[0] + shift[i], p[1] + shift[i], p[2] + shift[i], p[3] + shift[i]};
                    const __m512i acc = NAME(dot_)(pi, u, half, a + half * 16, start);
                    sum[i] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc), magic), _mm512_load_ps(ws[i] + 16 * g), sum[i]);
                    if (OFFSET) continue;
                    const __m512 all = _mm512_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
                    sum[i] = _mm512_fnmadd_ps(all, _mm512_load_ps(wm[i] + 16 * g), sum[i]);
                }
            }
            if ((ag - m->acts.group) % (ACT_SUPER / 32) != ACT_SUPER / 32 - 1) continue;
#pragma GCC unroll 8
            for (int i = 0; i < N; i++) {
                c[i] = _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag->super), c[i]);
                sum[i] = _mm512_setzero_ps();
            }
        }
        pack_next(pk, base, n_super, s, p);
    }
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) out[i] = m->in % ACT_SUPER ? _mm512_fmadd_ps(sum[i], _mm512_set1_ps(ag[-1].super), c[i]) : c[i];
}

static void NAME(gemv_)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    struct stream stream = stream_from(m, pk, panel0, panel1);
    const int step = avx512_one_stream() ? 1 : AVX512_SIDE;
    for (int panel = panel0; panel < panel1; panel += step) {
        size_t shift[AVX512_SIDE];
        __m512 c[AVX512_SIDE];
        for (int i = 0; i < AVX512_SIDE; i++) shift[i] = (size_t)MIN(i, panel1 - 1 - panel) * pack_panel_bytes(pk, m->in); /* too few: the last one again */
        if (step == 1) NAME(panels_)(m, pk, pack_panel(m, pk, panel), shift, &stream, c, 1);
        else NAME(panels_)(m, pk, pack_panel(m, pk, panel), shift, &stream, c, AVX512_SIDE);
        for (int i = 0; i < MIN(step, panel1 - panel); i++) avx512_store_row(m, 0, (panel + i) * PANEL, c[i]);
    }
}

#undef JOIN2
#undef JOIN
#undef NAME
#undef TYPE
#undef GROUP
#undef OFFSET
#undef SUPERBLOCK
#undef NIBBLES
