/* A double of NVRTC: takes any text with kernels in it and gives an image that the double of the driver knows. KAGARI_FAKE_NVRTC=fails: it does
 * not compile. */
#include <stdlib.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

struct nvrtc_program_ {
    int good;
};
typedef struct nvrtc_program_ *nvrtc_program;
static const char image[] = "DOUBLE of a cubin", wrong[] = "double(1): error:\nso it was asked";

static int fails(void)
{
    const char *f = getenv("KAGARI_FAKE_NVRTC");
    return f && !strcmp(f, "fails");
}

PUBLIC int nvrtcVersion(int *major, int *minor);
PUBLIC int nvrtcCreateProgram(nvrtc_program *p, const char *source, const char *name, int n, const char *const *headers, const char *const *names);
PUBLIC int nvrtcCompileProgram(nvrtc_program p, int n, const char *const *options);
PUBLIC int nvrtcGetCUBINSize(nvrtc_program p, size_t *n);
PUBLIC int nvrtcGetCUBIN(nvrtc_program p, char *to);
PUBLIC int nvrtcGetProgramLogSize(nvrtc_program p, size_t *n);
PUBLIC int nvrtcGetProgramLog(nvrtc_program p, char *to);
PUBLIC int nvrtcDestroyProgram(nvrtc_program *p);

int nvrtcVersion(int *major, int *minor) { return *major = 0, *minor = fails(), 0; }
int nvrtcCreateProgram(nvrtc_program *p, const char *source, const char *name, int n, const char *const *headers, const char *const *names)
{
    (void)headers;
    (void)names;
    *p = calloc(1, sizeof **p);
    if (!*p || !name || n) return 1;
    (*p)->good = strstr(source, "KERNEL(") && !strstr(source, "#include") && !fails();
    return 0;
}
int nvrtcCompileProgram(nvrtc_program p, int n, const char *const *options)
{
    return !p->good || n < 1 || strncmp(options[0], "--gpu-architecture=sm_", 22) ? 6 : 0;
}
int nvrtcGetCUBINSize(nvrtc_program p, size_t *n) { return *n = sizeof image, !p->good; }
int nvrtcGetCUBIN(nvrtc_program p, char *to) { return memcpy(to, image, sizeof image), !p->good; }
int nvrtcGetProgramLogSize(nvrtc_program p, size_t *n) { return *n = sizeof wrong, !p; }
int nvrtcGetProgramLog(nvrtc_program p, char *to) { return memcpy(to, wrong, sizeof wrong), !p; }
int nvrtcDestroyProgram(nvrtc_program *p)
{
    free(*p);
    *p = NULL;
    return 0;
}
