/* The GPU engine: runs programs on whatever device.h describes. A backend of it is a device's folder that defines a struct backend with
 * GPU_BACKEND_FUNCTIONS and an open of its own. Shared by the engine's files; the device folders use only gpu_open and the macro. */
#ifndef BACKEND_GPU_H
#define BACKEND_GPU_H

#include "backend/backend.h"
#include "backend/gpu/device.h"

typedef unsigned int uint;
#include "backend/gpu/kernels/params.h"

/* ---- weights ---- */

enum gpu_scale { SCALE_NONE, SCALE_H, SCALE_HM, SCALE_HH, SCALE_F, SCALE_KM, SCALE_KK, SCALE_KKMM };

/* A row of pack.def. */
struct gpu_pack {
    const char *name;
    int code, book;
    enum gpu_scale scale;
    int offset;
};
const struct gpu_pack *gpu_pack_of(enum tensor_type type); /* never NULL for a type of quant.def */
RowP gpu_pack_row(const struct gpu_pack *pack, enum tensor_type type, int64_t n_in, bool as_file);
/* Packs rows [row0, row1) of t; row i goes to dst + (i - row0) * stride. KG_ERR_FORMAT: a value that the layout cannot hold. */
kg_status gpu_pack_rows(const struct tensor *t, int64_t row0, int64_t row1, const RowP *row, uint8_t *dst, size_t stride);

/* One matrix in device memory, or up to three with the same type and width stacked; glu: two whose rows alternate. */
struct gpu_weight {
    const struct tensor *parts[3];
    int n_parts;
    bool glu;
    bool experts; /* a matrix for each expert, one after the other */
    bool as_file; /* plain numbers in the order of the file: the device may use them where they lie */
    const struct gpu_pack *pack;
    RowP row;
    int64_t rows;
    void *buffer;
    void *kept; /* as halves, with those of the steps that read the same activations; NULL: decoded each time */
    void *mv1, *mv2, *mv1_i8, *mv1r4_i8, *mv4_i8, *mm_f16, *mm_f32, *embed, *halves, *ms_i8, *ms_fed, *ms_few, *ms_f32, *mx_i8, *mx_f32, *mg_f16; /* kernels */
};

/* ---- steps: the program with neighbouring operations joined ---- */

enum gpu_step_code { STEP_EMBED, STEP_NORM, STEP_MATMUL, STEP_ROPE, STEP_ATTEND, STEP_ACT, STEP_GLU, STEP_ADD, STEP_VALUE, STEP_XIELU, STEP_GATE, STEP_NORM_HEADS, STEP_SELECT, STEP_ROUTE, STEP_EXPERTS, STEP_COMBINE, STEP_PART, STEP_MUL, STEP_LERP, STEP_POS_SCALE, STEP_ADAPT, STEP_STATE };

struct gpu_step {
    enum gpu_step_code code;
    const struct op *op;     /* the last operation in it: its dst is the step's, its tap too */
    const struct op *first;  /* MATMUL, EXPERTS, COMBINE: the matmuls of the weight's parts follow each other from here */
    struct gpu_weight *weight;
    int adapter;             /* left out of a batch without it; 0: never */
    int src, dst[3];         /* registers */
    int res;                 /* MATMUL, COMBINE: register added at the end; -1: none */
    const struct op *norm;   /* MATMUL: norm of src before it; NORM: itself */
    bool same_acts;          /* MATMUL: the step before has prepared the same activations */
    const struct gpu_step *feeds; /* MATMUL, ATTEND: one token's result goes to this matmul as int8 units too; NULL: to none */
    void *meet;              /* MATMUL: words with which the launch behind waits for the beginning of this one; NULL: it waits for its end */
    bool act;                /* MATMUL: activation of `activation`; with weight->glu that of the GLU */
    enum activation activation;
    void *bias;              /* f32 [rows], in the order of the weight's rows; NULL: none */
    void *norm_w, *norm_b;   /* f32 [width]; norm_w of STATE: its w */
    const struct op *rope_q, *rope_k; /* ATTEND, ROPE (only q); NULL: none */
    void *turns_q, *turns_k; /* uint2 [n_rot / 2]; of q: then what params.h says */
    float mscale_q, mscale_k;
};

/* ---- the engine ---- */

struct gpu_reg {
    void *buffer; /* f32 [max_batch][stride] */
    int width, stride;
};

/* A layer's cache. */
struct gpu_kv {
    void *k, *v, *k_scale, *v_scale;
    size_t k_bytes, v_bytes, k_scale_bytes, v_scale_bytes; /* per block */
    uint k_row, v_row, k_groups, v_groups, v_n; /* 16-byte pieces and scales of a row; elements of a piece */
};

enum { GPU_MV_TOKENS = 8, GPU_SPLITS = 32, GPU_FIXED_SPLITS = 4, GPU_RECORDINGS = 16, GPU_MOST_TOP = 128 };

