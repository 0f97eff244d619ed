/* The CPU engine's state: what open() prepares and run() uses. Kernels do not see it. */
#ifndef BACKEND_CPU_ENGINE_H
#define BACKEND_CPU_ENGINE_H

#include "backend/cpu/cpu.h"
#include "base/threads.h"

/* How a step's work is split between threads. */
enum split {
    SPLIT_TOKENS, /* thread i of n does tokens [i*T/n, (i+1)*T/n): the same for every such step between two SELECTs */
    SPLIT_SHARED, /* threads take pieces of work until none is left */
    SPLIT_ONE,    /* thread 0 does it */
};

/* The same for a batch of one token. */
enum one_split {
    ONE_FIRST,   /* the thread that has the first token does it */
    ONE_EACH,    /* every thread does it by itself; the result is its own */
    ONE_PARTS,   /* each thread does a part of the row */
    ONE_NOT,     /* another step does it: attention stores its keys and values, products of experts are put in their places */
    ONE_AS_MANY, /* as with many tokens */
};

enum step_code {
    STEP_ROPE_TABLES,
    STEP_OP,
    STEP_ACTS,
    STEP_KV_STORE,
    STEP_ATTEND,
    /* MATMUL_EXPERTS: rows in the order of their experts, their activations, products, and back to the order of tokens */
    STEP_EXPERT_SORT,
    STEP_EXPERT_ROWS,
    STEP_EXPERT_MATMUL,
    STEP_EXPERT_OUT,
    STEP_STATE, /* CONV, SCAN, DELTA, WKV: channels or heads are shared out, each goes through the tokens in order */
};

/* A step is an operation of the program, or a part of one. */
struct step {
    enum step_code code;
    enum split split;
    const struct op *op;
    int adapter;         /* only of plans with it; 0: of all */
    int reg;             /* STEP_ACTS: of this register ... */
    enum acts_kind acts; /* ... this kind */
    bool barrier;  /* threads must meet before this step */
    bool selected; /* after SELECT: works on the tokens that want logits */
    bool ready;    /* EXPERT_SORT, EXPERT_ROWS: those of the experts before these are the same */
    /* of a batch of one token */
    enum one_split one;
    bool one_barrier;
    uint8_t own; /* bit k: operand k is each thread's own; of ROPE bit 0: the row that it changes */
    /* prepared operands */
    const float *w, *b;        /* norm weight and bias, slopes and sinks of attention, bias of a choice or of experts: as f32 */
    struct cpu_matmul matmul;  /* all but n, x, y, acts; of experts: of the first */
    const struct cpu_packed *experts; /* [experts] of a matmul whose format packs */
    const struct tensor *views;       /* [experts] each matrix by itself */
    int rope_table;
};

/* Of the MATMUL_EXPERTS in progress: a row is one chosen expert of one token, number token * n_used + choice. */
struct cpu_experts {
    int *order;       /* [rows]: their numbers, those of one expert behind each other */
    int *expert;      /* [rows]: of each place in order */
    int *first;       /* [experts + 1]: place where an expert's begin */
    int *busy;        /* [n_busy]: experts that have rows */
    int n_rows, n_busy;
    float *x, *y;     /* [rows][in], [rows][out] in this order */
    struct cpu_acts acts;
    size_t most_rows, in, out, count; /* largest of the program: rows, widths, experts */
    const struct step *sorted, *prepared; /* while the plan is made: whose order, whose rows are there; NULL: nobody's */
};

struct cpu_rope_table {
    const struct rope *rope;
    double *freq;    /* [n_rot / 2] */
    float magnitude; /* of cos and sin */
    float *cos_sin;  /* [max_batch][n_rot / 2][2] */
};

/* A weight in its format's own layout; shared by the matmuls that use the same tensor. */
struct cpu_packed {
    const struct tensor *tensor;
    const struct cpu_format *format;
    void *data;
    size_t n_bytes;
};

struct cpu {
    const struct program *program;
    struct backend_params params;
    struct cpu_kernels kernels;
    struct pool *pool;
    struct arena arena;

    struct step *steps; /* [n_steps] of the plan in use */
    int n_steps;
    struct cpu_plan {
        uint64_t active; /* adapters */
        struct step *steps;
        int n_steps;
    } plans[8];         /* [n_plans]: the first has all adapters, others come when a batch is the first with just these */
    int n_plans;
    struct cpu_work {   /* who does what of SPLIT_SHARED steps */
        atomic_int *taken;      /* [n_threads][taken_stride]: of each thread's share of each step, pieces taken */
        _Atomic uint64_t *gone; /* [n_steps][gone_stride]: bit i: nothing is left of thread i's share */
    } works[2], *work;  /* of this run and of the next */
    size_t taken_stride, gone_stride; /* whole cache lines */
    size_t fetch_most;  /* bytes that a thread asks for while it waits for the others */
    struct cpu_rope_table *rope_tables;
    int n_rope_tables;
    struct cpu_packed *packed;
    int n_packed;

    float **reg;           /* [n_regs]: [max_batch][width]; the register of the logits points to the caller's memory */
    struct cpu_acts *acts; /* [n_regs]; NULL where no matmul wants them */
    struct cpu_own {       /* of one token: a thread's own row of each register, and its activations */
        float **reg;
        struct cpu_acts *acts;
    } *own;                /* [n_threads] */
    int logits_reg;
    struct cpu_experts experts;
    void **scratch;        /* [n_threads] */
    void *block_memory;    /* registers, activations and scratch: one allocation */
    size_t block_memory_bytes;

