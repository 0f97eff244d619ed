/* Matmul with int8 activations for AMX, of types that whole_amx.c and float_amx.c do not have: the arithmetic of matmul_avx512.c, bit for bit, with a group's
 * products summed by the matrix unit.
 *
 * Weights, unpacked to bytes 32 rows at a time, and activations are taken as bf16: both are integers of 8 bits at most, activations times
 * 2^-k, so a product is exact and so is the f32 sum of a group's, whatever the order. It comes out as isum * 2^-k, for which integer
 * tiles would need a conversion and a multiplication more, and at 32 elements a step takes the same time: 16 cycles for 16 tokens x 16
 * rows.
 *
 * A tile of sums goes through memory to the vector unit, which multiplies with scales. Tiles of the next groups are multiplied meanwhile,
 * one for each 16 vectors of sums. While tiles are in use, Intel's cores have one fma of 512 bits a cycle, not two (measured), so that 16 x
 * 16 outputs take 16 cycles with scales alone and 32 with minima, beside 16 for the product, 16 for the store and 20 for loads.
 *
 * Fewer than ACT_WIDE_LEAST tokens go to the AVX-512 kernels: widening weights takes as long as they need for a dozen tokens. */
#include "backend/cpu/amx.h"

#define TILE ACT_WIDE_TILE
#define CHUNK ACT_SUPER /* 16 KiB of widened values in L1 */
#define BLOCK 128       /* rows that a chunk of activations meets while it is in the L2 cache */
#define AHEAD 2         /* a product is stored so many steps after it was begun */
enum { STEP_GROUPS = 2, SUMS = 16 * 16, OCTET = 8 };

/* ---- scratch of a thread; every array 64-byte aligned. Behind it: sums [BLOCK / 32][tiles][TILE][2][16] ---- */

struct scratch {
    uint8_t bytes[CHUNK / 4 * 128]; /* [k4][2][64] */
    uint16_t w[CHUNK / 32][2]
              [16 * 32]; /* [unit][panel]: rows (2 j, 2 j + 1) of a tile are elements (4 j, 4 j + 2) and (4 j + 1, 4 j + 3) */
    float ws[CHUNK / 16 * 32], wm[CHUNK / 16 * 32]; /* [group][2][16] */
    float isum[2][STEP_GROUPS][2][SUMS];            /* [ring]: of the groups in use, and of the next ones */
    float s[TILE * 32];                             /* [token][2][16]: of a stretch so far */
};

static size_t scratch_bytes(int in, int max_n)
{
    const size_t few = avx512_int_format(TYPE_Q8_0)->scratch_bytes(in, MIN(max_n, ACT_WIDE_LEAST));
    return MAX(few, sizeof(struct scratch) + (size_t)ROUND_UP(max_n, TILE) * BLOCK * sizeof(float));
}

/* ---- weights to bf16 ---- */

/* Whether values (less 128, where there are no minima) tell themselves apart by six bits. */
static bool six_bits(enum tensor_type type)
{
    switch (type) {
    case TYPE_Q4_0:
    case TYPE_Q4_1:
    case TYPE_Q5_0:
    case TYPE_Q5_1:
    case TYPE_MXFP4: return true;
    default: return false;
    }
}

/* High and low bytes of the values of all bytes, as bf16. */
struct widths {
    __m512i high[4], low[4];
};

static struct widths widths_new(bool has_min, bool narrow)
{
    _Alignas(64) uint8_t high[256], low[256];
    for (int i = 0; i < 256; i++) {
        const int value = has_min ? (narrow ? i & 63 : i) : narrow ? ((i & 63) ^ 32) - 32 : i - 128;
        const uint32_t bits = f32_bits((float)value); /* no more than 8 significant bits */
        high[i] = (uint8_t)(bits >> 24);
        low[i] = (uint8_t)(bits >> 16);
    }
    struct widths w;
    for (int i = 0; i < 4; i++) w.high[i] = _mm512_load_si512(high + 64 * i), w.low[i] = _mm512_load_si512(low + 64 * i);
    return w;
}

INLINE __m512i look_up(const __m512i t[4], __m512i i, const bool NARROW)
{
    if (NARROW) return _mm512_permutexvar_epi8(i, t[0]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(i), _mm512_permutex2var_epi8(t[0], i, t[1]), _mm512_permutex2var_epi8(t[2], i, t[3]));
}

