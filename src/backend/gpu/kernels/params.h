/* Parameter blocks of the kernels, shared by host and devices: only 4-byte scalars, so that the layout is the same everywhere.
 * A register holds rows of `stride` floats, a multiple of 32; what lies beyond its width is zero and stays so. */
#ifndef GPU_PARAMS_H
#define GPU_PARAMS_H

/* Launches that need the same: the one behind does not wait for the end of the one before, only for its beginning. */
#define MEET_NONE 0
#define MEET_TELL 1
#define MEET_JOIN 2

#define FED_UNIT 48 /* bytes of a unit as feed.h has it */

#define NORM_NONE 0
#define NORM_RMS 1
#define NORM_LAYER 2

/* A row of packed weights: planes of codes from 0 and off_b, scales from off_s, superscales from off_d; bytes. Plain numbers: piece j of unit u is the
 * (off_s j + off_b u)th of 16 bytes, which is one plane for each j, or the order of the file; a device that only has the former says so in PLAIN_AT. */
typedef struct {
    uint n_units, off_b, off_s, off_d;
    uint row_bytes;
    uint book0, book1, book2, book3; /* 16 signed bytes */
} RowP;

/* y[t][row] = sum_i w[row][i] x[t][i] [+ bias[row]], then act or glu, then + res[t][row]. */
typedef struct {
    RowP w;
    uint rows;
    uint n;                 /* tokens */
    uint n_in, x_stride;    /* floats; or bytes of a row of prepared activations */
    uint norm, has_norm_b;  /* NORM_*, of x, where the kernel prepares it itself */
    float eps;
    uint rows0, rows1;      /* rows of the first two outputs; the third has the rest */
    uint stride0, stride1, stride2, res_stride;
    uint has_bias, has_res;
    uint act;               /* 0: none, else activation + 1 */
    uint glu;               /* rows 2i and 2i + 1 are gate and up of output i */
    uint splits;            /* waves that share a row */
    uint n_tiles, n_groups; /* matvec: tiles of rows, groups that share them */
    uint waves, slots, early, ring; /* streams: waves of a group, copies under way of each, waves whose copies begin before the token is there, bytes of a wave's */
    uint bundle, bundle_bytes, n_bundles, per_group; /* rows of a copy; copies of a group, */
    uint n_large, piece;                             /* of the first n_large; the others have a piece less */
    uint feeds, feeds_norm; /* streams: units of the next matmul's token, which this one prepares (0: it does not), times the weight of its norm */
    uint meets;             /* MEET_* */
    uint sums_at;           /* byte of shared memory where the rows' sums lie */
} MatP;

/* dst[t] = a row of w, by the token's id or its position, or the first one; add: + src[t] */
typedef struct {
    RowP w;
    uint width, stride, by, add; /* by: BY_* */
} EmbedP;
#define BY_ID 0
#define BY_POS 1
#define BY_NOTHING 2

/* dst[t] = norm of src[t]; or as int8 units, or as halves with a scale per token. out_stride: floats, bytes, halves */
typedef struct {
    uint width, stride, out_stride, n_units, norm, has_b;
    float eps;
    uint planes; /* halves: in the order of the planes of packed weights */
} NormP;

/* A slice of packed rows as halves, each row [4][n_units][8]. */
typedef struct {
    RowP w;
    uint row0, rows, to; /* to: row of the halves */
} HalvesP;

/* What follows a product by the device's library: rows row0.. of the matmul are columns col0.. of its sums. */
typedef struct {
    MatP m;
    uint row0, rows, col0, sums_stride;
    NormP next; /* the next matmul's halves; n_units 0: none */
} EndP;

typedef struct {
    uint n, act; /* floats in all */
    uint stride, gate_stride; /* of a row; of the rows whose first element gates; map_act, map_xielu: elements of a row, without padding */
    float value;
    float below, linear, eps; /* map_xielu; value: above */
} MapP;

/* Norm of each of n_heads heads of `width` elements, of one weight for all or `own` ones. */
typedef struct {
    uint n_heads, width, stride, out_stride, norm, has_w, has_b, own;
    float eps;
} HeadNormP;

