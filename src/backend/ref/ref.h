/* What the files of the reference engine share. The engine owns its numbers: decoders, 16-bit floats, rope frequencies and
 * sums are written here a second time from the formats and formulas, and nothing here uses base/half.h, tensor/decode.h or
 * another backend. Everything is float64. */
#ifndef BACKEND_REF_H
#define BACKEND_REF_H

#include "backend/backend.h"

extern const struct backend backend_ref;

/* y[0 .. elements per block) of one block; the block has no alignment. */
typedef void (*ref_block_fn)(const uint8_t *block, double *y);
ref_block_fn ref_decoder(enum tensor_type type); /* NULL: no such type */
/* Row `row` of t into y[ne[0]]. */
void ref_decode_row(const struct tensor *t, int64_t row, double *y);

double ref_f16(uint32_t bits);  /* IEEE 754 binary16 */
double ref_bf16(uint32_t bits); /* upper half of a binary32 */

#define QUANT(ENUM, name, text, id, block, bytes) void ref_block_##name(const uint8_t *b, double *y);
#include "tensor/quant.def"
#undef QUANT

/* freq[n_rot/2]: angle per position of each pair. Returns what cos and sin are multiplied by. */
double ref_rope_freq(const struct rope *rope, double *freq);

/* One op on the tokens that the batch still has. */
struct ref_run {
    const struct batch *batch;
    int n;             /* tokens now; SELECT lowers it */
    const int *token;  /* [n] index of each in batch.tokens */
};

struct ref {
    const struct program *program;
    int max_batch;
    double **reg;  /* [n_regs] of [max_batch][reg_width] */
    double *reg_data;
    size_t reg_bytes;
    double *row_w, *row_b; /* [widest row], [longest bias] one decoded row each */
    double *wkv;           /* [3][widest row] */
    double *route;    /* [3 * most experts] */
    bool *taken;      /* [2 * most experts] */
    double **freq;    /* [n_ops] ROPE: [n_rot/2], else NULL */
    double *mscale;   /* [n_ops] ROPE: factor of cos and sin */
    int *token;       /* [max_batch] */
    size_t *kv_at;    /* [n_kv] where in a block layer i's keys [KV_BLOCK][k_width] begin; its values [KV_BLOCK][v_width] follow */
    size_t kv_doubles; /* per block */
    double **blocks;  /* [n_blocks] of [kv_doubles] */
    int n_blocks;
    double **states;  /* [n_states] of [program->n_state] */
    int n_states;
    double *score;    /* [n_blocks * KV_BLOCK] */
    struct arena arena;
};

void ref_run_op(struct ref *r, const struct ref_run *run, int i_op);
void ref_run_state_op(struct ref *r, const struct ref_run *run, const struct op *op); /* CONV, SCAN, DELTA, WKV */

#endif
