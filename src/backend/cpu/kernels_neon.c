/* The two tiers for aarch64: the plain C kernels compiled for NEON, with rounding to int8, matmul and attention replaced; and the
 * same with int8 tiles by matrix instructions. */
#include "backend/cpu/neon.h"
#include "backend/cpu/kernels_tmpl.h"

/* 16 elements rounded to int8: the low bytes of x * inv + ACT_MAGIC. */
static inline int8x16_t round_16(const float *x, float inv)
{
    uint16x4_t v[4];
    for (int i = 0; i < 4; i++)
        v[i] = vmovn_u32(vreinterpretq_u32_f32(vaddq_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inv), vdupq_n_f32(ACT_MAGIC))));
    return vreinterpretq_s8_u8(vcombine_u8(vmovn_u16(vcombine_u16(v[0], v[1])), vmovn_u16(vcombine_u16(v[2], v[3]))));
}

/* As quantize, to the bit. */
static void quantize_neon(const float *x, int n, struct act_row row)
{
    for (int u = 0; u < n / ACT_GROUP; u++, x += ACT_GROUP) {
        uint32x4_t top = vdupq_n_u32(0);
        for (int i = 0; i < 8; i++) top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + 4 * i))));
        const float d = act_scale(f32_from_bits(vmaxvq_u32(top))), inv = d > 0 ? 1.0f / d : 0.0f;
        int8_t q[ACT_GROUP];
        int sum[2];
        for (int half = 0; half < 2; half++) {
            const int8x16_t v = round_16(x + 16 * half, inv);
            vst1q_s8(q + 16 * half, v);
            sum[half] = vaddlvq_s8(v);
        }
        for (int i = 0; i < 8; i++) memcpy(row.q + (u * 8 + i) * row.T * 4, q + 4 * i, 4);
        act_put_sums(&row.group[u * row.T], &row.halves[u * row.T], d, sum[0], sum[1]);
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
