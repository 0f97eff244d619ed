/* layers: base */
/* base/half.h against the definition of the formats in float64 arithmetic, which represents every value and every tie exactly:
 * all 16-bit patterns one way, and the other way all of them, all ties and their neighbours, and a few million random patterns. */
#include "base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* A format of 1 sign bit, exp_bits and frac_bits: what IEEE 754 says that its bits mean. */
struct small_float {
    const char *name;
    int exp_bits, frac_bits;
    float (*widen)(uint16_t h);
    uint16_t (*narrow)(float f);
};
static const struct small_float formats[] = {
    {"f16", 5, 10, f32_from_f16, f16_from_f32},
    {"bf16", 8, 7, f32_from_bf16, bf16_from_f32},
};

static int bias(const struct small_float *s) { return (1 << (s->exp_bits - 1)) - 1; }
static unsigned inf_bits(const struct small_float *s) { return ((1u << s->exp_bits) - 1) << s->frac_bits; }

static double value(const struct small_float *s, unsigned bits)
{
    unsigned e = (bits & 0x7fffu) >> s->frac_bits, m = bits & ((1u << s->frac_bits) - 1);
    double sign = bits & 0x8000u ? -1 : 1;
    if ((bits & 0x7fffu) == inf_bits(s)) return sign * INFINITY;
    if ((bits & 0x7fffu) > inf_bits(s)) return NAN;
    if (e == 0) return sign * ldexp(m, 1 - bias(s) - s->frac_bits);
    return sign * ldexp((1u << s->frac_bits) + m, (int)e - bias(s) - s->frac_bits);
}

/* The nearest value of the format to f, ties to even; beyond the largest one as if the exponents went on. */
static double nearest(const struct small_float *s, float f)
{
    double a = fabs((double)f);
    if (!isfinite(a)) return (double)f;
    int e = a > 0 ? ilogb(a) : -1000;
    if (e < 1 - bias(s)) e = 1 - bias(s);
    double quantum = ldexp(1, e - s->frac_bits), n = floor(a / quantum), rest = a / quantum - n; /* all exact */
    if (rest > 0.5 || (rest == 0.5 && fmod(n, 2) == 1)) n++;
    double v = n * quantum;
    if (v >= ldexp(1, bias(s) + 1)) v = INFINITY;
    return copysign(v, (double)f);
}

static void check_narrow(const struct small_float *s, float f)
{
    unsigned h = s->narrow(f);
    double got = value(s, h), want = nearest(s, f);
    bool same = isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want);
    if (!same) fail_msg("%s of %a: got %04x = %a, want %a", s->name, (double)f, h, got, want);
    if (isnan(want) && (h >> 15) != f32_bits(f) >> 31) fail_msg("%s of the NaN %08x: the sign is lost", s->name, f32_bits(f));
}

static void every_16_bit_pattern(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        const struct small_float *s = &formats[i];
        for (unsigned h = 0; h < 0x10000; h++) {
            float f = s->widen((uint16_t)h);
            double want = value(s, h);
            if (isnan(want)) {
                assert_true(isnan(f));
                assert_int_equal(f32_bits(f) >> 31, h >> 15);
                unsigned back = s->narrow(f);
                assert_true((back & 0x7fffu) > inf_bits(s) && back >> 15 == h >> 15);
                continue;
            }
            if ((double)f != want || !signbit(f) != !signbit(want)) fail_msg("%s %04x: got %a, want %a", s->name, h, (double)f, want);
            assert_int_equal(s->narrow(f), h);
        }
    }
}

static void ties_and_their_neighbours(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        const struct small_float *s = &formats[i];
        for (unsigned h = 0; h < inf_bits(s); h++) {
            double above = h + 1 < inf_bits(s) ? value(s, h + 1) : ldexp(1, bias(s) + 1);
            float tie = (float)((value(s, h) + above) / 2), exact = (float)value(s, h);
            const float near[] = {tie, nextafterf(tie, 0), nextafterf(tie, INFINITY), nextafterf(exact, 0), nextafterf(exact, INFINITY)};
            for (size_t j = 0; j < COUNT_OF(near); j++) {
                check_narrow(s, near[j]);
                check_narrow(s, -near[j]);
            }
        }
        static const float ends[] = {0.0f, 0x1p-149f, 0x1p-126f, 0x1.fffffep127f, 0x1.fffffcp-127f, INFINITY, NAN};
        for (size_t j = 0; j < COUNT_OF(ends); j++) {
            check_narrow(s, ends[j]);
            check_narrow(s, -ends[j]);
        }
        check_narrow(s, f32_from_bits(0x7f800001u)); /* a NaN whose upper bits alone would be infinity */
        check_narrow(s, f32_from_bits(0xff807fffu));
    }
}

static void random_patterns(void **state)
{
    (void)state;
    uint64_t x = 1;
    for (int i = 0; i < 3000000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t r = (uint32_t)(x >> 32);
        check_narrow(&formats[1], f32_from_bits(r));
        check_narrow(&formats[0], f32_from_bits(r));
        /* the same with an exponent that matters for f16: 2^-26 .. 2^17 */
        check_narrow(&formats[0], f32_from_bits((r & 0x807fffffu) | (101 + (r >> 23 & 0xff) % 44) << 23));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_16_bit_pattern),
        cmocka_unit_test(ties_and_their_neighbours),
        cmocka_unit_test(random_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
