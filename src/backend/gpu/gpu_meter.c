/* What a device does at most, measured by what the engine itself uses: a copy within its memory, and a product of halves by its library or, where it has
 * none, by the engine's kernel. Sizes grow until a measurement takes a while, so that the same code serves an emulator and a large GPU. */
#include "backend/gpu/gpu.h"

#include "base/os.h"
#include "tensor/tensor.h"

#include <stdlib.h>

enum { MOST_SIDE = 8192, LEAST_SIDE = 128, PIECE = 1 << 20 };
static const double WORTHWHILE = 2e-3; /* seconds of work that waiting for the device does not blur */

struct meter {
    const struct gpu_device *device;
    void *dev;
    struct gpu_info info;
    void *from, *to;        /* [n_bytes]: far more than caches hold */
    size_t n_bytes;
    void *w, *x, *y, *scale, *none, *kernel; /* a product of side x side matrices */
    int side;
};

void gpu_meter_close(void *meter)
{
    struct meter *m = meter;
    if (!m) return;
    void *buffers[] = {m->from, m->to, m->w, m->x, m->y, m->scale, m->none};
    if (m->dev) m->device->sync(m->dev);
    for (size_t i = 0; i < COUNT_OF(buffers); i++)
        if (buffers[i]) m->device->free(m->dev, buffers[i]);
    if (m->dev) m->device->close(m->dev);
    free(m);
}

/* Halves between -1 and 1: hardware is faster on zeros than on numbers. */
static kg_status fill(struct meter *m, void *buffer, size_t n_bytes)
{
    uint16_t *piece = malloc(PIECE);
    uint32_t x = 1;
    if (!piece) return status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < PIECE / sizeof *piece; i++) {
        x = x * 1664525u + 1013904223u;
        piece[i] = (uint16_t)((x >> 31) << 15 | (11 + (x >> 29 & 3)) << 10 | (x >> 8 & 1023));
    }
    kg_status status = KG_OK;
    for (size_t at = 0; at < n_bytes && status == KG_OK; at += PIECE) status = m->device->upload(m->dev, buffer, at, piece, MIN(n_bytes - at, (size_t)PIECE));
    free(piece);
    return status;
}

static kg_status multiply(struct meter *m)
{
    const int n = m->side;
    if (m->info.gemm) {
        const struct gpu_gemm g = {.w = m->w, .x = m->x, .y = m->y, .rows = n, .n = n, .n_in = n, .w_ld = n, .x_ld = n, .y_ld = n};
        return m->device->gemm(m->dev, &g);
    }
    const uint side = (uint)n;
    MatP p = {.w = gpu_pack_row(gpu_pack_of(TYPE_F16), TYPE_F16, n, false), .rows = side, .n = side, .n_in = side, .x_stride = side, .rows0 = side, .stride0 = side};
    const struct gpu_launch l = {.kernel = m->kernel, .grid = {(side + 63) / 64, (side + 127) / 128}, .threads = 256, .params = &p, .params_bytes = sizeof p,
                                 .buffers = {m->w, m->x, m->scale, m->none, m->none, m->y, m->none, m->none}, .n_buffers = 8};
    return m->device->launch(m->dev, &l);
}

static kg_status copy(struct meter *m) { return m->device->copy(m->dev, m->to, 0, m->from, 0, m->n_bytes); }

/* Seconds of n runs of what, and of waiting for them. */
static kg_status time_runs(struct meter *m, kg_status (*what)(struct meter *), int n, double *seconds)
{
    double start = os_seconds();
    for (int i = 0; i < n; i++) KG_TRY(what(m));
    KG_TRY(m->device->sync(m->dev));
    *seconds = os_seconds() - start;
    return KG_OK;
}

/* Runs per second, of about `seconds` of them. */
static kg_status rate(struct meter *m, kg_status (*what)(struct meter *), double seconds, double *runs_s)
{
    double one;
    KG_TRY(time_runs(m, what, 1, &one));
    int n = (int)MIN(MAX(seconds / MAX(one, 1e-6), 1.0), 1000.0);
    double all;
    KG_TRY(time_runs(m, what, n, &all));
    *runs_s = n / all;
    return KG_OK;
}

static kg_status alloc_product(struct meter *m, int side)
{
    void **buffers[] = {&m->w, &m->x, &m->y};
    const size_t all = (size_t)side * (size_t)side, n_bytes[] = {2 * all, 2 * all, 4 * all};
    m->side = 0;
    for (size_t i = 0; i < COUNT_OF(buffers); i++) {
        if (*buffers[i]) m->device->free(m->dev, *buffers[i]);
        *buffers[i] = NULL;
        KG_TRY(m->device->alloc(m->dev, buffers[i], n_bytes[i]));
    }
    KG_TRY(fill(m, m->w, n_bytes[0]));
    KG_TRY(fill(m, m->x, n_bytes[1]));
    KG_TRY(m->device->sync(m->dev));
    m->side = side;
    return KG_OK;
}

static kg_status choose_side(struct meter *m)
{
    for (int side = LEAST_SIDE;; side *= 2) {
        double seconds;
        KG_TRY(alloc_product(m, side));
        KG_TRY(time_runs(m, multiply, 1, &seconds)); /* loads what is needed */
        KG_TRY(time_runs(m, multiply, 1, &seconds));
        if (seconds > WORTHWHILE || side == MOST_SIDE) return KG_OK;
    }
}

static kg_status open_all(struct meter *m)
{
    KG_TRY(m->device->open(&m->dev, &m->info));
    const size_t least = (size_t)64 << 20, most = (size_t)1 << 30;
    m->n_bytes = MIN(MAX(m->info.memory / 32, least), most);
    KG_TRY(m->device->alloc(m->dev, &m->none, 64));
    KG_TRY(m->device->alloc(m->dev, &m->scale, MOST_SIDE * sizeof(float)));
    KG_TRY(m->device->alloc(m->dev, &m->from, m->n_bytes));
    KG_TRY(m->device->alloc(m->dev, &m->to, m->n_bytes));
    KG_TRY(fill(m, m->from, m->n_bytes));
    if (!m->info.gemm) KG_TRY(m->device->kernel(m->dev, "pack_f16", "mm_f16_f16", &m->kernel));
    return choose_side(m);
}

kg_status gpu_meter_open(void **meter, const struct gpu_device *device)
{
    struct meter *m = calloc(1, sizeof *m);
    if (!m) return status_set(KG_ERR_MEMORY, "out of memory");
    m->device = device;
    kg_status status = open_all(m);
    if (status == KG_OK) *meter = m;
    else gpu_meter_close(m);
    return status;
}

kg_status gpu_meter_run(void *meter, double seconds, kg_limits *out)
{
    struct meter *m = meter;
    double copies, products;
    *out = (kg_limits){.with = m->info.gemm ? "the device's library of matrix products" : "the engine's own matrix product"};
    KG_TRY(rate(m, multiply, 0.5 * seconds, &products)); /* first: the card's clock falls under it, and rises again while it copies */
    KG_TRY(rate(m, copy, 0.5 * seconds, &copies));
    out->copy_gb_s = copies * 2 * (double)m->n_bytes * 1e-9;
    out->f16_tflops = products * 2 * (double)m->side * (double)m->side * (double)m->side * 1e-12;
    return KG_OK;
}
