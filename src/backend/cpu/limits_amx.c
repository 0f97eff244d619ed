/* Limit kernels of the AMX tier: full tiles, with six independent sums, and two operands that stay. */
#include "backend/cpu/limits.h"

#include <immintrin.h>

enum { SUMS = 6, TILE_BYTES = 1024, MULTIPLY_ADDS_INT8 = 16 * 16 * 64 };

static void begin(uint8_t *data)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.rows[i] = 16, config.row_bytes[i] = 64;
    for (int i = 0; i < TILE_BYTES; i++) data[i] = (uint8_t)(i & 0x3f); /* small bf16 and small integers */
    __asm__ volatile("" ::: "memory");                                  /* tiles are loaded behind the compiler's back */
    _tile_loadconfig(&config);
    _tile_loadd(6, data, 64);
    _tile_loadd(7, data, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
}

static uint32_t end(uint8_t *data)
{
    uint32_t word;
    _tile_stored(0, data, 64);
    _tile_release();
    memcpy(&word, data, sizeof word);
    return word;
}

#define KERNEL(name, multiply)                     \
    static uint32_t name(int64_t rounds)           \
    {                                              \
        _Alignas(64) uint8_t data[TILE_BYTES];     \
        begin(data);                               \
        for (int64_t r = 0; r < rounds; r++) {     \
            multiply(0, 6, 7);                     \
            multiply(1, 6, 7);                     \
            multiply(2, 6, 7);                     \
            multiply(3, 6, 7);                     \
            multiply(4, 6, 7);                     \
            multiply(5, 6, 7);                     \
        }                                          \
        return end(data);                          \
    }
KERNEL(int8_amx, _tile_dpbusd)
KERNEL(bf16_amx, _tile_dpbf16ps)

void limits_amx(struct limit_kernels *k)
{
    limits_avx512(k);
    k->with = "AMX: tdpbusd, tdpbf16ps; AVX-512: vpdpbusd, vfmadd";
    k->int8_vector = k->int8;
    k->int8_vector_ops = k->int8_ops;
    k->int8 = int8_amx;
    k->int8_ops = 2.0 * SUMS * MULTIPLY_ADDS_INT8;
    k->bf16 = bf16_amx;
    k->bf16_ops = k->int8_ops / 2;
}