INLINE void widen(struct scratch *s, const struct widths *t, int n, const bool NARROW)
{
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaa;
    for (int k = 0; k < n / 4; k++)
        UNROLL(2)
        for (int p = 0; p < 2; p++) {
            const __m512i v = _mm512_load_si512(s->bytes + k * 128 + p * 64), high = look_up(t->high, v, NARROW),
                          low = look_up(t->low, v, NARROW);
            uint16_t *to = s->w[k / 8][p] + k % 8 * 64;
            _mm512_store_si512(to, _mm512_mask_blend_epi8(odd, low, _mm512_slli_epi16(high, 8)));
            _mm512_store_si512(to + 32, _mm512_mask_blend_epi8(odd, _mm512_srli_epi16(low, 8), high));
        }
}

/* ---- tiles: 0 to 3 sums, 4 and 5 activations, 6 and 7 weights ---- */

struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void configure(int tokens, int group)
{
    struct tile_config c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)(i < 6 ? tokens : group / 2);
        c.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? 2 * group : 64);
    }
    _tile_loadconfig(&c);
}

INLINE void store_sums(int i, float *to)
{
    switch (i & 3) {
    case 0: _tile_stored(0, to, 64); break;
    case 1: _tile_stored(1, to, 64); break;
    case 2: _tile_stored(2, to, 64); break;
    default: _tile_stored(3, to, 64); break;
    }
}

#define MULTIPLY(c, a, b)                                                                                                                  \
    do {                                                                                                                                   \
        _tile_zero(c);                                                                                                                     \
        _tile_dpbf16ps(c, a, b);                                                                                                           \
    } while (0)

/* The i-th product: group i / 2, panel i % 2. */
INLINE void multiply(int i, const uint16_t *a, const uint16_t *w)
{
    if ((i & 3) == 0) _tile_loadd(4, a, 64);
    if ((i & 3) == 2) _tile_loadd(5, a, 64);
    if (i & 1)
        _tile_loadd(7, w, 64);
    else
        _tile_loadd(6, w, 64);
    switch (i & 3) {
    case 0: MULTIPLY(0, 4, 6); break;
    case 1: MULTIPLY(1, 4, 7); break;
    case 2: MULTIPLY(2, 5, 6); break;
    default: MULTIPLY(3, 5, 7); break;
    }
}

/* Some groups of a stretch, all tokens of a tile. */
struct part {
    const uint16_t *a, *w;      /* [unit][T][32], [unit][2][16 * 32] */
    const float *ws, *wm, *sum; /* [group][2][16]; sum: [unit][3][T] */
    const float *super;         /* [T] */
    float *c;                   /* [T][2][16]: of the row so far */
    int g0, n_groups, T;        /* the first one; of the whole stretch */
};

/* The activations of group g of these; the weights. */
INLINE const uint16_t *part_a(const struct part *x, int g, int T, const int GROUP)
{
    return GROUP == 32 ? x->a + g * T * 32 : x->a + g / 2 * T * 32 + g % 2 * 16;
}
INLINE const uint16_t *part_w(const struct part *x, int g, int panel, const int GROUP)
{
    return x->w + (GROUP == 32 ? g * 1024 : g / 2 * 1024 + g % 2 * 256) + panel * 512;
}

INLINE bool part_is_last(const struct part *x) { return x->g0 + STEP_GROUPS >= x->n_groups; }

INLINE struct part part_next(struct part x, const int GROUP)
{
    const int units = STEP_GROUPS * GROUP / 32;
    x.a += units * x.T * 32;
    x.w += units * 1024;
    x.ws += STEP_GROUPS * 32;
    x.wm += STEP_GROUPS * 32;
    x.sum += 3 * units * x.T;
    x.g0 += STEP_GROUPS;
    return x;
}

struct octet {
    __m512 s[2][OCTET];
};

INLINE void octet_begin(struct octet *o, const float *s, bool begins)
{
    UNROLL(8)
    for (int t = 0; t < OCTET; t++) {
        o->s[0][t] = begins ? _mm512_setzero_ps() : _mm512_load_ps(s + t * 32);
        o->s[1][t] = begins ? _mm512_setzero_ps() : _mm512_load_ps(s + t * 32 + 16);
    }
}

