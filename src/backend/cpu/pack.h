/* The packed layout of quantized weights, shared by the vector tiers.
 *
 * Rows are interleaved by PANEL = 16, so that one 32-bit vector lane is one output row and no sum runs across lanes. A panel is
 * a few planes, one after the other, each 64-byte aligned and contiguous over the whole row; a plane holds a fixed number
 * of bytes per superblock. Together they have exactly as many bits as the file's blocks. r counts rows of the panel,
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
    int plane[PACK_PLANES];   /* bytes per superblock and panel; 0: none */
    /* Scatters row r's superblock at src into the planes; NULL: floats, one plane, see pack.c. */
    void (*row)(const uint8_t *src, uint8_t *const plane[PACK_PLANES], int r);
};

/* NULL: the type has no packed layout. */
const struct pack *pack_find(enum tensor_type type);

/* Where plane i of a panel starts, and with i = PACK_PLANES the bytes of a panel. */
static inline size_t pack_plane(const struct pack *p, int64_t in, int i)
{
    size_t at = 0;
    for (int j = 0; j < i; j++) at += ROUND_UP((size_t)((in + p->superblock - 1) / p->superblock) * (size_t)p->plane[j], (size_t)64);
    return at;
}

size_t pack_bytes(enum tensor_type type, int64_t rows, int64_t in);
/* packed must be zero before. */
void pack_rows(void *packed, const struct tensor *t, int64_t row0, int64_t row1);

#endif
