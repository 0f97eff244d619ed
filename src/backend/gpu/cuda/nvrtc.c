/* Compiles kernels at run time with NVRTC, found like the driver, and keeps the result in $XDG_CACHE_HOME/kagari or ~/.cache/kagari,
 * under a name made of all that it depends on. A cache that cannot be read or written is only slower. */
#include "backend/gpu/cuda/cuda.h"
#include "backend/gpu/source.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct nvrtc_program_ *nvrtc_program;

struct nvrtc {
    int (*nvrtcVersion)(int *, int *);
    int (*nvrtcCreateProgram)(nvrtc_program *, const char *, const char *, int, const char *const *, const char *const *);
    int (*nvrtcCompileProgram)(nvrtc_program, int, const char *const *);
    int (*nvrtcGetCUBINSize)(nvrtc_program, size_t *);
    int (*nvrtcGetCUBIN)(nvrtc_program, char *);
    int (*nvrtcGetProgramLogSize)(nvrtc_program, size_t *);
    int (*nvrtcGetProgramLog)(nvrtc_program, char *);
    int (*nvrtcDestroyProgram)(nvrtc_program *);
};

static kg_status load(struct nvrtc *n)
{
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    void *library = NULL;
    for (size_t i = 0; i < COUNT_OF(names) && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return status_set(KG_ERR_DEVICE, "cuda: this build has no kernels for this GPU, and there is no NVRTC (libnvrtc.so) to compile them");
    const struct {
        const char *name;
        void *to;
    } list[] = {{"nvrtcVersion", &n->nvrtcVersion}, {"nvrtcCreateProgram", &n->nvrtcCreateProgram}, {"nvrtcCompileProgram", &n->nvrtcCompileProgram},
                {"nvrtcGetCUBINSize", &n->nvrtcGetCUBINSize}, {"nvrtcGetCUBIN", &n->nvrtcGetCUBIN}, {"nvrtcGetProgramLogSize", &n->nvrtcGetProgramLogSize},
                {"nvrtcGetProgramLog", &n->nvrtcGetProgramLog}, {"nvrtcDestroyProgram", &n->nvrtcDestroyProgram}};
    for (size_t i = 0; i < COUNT_OF(list); i++) {
        void *f = dlsym(library, list[i].name);
        if (!f) return status_set(KG_ERR_DEVICE, "cuda: NVRTC has no %s", list[i].name);
        memcpy(list[i].to, &f, sizeof f);
    }
    return KG_OK;
}

static kg_status compile(const struct nvrtc *n, struct buf *cubin, const char *source, const char *module, int major, int minor)
{
    nvrtc_program p = NULL;
    char arch[40];
    snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d%d", major, minor);
    const char *options[] = {arch, "--std=c++17"};
    int code = n->nvrtcCreateProgram(&p, source, module, 0, NULL, NULL);
    if (code == 0) code = n->nvrtcCompileProgram(p, COUNT_OF(options), options);
    size_t size = 0;
    if (code == 0) code = n->nvrtcGetCUBINSize(p, &size);
    kg_status status = KG_OK;
    if (code == 0) {
        char *data = malloc(size + 1);
        if (data) code = n->nvrtcGetCUBIN(p, data);
        status = data ? buf_append(cubin, data, size) : status_set(KG_ERR_MEMORY, "out of memory");
        free(data);
    }
    if (code != 0) {
        size_t length = 0;
        char *log = p && n->nvrtcGetProgramLogSize(p, &length) == 0 ? calloc(1, length + 1) : NULL;
        if (log) n->nvrtcGetProgramLog(p, log);
        for (char *c = log; c && *c; c++)
            if (*c == '\n') *c = ' ';
        status = status_set(KG_ERR_DEVICE, "cuda: module %s does not compile, error %d: %.300s", module, code, log ? log : "");
        free(log);
    }
    if (p) n->nvrtcDestroyProgram(&p);
    return status;
}

/* ---- cache: the key (text and versions) comes first in the file, so that nothing but the same is taken for it ---- */

static uint64_t hash(const char *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)p[i]) * 0x100000001b3u;
    return h;
}

static bool cache_path(char *path, size_t size, const struct buf *key)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[400];
    int n = base && *base == '/' ? snprintf(folder, sizeof folder, "%s", base) : home && *home == '/' ? snprintf(folder, sizeof folder, "%s/.cache", home) : -1;
    if (n < 0 || n > 300) return false;
    mkdir(folder, 0700);
    strcat(folder, "/kagari");
    mkdir(folder, 0700);
    n = snprintf(path, size, "%s/cuda-%016llx.cubin", folder, (unsigned long long)hash(key->data, key->len));
    return n > 0 && (size_t)n < size;
}

static bool cache_read(struct buf *cubin, const char *path, const struct buf *key)
{
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool good = true;
    char piece[4096];
    size_t at = 0, n;
    while (good && (n = fread(piece, 1, at < key->len ? MIN(sizeof piece, key->len - at) : sizeof piece, f)) > 0) {
        if (at < key->len) good = memcmp(piece, key->data + at, n) == 0;
        else good = buf_append(cubin, piece, n) == KG_OK;
        at += n;
    }
    fclose(f);
    if (!good || cubin->len == 0) cubin->len = 0;
    return good && cubin->len > 0;
}

static void cache_write(const struct buf *cubin, const char *path, const struct buf *key)
{
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(temporary, "wb");
    if (!f) return;
    bool good = fwrite(key->data, 1, key->len, f) == key->len && fwrite(cubin->data, 1, cubin->len, f) == cubin->len;
    good = fclose(f) == 0 && good;
    if (!good || rename(temporary, path) != 0) remove(temporary);
}

kg_status cuda_compile(struct buf *cubin, const char *module, int major, int minor)
{
    struct nvrtc n = {0};
    struct buf source = {0}, key = {0};
    char path[512];
    int version[2] = {0};
    KG_TRY(load(&n));
    n.nvrtcVersion(&version[0], &version[1]);
    kg_status status = gpu_source(&source, "compat_cuda.h", module);
    if (status == KG_OK) status = buf_printf(&key, "kagari NVRTC %d.%d sm_%d%d\n", version[0], version[1], major, minor);
    if (status == KG_OK) status = buf_append(&key, source.data, source.len);
    if (status == KG_OK) {
        bool cached = cache_path(path, sizeof path, &key);
        if (!cached || !cache_read(cubin, path, &key)) {
            status = compile(&n, cubin, source.data, module, major, minor);
            if (status == KG_OK && cached) cache_write(cubin, path, &key);
        }
    }
    buf_free(&source);
    buf_free(&key);
    return status;
}