/* TAIL: tokens past the tile's last count as that. */
INLINE void octet_group(struct octet *o, const struct part *x, const float *isum, int first, int g, int T, const int GROUP,
                        const bool HAS_MIN, const bool TAIL)
{
    const float *ws = x->ws + g * 32, *wm = x->wm + g * 32;
    const float *sum = x->sum + (GROUP == 32 ? 3 * g : g / 2 * 3 + 1 + g % 2) * T + first;
    const __m512 w0 = _mm512_load_ps(ws), w1 = _mm512_load_ps(ws + 16);
    const __m512 m0 = HAS_MIN ? _mm512_load_ps(wm) : w0, m1 = HAS_MIN ? _mm512_load_ps(wm + 16) : w1;
    isum += first * 16;
    UNROLL(8)
    for (int t = 0; t < OCTET; t++) {
        o->s[0][t] = _mm512_fmadd_ps(w0, _mm512_load_ps(isum + t * 16), o->s[0][t]);
        o->s[1][t] = _mm512_fmadd_ps(w1, _mm512_load_ps(isum + SUMS + t * 16), o->s[1][t]);
        if (!HAS_MIN) continue;
        const __m512 all = _mm512_set1_ps(sum[TAIL ? MIN(t, T - 1 - first) : t]);
        o->s[0][t] = _mm512_fnmadd_ps(all, m0, o->s[0][t]);
        o->s[1][t] = _mm512_fnmadd_ps(all, m1, o->s[1][t]);
    }
}

INLINE void octet_end(const struct octet *o, const struct part *x, float *s, int first, int T, bool row_begins, const bool TAIL)
{
    float *c = x->c + first * 32;
    if (!part_is_last(x)) {
        UNROLL(8)
        for (int t = 0; t < OCTET; t++) _mm512_store_ps(s + t * 32, o->s[0][t]), _mm512_store_ps(s + t * 32 + 16, o->s[1][t]);
        return;
    }
    UNROLL(8)
    for (int t = 0; t < OCTET; t++) {
        const __m512 super = _mm512_set1_ps(x->super[first + (TAIL ? MIN(t, T - 1 - first) : t)]);
        const __m512 c0 = row_begins ? _mm512_setzero_ps() : _mm512_load_ps(c + t * 32),
                     c1 = row_begins ? _mm512_setzero_ps() : _mm512_load_ps(c + t * 32 + 16);
        _mm512_store_ps(c + t * 32, _mm512_fmadd_ps(o->s[0][t], super, c0));
        _mm512_store_ps(c + t * 32 + 16, _mm512_fmadd_ps(o->s[1][t], super, c1));
    }
}

/* ---- a chunk: 32 rows, up to 256 elements, all tokens ---- */

struct chunk {
    const struct cpu_matmul *m;
    struct scratch *s;
    float *sums;              /* [tiles][TILE][2][16] */
    struct pack_ahead next;   /* asked for meanwhile, `step` bytes with each tile */
    size_t step;
    int row, k0, n;
};

/* The sums of x, whole, and the products of next. The last AHEAD products of x are still in their tiles, and those of next will be. */
INLINE void step(const struct chunk *c, const struct part *x, const struct part *next, int ring, const int GROUP, const bool HAS_MIN)
{
    struct octet o;
    struct scratch *s = c->s;
    UNROLL(4)
    for (int i = 0; i < 2 * STEP_GROUPS; i++) {
        const int first = i / STEP_GROUPS * OCTET, g = i % STEP_GROUPS, done = (i + 2 * STEP_GROUPS - AHEAD) % (2 * STEP_GROUPS);
        store_sums(done, s->isum[i < AHEAD ? ring : !ring][done / 2][done % 2]);
        multiply(i, part_a(next, i / 2, TILE, GROUP), part_w(next, i / 2, i % 2, GROUP));
        UNROLL(4)
        for (int j = 0; j < 4; j++) __builtin_prefetch(next->a + TILE * CHUNK + (i * 4 + j) * 32);
        if (g == 0) octet_begin(&o, s->s + first * 32, x->g0 == 0);
        octet_group(&o, x, s->isum[ring][g][0], first, g, TILE, GROUP, HAS_MIN, false);
        if (g == STEP_GROUPS - 1) octet_end(&o, x, s->s + first * 32, first, TILE, c->k0 == 0, false);
    }
}

