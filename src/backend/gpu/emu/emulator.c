/* The emulator as a device: buffers are host memory, a launch runs at once. It is there to check kernels without a GPU, not for speed. */
#include "backend/gpu/emu/simt.h"
#include "backend/gpu/gpu.h"
#include "base/half.h"

#include <stdlib.h>

/* Without a use, a link of an archive would leave the modules out. */
#define MODULE(name, defines, header) extern const char emu_module_##name;
#include "gpu_modules.inc"
#undef MODULE
static const char *const modules[] = {
#define MODULE(name, defines, header) &emu_module_##name,
#include "gpu_modules.inc"
#undef MODULE
};

static kg_status emu_open(void **dev, struct gpu_info *info)
{
    memcpy(dev, &(const void *){modules}, sizeof *dev); /* it has no state */
    const char *gemm = getenv("KAGARI_EMU_GEMM"); /* 0: products by the kernels alone */
    *info = (struct gpu_info){.memory = (size_t)1 << 32, .stream_waves = 2, .attend_one = true, .flash = true, .gemm = !(gemm && *gemm == '0'), .name = "emulator on this machine's processor", .n_cores = 2, .matvec_waves = 2, .attend_waves = 4, .mv_groups = 2, .fuses = true};
    return KG_OK;
}

static void emu_close(void *dev) { (void)dev; }

/* The buffer's own size, so that sanitizers see every byte beyond it. */
static kg_status emu_alloc(void *dev, void **buffer, size_t n_bytes)
{
    (void)dev;
    void *p = NULL;
    if (posix_memalign(&p, 64, n_bytes) != 0) return status_set(KG_ERR_MEMORY, "emulator: no memory for %zu bytes", n_bytes);
    memset(p, 0, n_bytes);
    *buffer = p;
    return KG_OK;
}

static void emu_free(void *dev, void *buffer)
{
    (void)dev;
    free(buffer);
}

static kg_status emu_upload(void *dev, void *buffer, size_t offset, const void *src, size_t n_bytes)
{
    (void)dev;
    memcpy((char *)buffer + offset, src, n_bytes);
    return KG_OK;
}

static kg_status emu_download(void *dev, const void *buffer, size_t offset, void *dst, size_t n_bytes)
{
    (void)dev;
    memcpy(dst, (const char *)buffer + offset, n_bytes);
    return KG_OK;
}

static kg_status emu_copy(void *dev, void *dst, size_t dst_offset, const void *src, size_t src_offset, size_t n_bytes)
{
    (void)dev;
    memcpy((char *)dst + dst_offset, (const char *)src + src_offset, n_bytes);
    return KG_OK;
}

static kg_status emu_kernel(void *dev, const char *module, const char *name, void **kernel)
{
    (void)dev;
    const struct simt_kernel *k = simt_find(name);
    if (!k) return status_set(KG_ERR_UNSUPPORTED, "emulator: no kernel %s in module %s", name, module);
    memcpy(kernel, &k, sizeof k);
    return KG_OK;
}

static kg_status emu_launch(void *dev, const struct gpu_launch *l)
{
    (void)dev;
    const struct simt_kernel *k = l->kernel;
    if (l->params_bytes != k->params_bytes || l->n_buffers != k->n_buffers)
        return status_set(KG_ERR_DEVICE, "emulator: %s: called with %d buffers and %zu bytes of parameters, has %d and %zu", k->name, l->n_buffers,
                          l->params_bytes, k->n_buffers, k->params_bytes);
    return simt_run(k, l->grid, l->threads, l->params, l->buffers);
}

static kg_status emu_gemm(void *dev, const struct gpu_gemm *m)
{
    (void)dev;
    const uint16_t *w = (const uint16_t *)((const char *)m->w + m->w_offset), *x = m->x;
    for (size_t t = 0; t < (size_t)m->n; t++)
        for (size_t r = 0; r < (size_t)m->rows; r++) {
            float sum = 0;
            for (size_t i = 0; i < (size_t)m->n_in; i++) sum += f32_from_f16(w[r * (size_t)m->w_ld + i]) * f32_from_f16(x[t * (size_t)m->x_ld + i]);
            ((float *)m->y)[m->y_offset + t * (size_t)m->y_ld + r] = sum;
        }
    return KG_OK;
}

static kg_status emu_sync(void *dev)
{
    (void)dev;
    return KG_OK;
}

static const struct gpu_device device = {
    .name = "emulator",
    .open = emu_open,
    .close = emu_close,
    .alloc = emu_alloc,
    .free = emu_free,
    .upload = emu_upload,
    .download = emu_download,
    .copy = emu_copy,
    .kernel = emu_kernel,
    .launch = emu_launch,
    .gemm = emu_gemm,
    .sync = emu_sync,
};

static kg_status open_emulator(void **ctx, const struct program *p, const struct backend_params *params) { return gpu_open(ctx, p, params, &device); }
static kg_status open_meter(void **meter, int n_threads)
{
    (void)n_threads;
    return gpu_meter_open(meter, &device);
}
static const struct backend_meter meter = {.open = open_meter, .close = gpu_meter_close, .run = gpu_meter_run};

const struct backend backend_emulator = {
    .name = "emulator",
    .what = "the GPU kernels on this machine's processor, thread by thread: for tests, slow",
    .open = open_emulator,
    .meter = &meter,
    GPU_BACKEND_FUNCTIONS
};
