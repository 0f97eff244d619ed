/* What this machine's processors can do at most: kernels that only multiply or only read. Shares nothing with the kernels that
 * run models, so that it can say how near to the limit those come. */
#ifndef BACKEND_CPU_LIMITS_H
#define BACKEND_CPU_LIMITS_H

#include "backend/backend.h"

#define LIMIT_STRETCH ((size_t)256 << 10) /* bytes that are read at a time */
#define LIMIT_READS 6

/* Each does its work `rounds` times (read: once over LIMIT_STRETCH bytes) and returns something that depends on all of it, so that no
 * compiler can leave it out. Processors differ in which order of reading is fastest: the meter tries them all. */
struct limit_kernels {
    const char *with; /* the instructions, for people */
    uint32_t (*int8)(int64_t rounds);
    uint32_t (*int8_vector)(int64_t rounds); /* NULL: int8 is such */
    uint32_t (*f32)(int64_t rounds);
    uint32_t (*bf16)(int64_t rounds);
    uint32_t (*read[LIMIT_READS])(const uint8_t *p); /* NULL: no more */
    double int8_ops, int8_vector_ops, f32_ops, bf16_ops; /* per round; a multiply-add counts as two */
};

/* Each fills every entry with the instructions of a tier of struct cpu_kernels. */
void limits_generic(struct limit_kernels *k);
void limits_avx2(struct limit_kernels *k);
void limits_vnni(struct limit_kernels *k);
void limits_avx512(struct limit_kernels *k);
void limits_amx(struct limit_kernels *k);

extern const struct backend_meter cpu_meter;

#endif