/* Products that no step has begun. */
INLINE void begin(const struct chunk *c, const struct part *x, const int GROUP)
{
    UNROLL(4)
    for (int i = 0; i < 2 * STEP_GROUPS; i++) {
        if (i >= AHEAD) store_sums(i - AHEAD, c->s->isum[0][(i - AHEAD) / 2][(i - AHEAD) % 2]);
        multiply(i, part_a(x, i / 2, TILE, GROUP), part_w(x, i / 2, i % 2, GROUP));
    }
}

/* Any number of tokens and groups, one thing after the other. */
INLINE void step_alone(const struct chunk *c, const struct part *x, const int GROUP, const bool HAS_MIN)
{
    const int n = MIN(STEP_GROUPS, x->n_groups - x->g0);
    float(*isum)[2][SUMS] = c->s->isum[0];
    for (int g = 0; g < n; g++) {
        multiply(0, part_a(x, g, x->T, GROUP), part_w(x, g, 0, GROUP));
        multiply(1, part_a(x, g, x->T, GROUP), part_w(x, g, 1, GROUP));
        store_sums(0, isum[g][0]);
        store_sums(1, isum[g][1]);
    }
    for (int first = 0; first < x->T; first += OCTET) {
        struct octet o;
        octet_begin(&o, c->s->s + first * 32, x->g0 == 0);
        for (int g = 0; g < n; g++) octet_group(&o, x, isum[g][0], first, g, x->T, GROUP, HAS_MIN, true);
        octet_end(&o, x, c->s->s + first * 32, first, x->T, c->k0 == 0, true);
    }
}

/* The first groups of the tile that begins with token t0. */
INLINE struct part chunk_part(const struct chunk *c, int t0, const int GROUP)
{
    const struct cpu_matmul *m = c->m;
    const struct act_wide *a = &m->acts.wide;
    const int T = MIN(TILE, m->t1 - t0), stretch = c->k0 / ACT_SUPER;
    const size_t t = (size_t)t0;
    return (struct part){
        .a = act_wide_at(a, m->in, m->n, t0, stretch),
        .w = c->s->w[0][0],
        .ws = c->s->ws,
        .wm = c->s->wm,
        .sum = a->sum + 3 * (t * (size_t)(m->in / 32) + (size_t)(c->k0 / 32 * T)),
        .super = a->super + t * (size_t)act_stretches(m->in) + (size_t)(stretch * T),
        .c = c->sums + (t0 - m->t0) * 32,
        .n_groups = c->n / GROUP,
        .T = T,
    };
}

static void tile_begins(struct chunk *c, int t0)
{
    pack_ahead_fetch(&c->next, c->step);
    if (c->k0 + c->n == c->m->in) avx512_ask_rows(c->m, t0, MIN(TILE, c->m->t1 - t0), c->row);
}

static void tile_ends(const struct chunk *c, int t0)
{
    if (c->k0 + c->n != c->m->in) return;
    const float *from = c->sums + (t0 - c->m->t0) * 32;
    for (int t = t0; t < MIN(t0 + TILE, c->m->t1); t++, from += 32) {
        avx512_store_row(c->m, t, c->row, _mm512_load_ps(from));
        avx512_store_row(c->m, t, c->row + 16, _mm512_load_ps(from + 16));
    }
}

