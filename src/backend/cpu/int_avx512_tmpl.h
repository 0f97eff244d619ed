/* Re-included once per packed integer type by unpack_avx512.c. TYPE is the type's name, GROUP its scale group (16 or 32), HAS_MIN
 * whether groups have a minimum: values are then unsigned as they are, else 128 was added. From the includer: scales_TYPE(p, ws, wm, stride)
 * stores a superblock's scales (and minima) of 16 rows, `stride` floats apart; w_TYPE(p, u, j) gives the values of
 * elements 32 u + 4 j .. + 3. Makes unpack_TYPE and gemv_TYPE. */

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)
#define NAME(x) JOIN(x, TYPE)

/* Superblocks [s0, s1) of one panel -> w [k4][2][64] and ws, wm [group][2][16]; the caller picks the half of the pair. */
static void NAME(unpack_)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, p), s++) {
        NAME(scales_)(p, ws, wm, 32);
        ws += pk->superblock / GROUP * 32;
        wm += pk->superblock / GROUP * 32;
        for (int u = 0; u < pk->superblock / 32; u++) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++, w += 128) _mm512_store_si512(w, NAME(w_)(p, u, j));
        }
    }
}

/* One token: panels [panel0, panel1). The same arithmetic as tile(), in the same order. */
static void NAME(gemv_)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    const int n_super = m->in / pk->superblock, units = pk->superblock / 32;
    const size_t unit_bytes = pack_panel_bytes(pk, m->in) / (size_t)(m->in / 32);
    struct stream stream = stream_from(m, pk, panel0, panel1);
    _Alignas(64) float ws[16 * 16], wm[16 * 16];
    for (int panel = panel0; panel < panel1; panel++) {
        const uint8_t *p[PACK_PLANES], *base = pack_panel(m, pk, panel), *used = base;
        pack_seek(pk, base, n_super, 0, p);
        __m512 c = _mm512_setzero_ps(), sum = _mm512_setzero_ps();
        const int8_t *a = m->acts.q;
        const struct act_group *ag = m->acts.group;
        const struct act_halves *ah = m->acts.halves;
        for (int s = 0; s < n_super; s++) {
            NAME(scales_)(p, ws, wm, 16);
            for (int u = 0; u < units; u++, a += 32, ag++, ah++) {
                const __m512 magic = _mm512_set1_ps(ag->neg_magic);
                stream_fetch(&stream, used += unit_bytes);
#pragma GCC unroll 2
                for (int half = 0; half < 32 / GROUP; half++) {
                    __m512i acc = _mm512_set1_epi32(HAS_MIN ? ag->start : GROUP == 32 ? ag->init : ah->init[half]);
#pragma GCC unroll 8
                    for (int j = 0; j < GROUP / 4; j++)
                        acc = _mm512_dpbusd_epi32(acc, NAME(w_)(p, u, half * 4 + j), _mm512_set1_epi32(load_i32(a + half * 16 + 4 * j)));
                    const int g = u * (32 / GROUP) + half;
                    sum = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc), magic), _mm512_load_ps(ws + 16 * g), sum);
                    if (HAS_MIN) {
                        const __m512 all = _mm512_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
                        sum = _mm512_fnmadd_ps(all, _mm512_load_ps(wm + 16 * g), sum);
                    }
                }
                if ((ag - m->acts.group) % (ACT_SUPER / 32) != ACT_SUPER / 32 - 1) continue;
                c = _mm512_fmadd_ps(sum, _mm512_set1_ps(ag->super), c);
                sum = _mm512_setzero_ps();
            }
            pack_next(pk, base, n_super, s, p);
        }
        if (m->in % ACT_SUPER) c = _mm512_fmadd_ps(sum, _mm512_set1_ps(ag[-1].super), c);
        avx512_store_row(m, 0, panel * PANEL, c);
    }
}

#undef JOIN2
#undef JOIN
#undef NAME
#undef TYPE
#undef GROUP
#undef HAS_MIN