    int attend_tokens;     /* that an attention kernel works on at a time */
    struct cpu_kv_layout *kv; /* [n_kv] */
    size_t kv_block_bytes;
    uint8_t **kv_blocks;   /* [n_kv_blocks] */
    int n_kv_blocks;
    float **states;        /* [n_states] of [program->n_state] */
    int n_states;
    struct kv_slab {       /* memory of the blocks added by one reservation */
        struct kv_slab *next;
        size_t n_bytes;
        uint8_t *data;
    } *kv_slabs;

    const struct batch *batch; /* of the run in progress */
    struct token_tile {        /* tokens of one sequence at consecutive positions, at most attend_tokens */
        int first, n;
    } *tiles;                  /* [n_tiles] of the batch */
    int n_tiles;
    int *selected;             /* [max_batch]: tokens that want logits */
    int n_selected;
    uint8_t **seq_blocks;      /* addresses of the blocks of every sequence of the batch, one after the other */
    size_t seq_blocks_cap;
    size_t *seq_first;         /* [n_seqs]: where a sequence starts in seq_blocks */
    size_t seq_first_cap;
};

/* One thread of a run. */
struct worker {
    struct cpu *c;
    int i, n;      /* thread i of n */
    bool one;      /* the batch is one token, shared out as enum one_split has it */
    void *scratch; /* its own */
    const uint8_t *then; /* packed weights that it is going to read, as far as known, of which ... */
    size_t asked;        /* ... these bytes have been asked for */
    struct fetch {       /* packed weights that it asks for while it waits for the others */
        int first, step; /* the matmul that comes next, and the one whose share it is at */
        const uint8_t *at, *end;
        size_t left;     /* bytes that it may still ask for */
    } fetch;
};

static inline float *cpu_row(const struct cpu *c, int reg, int t) { return c->reg[reg] + (size_t)t * (size_t)c->program->reg_width[reg]; }
static inline bool cpu_is_matmul(const struct step *s) { return s->code == STEP_OP && s->op->code == OP_MATMUL; }
static inline int cpu_n_tokens(const struct cpu *c, const struct step *s) { return s->selected ? c->n_selected : c->batch->n; }

kg_status cpu_plan(struct cpu *c); /* steps, rope tables */
kg_status cpu_plan_meetings(struct cpu *c); /* of the steps */
kg_status cpu_choose_plan(struct cpu *c, uint64_t active);
/* experts.c: the choice of one token (scratch: 5 n floats), and the steps of MATMUL_EXPERTS */
void cpu_route(const struct route *route, const float *x, const float *factors, const float *bias, int n, float *scratch, float *dst);
void cpu_experts_sort(struct cpu *c, const struct step *s);
bool cpu_experts_share_row(const struct cpu *c, const struct step *s);
void cpu_experts_rows(struct cpu *c, const struct step *s, bool one, atomic_int *next);
void cpu_experts_matmul(const struct worker *w, const struct step *s, atomic_int *next);
void cpu_experts_out(struct cpu *c, const struct step *s, int t);
/* share.c */
struct rows {
    int row0, row1; /* [row0, row1) of a matmul */
};
struct piece { /* of a share: rows [row0, row1) with tokens [t0, t1); none if there are no rows */
    int row0, row1, t0, t1;
    bool last; /* of its share */
};
struct share { /* a thread's, of a matmul */
    struct rows rows;
    int grain, tokens; /* of the smallest piece: rows, and tokens, of n */
    int n;
    int parts; /* of what is left, one of which is a piece */
    int later; /* rows, as it were, of the matmuls that its owner goes on with before it meets the others */
};
kg_status cpu_share_open(struct cpu *c); /* once the plan is made */
void cpu_share_clear(struct cpu *c, int thread);
static inline struct cpu_work *cpu_other_work(struct cpu *c) { return &c->works[c->work == &c->works[0]]; }
bool cpu_gone(const struct worker *w, int step, int owner);
struct share cpu_pieces(const struct worker *w, struct cpu_matmul *m, int owner, int64_t later);
struct piece cpu_take(const struct worker *w, int step, const struct share *s, int owner);
const uint8_t *cpu_next_share(const struct worker *w, int step);
void cpu_meet(struct worker *w, int at);
static inline const uint8_t *cpu_packed_at(const struct cpu_matmul *m, int row) { return (const uint8_t *)m->packed + m->format->packed_bytes(row, m->in); }
/* Pieces of work taken of a thread's share of a step. */
static inline atomic_int *cpu_taken(const struct worker *w, int step, int owner) { return &w->c->work->taken[(size_t)owner * w->c->taken_stride + (size_t)step]; }
/* states.c */
void cpu_states_close(struct cpu *c);
void cpu_states_step(const struct cpu *c, const struct step *s, int n_threads, void *scratch, atomic_int *next);
size_t cpu_state_bytes(const void *ctx);
kg_status cpu_state_reserve(void *ctx, int n);
kg_status cpu_state_copy(void *ctx, int dst, int src);
kg_status cpu_state_read(void *ctx, int state, void *out);
kg_status cpu_state_write(void *ctx, int state, const void *in);
kg_status cpu_run(void *ctx, const struct batch *batch);

#endif
