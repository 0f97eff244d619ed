/* The packed layout of quantized weights, shared by the vector tiers.
 *
 * Rows are interleaved by PANEL = 16, so that one 32-bit vector lane is one output row and no sum runs across lanes. A panel is
 * cut along its rows into stripes of a few superblocks, so that a product reads memory in its order; the last one may be shorter. A
 * stripe is a few planes, one after the other, each 64-byte aligned; a plane holds a fixed number of bytes per superblock.
 * Together they have exactly as many bits as the file's blocks. r counts rows of the panel,
 * k4 groups of four elements, b bytes of a 32-bit lane (element 4 k4 + b):
 *   4-bit plane   [superblock][z][r][b]: low nibble k4 = 2z, high nibble k4 = 2z + 1
 *   2-bit plane   [superblock][z][r][b]: bits 2i..2i+1 are k4 = 4z + i
 *   1-bit plane   [superblock][z][r][b]: bit i is k4 = 8z + i
 *   8-bit plane   [superblock][k4][r][b]
 * Values are unsigned: the file's value plus the type's offset. */
#ifndef BACKEND_CPU_PACK_H
#define BACKEND_CPU_PACK_H

#include "backend/cpu/cpu.h"

#define PACK_PLANES 4

struct pack {
    int superblock;           /* elements */
    int stripe;               /* superblocks, a power of two */
    int plane[PACK_PLANES];   /* bytes per superblock and panel; 0: none */
    /* Scatters row r's superblock at src into the planes; NULL: floats, one plane, see pack.c. */
    void (*row)(const uint8_t *src, uint8_t *const plane[PACK_PLANES], int r);
};

/* NULL: the type has no packed layout. */
const struct pack *pack_find(enum tensor_type type);

/* Where plane i of a stripe of n superblocks starts, and with i = PACK_PLANES the bytes of the stripe. */
static inline size_t pack_plane(const struct pack *p, int n, int i)
{
    size_t at = 0;
    for (int j = 0; j < i; j++) at += ROUND_UP((size_t)n * (size_t)p->plane[j], (size_t)64);
    return at;
}

static inline int pack_n_super(const struct pack *p, int64_t in) { return (int)((in + p->superblock - 1) / p->superblock); }

static inline size_t pack_panel_bytes(const struct pack *p, int64_t in)
{
    const int n = pack_n_super(p, in);
    return (size_t)(n / p->stripe) * pack_plane(p, p->stripe, PACK_PLANES) + pack_plane(p, n % p->stripe, PACK_PLANES);
}

/* The planes of superblock s of a panel. */
static inline void pack_seek(const struct pack *p, const uint8_t *panel, int n_super, int s, const uint8_t *at[PACK_PLANES])
{
    const int first = s & -p->stripe, n = MIN(p->stripe, n_super - first);
    panel += (size_t)(first / p->stripe) * pack_plane(p, p->stripe, PACK_PLANES);
    for (int i = 0; i < PACK_PLANES; i++) at[i] = panel + pack_plane(p, n, i) + (size_t)(s - first) * (size_t)p->plane[i];
}

/* From superblock s to the one after it. */
static inline void pack_next(const struct pack *p, const uint8_t *panel, int n_super, int s, const uint8_t *at[PACK_PLANES])
{
    if (++s >= n_super) return;
    if ((s & (p->stripe - 1)) == 0) pack_seek(p, panel, n_super, s, at);
    else
        for (int i = 0; i < PACK_PLANES; i++) at[i] += p->plane[i];
}

static inline const uint8_t *pack_panel(const struct cpu_matmul *m, const struct pack *p, int panel)
{
    return (const uint8_t *)m->packed + (size_t)panel * pack_panel_bytes(p, m->in);
}

size_t pack_bytes(enum tensor_type type, int64_t rows, int64_t in);
/* packed must be zero before. */
void pack_rows(void *packed, const struct tensor *t, int64_t row0, int64_t row1);

#endif