struct gpu {
    const struct gpu_device *device;
    void *dev;
    struct gpu_info info;
    const struct program *program;
    struct backend_params params;
    struct gpu_step *steps;
    int n_steps;
    struct gpu_weight *weights; /* [n_weights] */
    int n_weights;
    struct gpu_reg *regs; /* [n_regs] */
    struct gpu_kv *kv;    /* [n_kv] */
    int n_blocks;
    void *states;         /* f32 [n_states][program.n_state] */
    int n_states;
    void *none;           /* given for arguments that are not used */
    void *batch;          /* u32 [batch_words]: {id, pos, table, state} per token, numbers of selected tokens, block tables */
    uint32_t *batch_host;
    size_t batch_words;
    void *acts, *act_scale, *normed; /* prepared activations of max_batch tokens; f32 after a norm */
    void *fed[2];         /* one token's units for the next matmul, in turn */
    bool keeps_halves;
    void *expert_acts, *expert_scale, *expert_rows, *expert_order; /* prepared rows of experts; their scales; padded ones; sorted, as SortP says */
    void *halves, *sums, *next_scale; /* products by the device's library: a slice of weights, what comes out, the next matmul's act_scale */
    void *part;           /* attention in splits */
    void *top;            /* candidates of a token: their number, {id, bits} of each */
    void *norm, *act_i8, *act_f16, *mm_end, *act, *glu, *add, *value, *xielu, *gate, *norm_heads, *select, *rope, *attend, *attend_one, *merge_one, *top_logits, *merge, *flash_64, *flash_128, *flash_one_64, *flash_one_128; /* kernels */
    void *state_conv, *state_scan, *state_delta, *state_wkv, *mul, *lerp, *pos_scale, *adapt, *route, *pad_rows, *sort_experts, *tile_experts, *combine, *part_heads, *wide_rope, *wide_store, *wide_attend, *wide_merge;
    void **buffers;       /* [n_buffers] all that close frees, but for the cache's and the batch's */
    int n_buffers, cap_buffers;
    struct gpu_recording {
        int longest, n_select, n_top;
        uint64_t active;
        void *recording;
    } recordings[GPU_RECORDINGS]; /* of one token */
    int n_recordings;
    struct gpu_ahead {
        void *buffer;           /* words that kernels write and the host sees, as params.h has them; NULL: the device has none */
        volatile uint32_t *told; /* the same */
        uint32_t *words;        /* [batch_words]: the batch block of the last single token, made that of the token behind it */
        size_t n;               /* its words; 0: unknown */
        const struct gpu_recording *begun; /* what computes that one already; NULL: nothing does */
    } ahead;
    bool beside; /* groups of a token's launches fit beside each other */
    bool few;    /* tokens in the launches of this step */
    float *rows; /* [widest stride] for downloads with padding */
    struct arena arena;
};

kg_status gpu_open(void **ctx, const struct program *p, const struct backend_params *params, const struct gpu_device *device);
void gpu_close(void *ctx);
kg_status gpu_kv_reserve(void *ctx, int n_blocks);
kg_status gpu_kv_copy(void *ctx, int dst_block, int src_block);
size_t gpu_kv_block_bytes(const void *ctx);
kg_status gpu_kv_read(void *ctx, int block, void *out);
kg_status gpu_kv_write(void *ctx, int block, const void *in);
kg_status gpu_state_reserve(void *ctx, int n_states);
kg_status gpu_state_copy(void *ctx, int dst, int src);
size_t gpu_state_bytes(const void *ctx);
kg_status gpu_state_read(void *ctx, int state, void *out);
kg_status gpu_state_write(void *ctx, int state, const void *in);
kg_status gpu_run(void *ctx, const struct batch *batch);
double gpu_error_bound(const void *ctx);
/* gpu_meter.c: for a backend's struct backend_meter, whose open names the device. */
kg_status gpu_meter_open(void **meter, const struct gpu_device *device);
void gpu_meter_close(void *meter);
kg_status gpu_meter_run(void *meter, double seconds, kg_limits *out);
#define GPU_BACKEND_FUNCTIONS \
    .most_top = GPU_MOST_TOP, \
    .shows_inputs = true, .close = gpu_close, .kv_reserve = gpu_kv_reserve, .kv_copy = gpu_kv_copy, .kv_block_bytes = gpu_kv_block_bytes, .kv_read = gpu_kv_read, .kv_write = gpu_kv_write, \
    .state_reserve = gpu_state_reserve, .state_copy = gpu_state_copy, .state_bytes = gpu_state_bytes, .state_read = gpu_state_read, .state_write = gpu_state_write, .run = gpu_run, .error_bound = gpu_error_bound,

kg_status gpu_plan(struct gpu *g);            /* program -> steps */
kg_status gpu_upload_weights(struct gpu *g);
kg_status gpu_upload_steps(struct gpu *g);    /* biases, norms, rope tables */
kg_status gpu_buffer(struct gpu *g, void **buffer, size_t n_bytes); /* freed by close */
void gpu_forget_recordings(struct gpu *g);
void gpu_forget_ahead(struct gpu *g); /* the cache changes */
/* turn[2 * n_rot / 2]: angle per position of each pair as 64-bit fractions {high, low} of a turn; returns the factor of cos and sin. */
float gpu_rope_turns(const struct rope *rope, uint32_t *turn);

#endif
