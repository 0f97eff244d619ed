/* Which tier of kernels this processor gets. */
#include "backend/cpu/cpu.h"

#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

static bool always(void) { return true; }

#if defined(__x86_64__)
static bool has_avx2(void) /* F16C came before AVX2 */
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

/* Of leaf 7's second page; compilers of 2022 have no name for it. */
bool cpu_has_avxvnni(void)
{
    enum { AVX_VNNI = 1 << 4 };
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & AVX_VNNI);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

bool cpu_has_bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

static bool has_vnni(void) { return cpu_has_avxvnni() || has_avx512(); }

/* Linux hands out the tiles' 8 KB of state by process, on demand, before a thread touches them; what others do is not known here. */
static bool may_use_tiles(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { REQ_XCOMP_PERM = 0x1023, XFEATURE_TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0;
#else
    return false;
#endif
}

static bool has_amx(void)
{
    enum { BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25 }; /* of leaf 7's edx; gcc 12 and old clangs have no names for them */
    unsigned a, b, c, d;
    return cpu_has_bf16() && __builtin_cpu_supports("avx512vbmi") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & BF16) && (d & TILE) && (d & INT8) && may_use_tiles();
}
#elif defined(__aarch64__) && defined(__APPLE__)
static bool has(const char *feature)
{
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(feature, &value, &size, NULL, 0) == 0 && value != 0;
}
static bool has_neon(void) { return has("hw.optional.arm.FEAT_DotProd") && has("hw.optional.arm.FEAT_FP16"); }
static bool has_i8mm(void) { return has_neon() && has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__aarch64__)
static bool has_neon(void)
{
    const unsigned long wanted = HWCAP_ASIMDDP | HWCAP_FPHP | HWCAP_ASIMDHP;
    return (getauxval(AT_HWCAP) & wanted) == wanted;
}
static bool has_i8mm(void) { return has_neon() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
#endif

static const struct {
    const char *name;
    bool (*supported)(void);
    void (*fill)(struct cpu_kernels *k); /* overwrites what it has a better version of */
} tiers[] = {                            /* best last */
    {"generic", always, cpu_kernels_generic},
#if defined(__x86_64__)
    {"avx2", has_avx2, cpu_kernels_avx2},
    {"vnni", has_vnni, cpu_kernels_vnni},
    {"avx512", has_avx512, cpu_kernels_avx512},
    {"amx", has_amx, cpu_kernels_amx},
#elif defined(__aarch64__)
    {"neon", has_neon, cpu_kernels_neon},
    {"i8mm", has_i8mm, cpu_kernels_i8mm},
#endif
};

const char *cpu_tier_name(size_t i) { return i < COUNT_OF(tiers) ? tiers[i].name : NULL; }
bool cpu_tier_supported(size_t i) { return i < COUNT_OF(tiers) && tiers[i].supported(); }

kg_status cpu_kernels_choose(struct cpu_kernels *k)
{
    const char *forced = getenv("KAGARI_CPU");
    bool known = !forced || !*forced;
    for (size_t i = 0; i < COUNT_OF(tiers); i++) {
        bool last = forced && strcmp(forced, tiers[i].name) == 0;
        known |= last;
        if (!tiers[i].supported()) {
            if (last) return status_set(KG_ERR_UNSUPPORTED, "KAGARI_CPU=%s: this processor lacks its instructions, or the system does not permit them", forced);
            continue;
        }
        tiers[i].fill(k);
        k->tier = tiers[i].name;
        if (last) break;
    }
    if (known) return KG_OK;
    char names[128] = "";
    for (size_t i = 0; i < COUNT_OF(tiers); i++) {
        strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, tiers[i].name, sizeof names - strlen(names) - 1);
    }
    return status_set(KG_ERR_ARGUMENT, "KAGARI_CPU=%s: no such tier (known: %s)", forced, names);
}