INLINE void multiply_chunk(struct chunk *c, const int GROUP, const bool HAS_MIN)
{
    const int first = c->m->t0, end = c->m->t1, whole = c->n == CHUNK ? end - (end - first) % TILE : first; /* tiles up to there are whole */
    __asm__ volatile("" ::: "memory"); /* tiles are loaded behind the compiler's back */
    if (first < whole) {
        struct part x = chunk_part(c, first, GROUP);
        int ring = 0;
        configure(TILE, GROUP);
        begin(c, &x, GROUP);
        for (int t0 = first; t0 < whole; t0 += TILE) {
            tile_begins(c, t0);
            for (bool last = false; !last; ring = !ring) {
                last = part_is_last(&x);
                /* behind the last one, the first once more, for nothing */
                const struct part next = last ? chunk_part(c, t0 + TILE < whole ? t0 + TILE : first, GROUP) : part_next(x, GROUP);
                step(c, &x, &next, ring, GROUP, HAS_MIN);
                x = next;
            }
            tile_ends(c, t0);
        }
    }
    for (int t0 = whole; t0 < end; t0 += TILE) {
        configure(MIN(TILE, end - t0), GROUP);
        tile_begins(c, t0);
        for (struct part x = chunk_part(c, t0, GROUP); x.g0 < x.n_groups; x = part_next(x, GROUP)) step_alone(c, &x, GROUP, HAS_MIN);
        tile_ends(c, t0);
    }
}

typedef void (*chunk_fn)(struct chunk *c);
static void chunk_32(struct chunk *c) { multiply_chunk(c, 32, false); }
static void chunk_32_min(struct chunk *c) { multiply_chunk(c, 32, true); }
static void chunk_16(struct chunk *c) { multiply_chunk(c, 16, false); }

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (!acts_are_wide(&m->acts, m->n)) {
        avx512_int_format(m->tensor->type)->run(m, row0, row1);
        return;
    }
    struct scratch *s = m->scratch;
    const struct avx512_int_kind kind = avx512_int_kind(m->tensor->type);
    const struct avx512_chunk bytes = {s->bytes, s->ws, s->wm};
    const bool narrow = six_bits(m->tensor->type);
    const struct widths widths = widths_new(kind.has_min, narrow);
    const chunk_fn fn = kind.group == 16 ? chunk_16 : kind.has_min ? chunk_32_min : chunk_32; /* groups of 16 with minima: whole_amx.c */
    const size_t n_tiles = (size_t)(m->t1 - m->t0 + TILE - 1) / TILE;
    for (int first = row0; first < row1; first += BLOCK) {
        const int end = MIN(first + BLOCK, row1);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            struct chunk c = {.m = m, .s = s, .sums = (float *)(s + 1), .k0 = k0, .n = MIN(CHUNK, m->in - k0)};
            for (c.row = first; c.row < end; c.row += 2 * PANEL, c.sums += n_tiles * TILE * 32) {
                avx512_int_unpack(m, c.row, k0, c.n, &bytes);
                if (narrow)
                    widen(s, &widths, c.n, true);
                else
                    widen(s, &widths, c.n, false);
                const bool last_row = c.row + 2 * PANEL >= end, last = last_row && k0 + CHUNK >= m->in;
                c.next = pack_plan_ahead(m,
                                           last       ? end
                                           : last_row ? first
                                                      : c.row + 2 * PANEL,
                                           2 * PANEL,
                                           last       ? 0
                                           : last_row ? k0 + CHUNK
                                                      : k0,
                                           CHUNK);
                c.step = (c.next.total + n_tiles - 1) / n_tiles;
                fn(&c);
            }
        }
    }
    _tile_release();
}

#define X(ENUM, name)                                                                                                                      \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
AVX512_INT_TYPES(X)
#undef X

static const struct cpu_format *format(enum tensor_type type, kg_activations activations)
{
    static const struct cpu_format packed[] = {
#define X(ENUM, name) [TYPE_##ENUM] = {"packed int8", ACTS_INT8, bytes_##name, pack_rows, scratch_bytes, run},
        AVX512_INT_TYPES(X)
#undef X
    };
    static const struct cpu_format rows = {"rows int8", ACTS_INT8, NULL, NULL, scratch_bytes, run};
    if (activations == KG_ACT_INT8) {
        const struct cpu_format *f = amx_whole_format(type);
        if (!f) f = amx_float_format(type);
        if (f) return f;
    }
    if (activations != KG_ACT_INT8 || !avx512_int_kind(type).group) return avx512_float_format(type, activations);
    return (size_t)type < COUNT_OF(packed) && packed[type].name ? &packed[type] : &rows;
}

void cpu_kernels_amx(struct cpu_kernels *k)
{
    k->format = format;
    k->act_wide = true;
    k->act_sums = false; /* whole_amx.c has the types that they are for */
    k->block_bf16 = amx_block_bf16;
}
