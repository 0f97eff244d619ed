/* The two tiers for aarch64: the plain C kernels compiled for NEON, with rounding to int8, matmul and attention replaced; and the
 * same with int8 tiles by matrix instructions. */
#include "backend/cpu/neon.h"
#include "backend/cpu/kernels_tmpl.h"

/* As quantize, to the bit. */
static void quantize_neon(const float *x, int n, struct act_row row)
{
    for (int u = 0; u < n / ACT_GROUP; u++, x += ACT_GROUP) {
        uint32x4_t top = vdupq_n_u32(0);
        for (int i = 0; i < 8; i++) top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + 4 * i))));
        const float d = act_scale(f32_from_bits(vmaxvq_u32(top))), inv = d > 0 ? 1.0f / d : 0.0f;
        int32x4_t sums[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int i = 0; i < 8; i++) {
            const int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inv));
            const int8x8_t bytes = vmovn_s16(vcombine_s16(vmovn_s32(q), vdup_n_s16(0)));
            const uint32_t word = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
            memcpy(row.q + (u * 8 + i) * row.T * 4, &word, 4);
            sums[i / 4] = vaddq_s32(sums[i / 4], q);
        }
        act_put_sums(&row.group[u * row.T], &row.halves[u * row.T], d, vaddvq_s32(sums[0]), vaddvq_s32(sums[1]));
    }
}

static const struct cpu_format *choose_format(enum tensor_type type, kg_activations activations, bool i8mm)
{
    const struct cpu_format *f = activations == KG_ACT_INT8 ? neon_int_format(type, i8mm) : NULL;
    return f ? f : neon_float_format(type);
}
static const struct cpu_format *format_neon(enum tensor_type type, kg_activations activations) { return choose_format(type, activations, false); }
static const struct cpu_format *format_i8mm(enum tensor_type type, kg_activations activations) { return choose_format(type, activations, true); }

void cpu_kernels_neon(struct cpu_kernels *k)
{
    fill_kernels(k);
    k->quantize = quantize_neon;
    k->format = format_neon;
    k->attend = neon_attend;
    k->attend_scratch_bytes = neon_attend_scratch_bytes;
}

void cpu_kernels_i8mm(struct cpu_kernels *k)
{
    cpu_kernels_neon(k);
    k->format = format_i8mm;
}
