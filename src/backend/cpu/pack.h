/* The packed layout of quantized weights, shared by the vector tiers.
 *
 * Rows are interleaved by PANEL = 16, so that one 32-bit vector lane is one output row and no sum runs across lanes. A panel is
 * cut along its rows into stripes of a few superblocks (the last one may be shorter), in the order in which a product reads them, so that
 * memory is read line after line: plane 0, the scales, of the whole stripe, then superblock by superblock the other planes. Together they
 * have exactly as many bits as the file's blocks. The last plane has the values, in units of 32 elements; r counts rows of the panel,
 * k4 groups of four elements of the unit, b bytes of a 32-bit lane (element 4 k4 + b). Values of 8 bits are [k4][r][b]; others are cut into bits:
 *   1 bit  [r][b], if they have an odd number, the topmost: bit i is that of k4 = i
 *   then for each half of the unit, k4 = 4 h and on:
 *   2 bits [r][b], of 2, 3 and 6, above the others of 6: bits 2i..2i+1 are k4 = 4h + i
 *   4 bits [z][r][b], of 4, 5 and 6, the lowest: low nibble k4 = 4h + 2z, high nibble k4 = 4h + 2z + 1
 * Values are unsigned: the file's value plus the type's offset. */
#ifndef BACKEND_CPU_PACK_H
#define BACKEND_CPU_PACK_H

#include "backend/cpu/cpu.h"

#define PACK_PLANES 3
/* Bytes of a unit of values of so many bits, and where its vectors with elements 4 k4 and on begin. */
#define PACK_UNIT(bits) (4 * PANEL * (bits))
#define PACK_HALF(bits) (((bits) & 2 ? 64 : 0) + ((bits) & 4 ? 128 : 0))
#define PACK_CRUMB(bits, k4) (((bits) & 1) * 64 + (k4) / 4 * PACK_HALF(bits))
#define PACK_NIBBLE(bits, k4) (PACK_CRUMB(bits, k4) + ((bits) & 2 ? 64 : 0) + (k4) / 2 % 2 * 64)

struct pack {
    int superblock;           /* elements */
    int stripe;               /* superblocks, a power of two */
    int scales[2];            /* bytes per superblock of planes 0 and 1 */
    int bits;                 /* of a value in plane 2; 0: floats, in plane 0 */
    /* Scatters row r's superblock at src into the planes; NULL: floats, one plane, see pack.c. */
    void (*row)(const uint8_t *src, uint8_t *const plane[PACK_PLANES], int r);
};

/* NULL: the type has no packed layout. */
const struct pack *pack_find(enum tensor_type type);

/* Bytes of plane 0 of a stripe of n superblocks, and those of a superblock's other planes. */
static inline size_t pack_head(const struct pack *p, int n) { return ROUND_UP((size_t)n * (size_t)p->scales[0], (size_t)64); }
static inline size_t pack_body(const struct pack *p) { return (size_t)p->scales[1] + (size_t)(p->superblock / 32) * (size_t)PACK_UNIT(p->bits); }
static inline size_t pack_stripe(const struct pack *p, int n) { return ROUND_UP(pack_head(p, n) + (size_t)n * pack_body(p), (size_t)64); }

static inline int pack_n_super(const struct pack *p, int64_t in) { return (int)((in + p->superblock - 1) / p->superblock); }

static inline size_t pack_panel_bytes(const struct pack *p, int64_t in)
{
    const int n = pack_n_super(p, in);
    return (size_t)(n / p->stripe) * pack_stripe(p, p->stripe) + pack_stripe(p, n % p->stripe);
}

/* The planes of superblock s of a panel. */
static inline void pack_seek(const struct pack *p, const uint8_t *panel, int n_super, int s, const uint8_t *at[PACK_PLANES])
{
    const int first = s & -p->stripe, n = MIN(p->stripe, n_super - first), i = s - first;
    panel += (size_t)(first / p->stripe) * pack_stripe(p, p->stripe);
    at[0] = panel + (size_t)i * (size_t)p->scales[0];
    at[1] = panel + pack_head(p, n) + (size_t)i * pack_body(p);
    at[2] = at[1] + p->scales[1];
}

/* From superblock s to the one that comes n later, in the same stripe or at the beginning of the next. */
static inline void pack_next(const struct pack *p, const uint8_t *panel, int n_super, int s, int n, const uint8_t *at[PACK_PLANES])
{
    if ((s += n) >= n_super) return;
    if ((s & (p->stripe - 1)) == 0) {
        pack_seek(p, panel, n_super, s, at);
        return;
    }
    at[0] += n * p->scales[0];
    for (int i = 1; i < PACK_PLANES; i++) at[i] += (size_t)n * pack_body(p);
}

static inline const uint8_t *pack_panel(const struct cpu_matmul *m, const struct pack *p, int panel)
{
    return (const uint8_t *)m->packed + (size_t)panel * pack_panel_bytes(p, m->in);
}

/* The planes p of a panel that lies so many bytes further. */
#define PACK_FURTHER(p, bytes) {(p)[0] + (bytes), (p)[1] + (bytes), (p)[2] + (bytes)}

/* Lines that a single token's product asks for, in the order of memory: of one panel, and of those `shift` bytes behind it as well. */
struct pack_stream {
    const uint8_t *at, *end; /* asked for next, as if all lay behind each other; of these panels */
    ptrdiff_t jump;          /* from there to what comes then */
};

/* N panels side by side from `first` on, so many bytes ahead but at most a panel, then the next ones. */
static inline struct pack_stream pack_stream_side(const uint8_t *first, int N, size_t panel_bytes, size_t ahead)
{
    return (struct pack_stream){first + MIN(ahead, panel_bytes), first + panel_bytes, (ptrdiff_t)((size_t)(N - 1) * panel_bytes)};
}

/* The product is about to use n_bytes of each of N panels. NULL: it asks for nothing. */
static inline __attribute__((always_inline)) void pack_stream_go(struct pack_stream *s, const int N, const size_t *shift, const int n_bytes)
{
    if (!s) return;
    UNROLL(8)
    for (int i = 0; i < N; i++)
        UNROLL_BY(9)
        for (int l = 0; l < n_bytes; l += 64) __builtin_prefetch(s->at + shift[i] + l);
    s->at += n_bytes;
    if (s->at >= s->end) s->at += s->jump, s->end = (const uint8_t *)UINTPTR_MAX;
}

/* Packed bytes that will be unpacked next: fetched a few lines at a time while tiles are computed, since nothing else would keep the
 * memory busy then. */
struct pack_ahead {
    const uint8_t *p[4]; /* of as many panels */
    size_t n_bytes[4], total;
    int at; /* range in progress */
};

/* The chunk of n_rows rows, 4 * PANEL at most, at (row, k0); nothing where there is no such row. */
struct pack_ahead pack_plan_ahead(const struct cpu_matmul *m, int row, int n_rows, int k0, int chunk);
void pack_ahead_fetch(struct pack_ahead *a, size_t n_bytes);

size_t pack_bytes(enum tensor_type type, int64_t rows, int64_t in);
/* packed must be zero before. */
void pack_rows(void *packed, const struct tensor *t, int64_t row0, int64_t row1);

#endif
