/* The meter of the CPU backend: runs the limit kernels of the tier that models get, on a pool of threads of its own. Owns the
 * buffer that is read and the plain C kernels. */
#include "backend/cpu/limits.h"

#include "backend/cpu/cpu.h"
#include "base/os.h"
#include "base/threads.h"

#include <stdlib.h>

enum {
    ROUNDS = 1024,       /* between two looks at the clock: some microseconds */
    LANES = 64,          /* accumulators of the plain kernels */
};

/* ---- plain C: what a compiler makes of loops over arrays ------------------------------------------------ */

static volatile uint32_t seed = 3; /* unknown to the compiler */

/* 16-bit operands, as bytes are widened to before plain C multiplies them. */
static uint32_t int8_generic(int64_t rounds)
{
    int16_t a[2 * LANES], b[2 * LANES];
    int32_t acc[LANES] = {0};
    for (int i = 0; i < 2 * LANES; i++) a[i] = (int16_t)(seed + (uint32_t)i), b[i] = (int16_t)(seed * 5 + (uint32_t)i);
    for (int64_t r = 0; r < rounds; r++) {
        a[r & 7] ^= 1;
        for (int i = 0; i < LANES; i++) acc[i] = (acc[i] & 0xffffff) + a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    }
    uint32_t sum = 0;
    for (int i = 0; i < LANES; i++) sum += (uint32_t)acc[i];
    return sum;
}

static uint32_t f32_generic(int64_t rounds)
{
    float acc[LANES], x = 0.25f * (float)seed, y = (float)seed;
    for (int i = 0; i < LANES; i++) acc[i] = (float)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < LANES; i++) acc[i] = acc[i] * x + y;
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += acc[i];
    return f32_bits(sum);
}

/* N streams side by side. */
static inline uint32_t read_side(const uint8_t *p, const size_t N)
{
    uint64_t acc[8] = {0};
    for (size_t i = 0; i < LIMIT_STRETCH / N; i += 64)
        for (size_t s = 0; s < N; s++)
            for (size_t j = 0; j < 8; j++) acc[j] ^= load_u64(p + s * (LIMIT_STRETCH / N) + i + 8 * j);
    for (int j = 1; j < 8; j++) acc[0] ^= acc[j];
    return (uint32_t)(acc[0] ^ acc[0] >> 32);
}
static uint32_t read_1(const uint8_t *p) { return read_side(p, 1); }
static uint32_t read_4(const uint8_t *p) { return read_side(p, 4); }

void limits_generic(struct limit_kernels *k)
{
    *k = (struct limit_kernels){
        .with = "plain C",
        .int8 = int8_generic,
        .int8_ops = 4 * LANES,
        .f32 = f32_generic,
        .f32_ops = 2 * LANES,
        .bf16 = f32_generic, /* there is no bf16 arithmetic: it is widened */
        .bf16_ops = 2 * LANES,
        .read = {read_1, read_4},
    };
}

/* ---- the meter -------------------------------------------------------------------------------------------- */

struct meter {
    struct pool *pool;
    struct limit_kernels kernels;
    uint32_t (*read)(const uint8_t *p); /* the fastest of them here */
    uint8_t *buffer; /* a part for each thread */
    size_t n_bytes, part;
    double seconds; /* of the measurement in progress */
    uint32_t (*compute)(int64_t rounds); /* NULL: reads */
    struct lane { /* a thread's own */
        _Alignas(64) size_t at; /* where reading goes on in its part: what was read last is what caches still hold */
        double begin, end, rounds;
        uint32_t sink;
    } *lanes; /* [n_threads] */
};

static void touch(void *ctx, int i, int n)
{
    struct meter *m = ctx;
    (void)n;
    /* no two pages alike: one page of zeros would be the system's, and the host of a virtual machine may keep equal pages once */
    uint64_t *words = (uint64_t *)(void *)(m->buffer + (size_t)i * m->part);
    for (size_t w = 0; w < m->part / sizeof *words; w++) words[w] = (w + (size_t)i * m->part) * 0x9e3779b97f4a7c15u;
}

/* The system or a virtual machine's host may have put away what was not read for some seconds, and brings it back at a small part of memory's speed. */
static void wake(void *ctx, int i, int n)
{
    struct meter *m = ctx;
    (void)n;
    for (size_t at = 0; at < m->part; at += LIMIT_STRETCH) m->lanes[i].sink ^= m->read(m->buffer + (size_t)i * m->part + at);
}

static void measure(void *ctx, int i, int n)
{
    struct meter *m = ctx;
    struct lane *l = &m->lanes[i];
    (void)n;
    l->rounds = 0;
    pool_barrier(m->pool);
    l->begin = os_seconds();
    do {
        if (m->compute) {
            l->sink ^= m->compute(ROUNDS);
            l->rounds += ROUNDS;
        } else {
            l->sink ^= m->read(m->buffer + (size_t)i * m->part + l->at);
            l->at = (l->at + LIMIT_STRETCH) % m->part;
            l->rounds++;
        }
        l->end = os_seconds();
    } while (l->end - l->begin < m->seconds);
}