/* A choice of n_used of n experts: struct route of model/program.h. */
typedef struct {
    uint n, n_used, stride, out_stride, sigmoid, normed, has_bias, has_factors, n_groups, n_groups_used, group_by_one;
    float scale, eps;
} RouteP;

/* `used` rows of n_in floats in each row of a register. */
typedef struct {
    uint used, n_in, stride, out_stride;
} RowsP;

/* Operations with a state. Floats: of a sequence in all, where the operation's begin; dim: taps, or elements of a head. */
typedef struct {
    uint n, all, at, n_heads, dim, n_groups, n_state, one, has_b;
    uint x_stride, step_stride, z_stride, y_stride;
    float eps;
} StateP;

/* The rows of n_experts experts in their order. Words of that buffer: n of the order, the tiles from tiles_at on, the beginnings from first_at on. */
typedef struct {
    uint n, used, stride, n_experts, tiles_at, first_at;
} SortP;
#define EXPERT_TILE 64

/* y[t][s][row] = sum_i w[expert s of t][row][i] x[t][s][i] [+ bias[expert][row]], then glu. */
typedef struct {
    RowP w;
    uint rows;          /* of an expert */
    uint used;          /* choices of a token */
    uint all, same;     /* choice s is expert s; all choices have the token's one row of x */
    uint n;             /* rows: tokens times used */
    uint route_stride, x_stride, y_stride; /* x: bytes of int8 rows, elements of others */
    uint tiles_at;      /* of SortP */
    uint has_bias, act, glu; /* glu: rows 2i and 2i + 1 are gate and up of output i */
} ExpertP;

typedef struct {
    uint width, used, stride, x_stride, route_stride, has_res, res_stride;
} CombineP;

/* Heads of `a` elements of heads of `step`, then of `b` elements. */
typedef struct {
    uint n_heads, a, b, step, first, stride, x_stride, z_stride;
} PartP;

/* The k highest of n logits, and those that are as high as a lower bound of them: a number, then {id, bits} of each, up to TOP_ROOM. */
typedef struct {
    uint n, k;
    uint tells; /* with k 1: the group puts the token into the batch block as the one at the next position, and tells the host */
} TopP;
#define TOP_ROOM 256
/* What the host is told: {number of candidates, id, bits of its logit, 0}, the number last; a place for even positions and one for odd ones. */
#define TOLD_WORDS 4
#define TOLD_NOTHING 0xffffffffu /* as number: not yet */

typedef struct {
    uint stride, sel_at; /* where in the batch block the selection begins, in words */
} SelectP;

#define HEAD_MOST 256            /* k_dim and v_dim, with their padding */
#define HEAD_PART (HEAD_MOST + 2) /* floats of a split of a head: sum, largest score, sums of values */
#define FLASH_ONE_MOST 512
/* Heads of one layer. */
typedef struct {
    uint n_heads, n_kv_heads, k_dim, v_dim;
    uint q_stride, k_stride, v_stride, out_stride;
    uint k_row, v_row;       /* 16-byte pieces of a key, of a value */
    uint k_groups, v_groups; /* scales of a key, of a value (q8_0) */
    uint rot_q, rot_k, halves_q, halves_k; /* rotated elements; pairs (i, i + rot/2) instead of (2i, 2i + 1) */
    float mscale_q, mscale_k;
    float scale;
    uint n;
    uint splits;
    uint rows, slices;       /* (token, head) of a group; waves that share one; flash_one: up to 8 heads, FLASH_ONE_MOST elements */
    uint owner;              /* attend: one token, which the kernel itself rotates and stores */
    uint lanes;              /* lanes that read one value; a power of two */
    uint feeds;              /* attend_one, merge_one: units of the next matmul's token, which they prepare; 0: they do not */
    uint store;              /* rope: also put k and v into the cache */
    uint window, chunked;    /* positions that a token sees; 0: all */
    uint both;               /* those behind it too, the window around it */
    float softcap;           /* 0: none */
    uint has_slopes, has_sinks; /* behind the turns of q: bits of {slope, sink} of each head */
} HeadP;

#endif