/* Rounds per second of all threads together. */
static double rate(struct meter *m, uint32_t (*compute)(int64_t), double seconds)
{
    m->compute = compute;
    m->seconds = seconds;
    pool_run(m->pool, measure, m);
    double begin = m->lanes[0].begin, end = m->lanes[0].end, rounds = 0;
    for (int i = 0; i < pool_n_threads(m->pool); i++) {
        begin = MIN(begin, m->lanes[i].begin);
        end = MAX(end, m->lanes[i].end);
        rounds += m->lanes[i].rounds;
    }
    return rounds / (end - begin);
}

/* In turns, since the memory of a machine that is shared changes its speed; the median decides. */
static void choose_read(struct meter *m)
{
    enum { TURNS = 11 };
    double rates[LIMIT_READS][TURNS], best = 0;
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < LIMIT_READS && m->kernels.read[i]; i++) {
            m->read = m->kernels.read[i];
            double r = rate(m, NULL, 0.01);
            int at = turn; /* sorted */
            for (; at > 0 && rates[i][at - 1] > r; at--) rates[i][at] = rates[i][at - 1];
            rates[i][at] = r;
        }
    for (int i = 0; i < LIMIT_READS && m->kernels.read[i]; i++)
        if (rates[i][TURNS / 2] > best) best = rates[i][TURNS / 2], m->read = m->kernels.read[i];
}

static kg_status meter_run(void *meter, double seconds, kg_limits *out)
{
    struct meter *m = meter;
    const struct limit_kernels *k = &m->kernels;
    *out = (kg_limits){.with = k->with};
    pool_run(m->pool, wake, m);
    out->read_gb_s = rate(m, NULL, 0.4 * seconds) * (double)LIMIT_STRETCH * 1e-9;
    out->int8_tops = rate(m, k->int8, (k->int8_vector ? 0.1 : 0.2) * seconds) * k->int8_ops * 1e-12;
    if (k->int8_vector) out->int8_vector_tops = rate(m, k->int8_vector, 0.1 * seconds) * k->int8_vector_ops * 1e-12;
    out->f32_tflops = rate(m, k->f32, 0.2 * seconds) * k->f32_ops * 1e-12;
    out->bf16_tflops = k->bf16 == k->f32 ? out->f32_tflops : rate(m, k->bf16, 0.2 * seconds) * k->bf16_ops * 1e-12;
    return KG_OK;
}

static void meter_close(void *meter)
{
    struct meter *m = meter;
    if (!m) return;
    pool_free(&m->pool);
    os_free(m->buffer, m->n_bytes);
    free(m->lanes);
    free(m);
}

/* Far more than the caches hold, but no more than a machine can spare. */
static size_t buffer_bytes(void)
{
    const size_t least = (size_t)512 << 20, most = (size_t)1 << 30;
    return MIN(MAX(4 * os_cache_bytes(3), least), most);
}

static kg_status choose(struct limit_kernels *k)
{
    struct cpu_kernels tier;
    KG_TRY(cpu_kernels_choose(&tier));
    limits_generic(k);
#ifdef __x86_64__
    if (strcmp(tier.tier, "avx2") == 0) limits_avx2(k);
    if (strcmp(tier.tier, "vnni") == 0) limits_vnni(k);
    if (strcmp(tier.tier, "avx512") == 0) limits_avx512(k);
    if (strcmp(tier.tier, "amx") == 0) limits_amx(k);
#endif
    return KG_OK;
}

static kg_status meter_open(void **out, int n_threads)
{
    *out = NULL;
    struct meter *m = calloc(1, sizeof *m);
    if (!m) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = choose(&m->kernels);
    if (status == KG_OK) status = pool_new(&m->pool, n_threads);
    if (status == KG_OK) {
        m->part = ROUND_UP(buffer_bytes() / (size_t)n_threads, LIMIT_STRETCH);
        m->n_bytes = m->part * (size_t)n_threads;
        m->lanes = aligned_alloc(_Alignof(struct lane), (size_t)n_threads * sizeof *m->lanes);
        m->buffer = os_alloc(m->n_bytes);
        if (!m->lanes || !m->buffer) status = status_set(KG_ERR_MEMORY, "no memory to measure this machine (%zu bytes)", m->n_bytes);
    }
    if (status != KG_OK) {
        meter_close(m);
        return status;
    }
    memset(m->lanes, 0, (size_t)n_threads * sizeof *m->lanes);
    pool_run(m->pool, touch, m);
    choose_read(m);
    *out = m;
    return KG_OK;
}

const struct backend_meter cpu_meter = {.open = meter_open, .close = meter_close, .run = meter_run};
