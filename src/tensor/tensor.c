/* The type table and row access. */
#include "tensor/tensor.h"

#include <strings.h>

static const struct type_info types[] = {
#define QUANT(ENUM, name, text, id, block, bytes) {TYPE_##ENUM, text, block, bytes},
#include "tensor/quant.def"
#undef QUANT
};

const struct type_info *type_at(size_t i) { return i < COUNT_OF(types) ? &types[i] : NULL; }

const struct type_info *type_by_id(uint32_t id)
{
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if ((uint32_t)types[i].type == id) return &types[i];
    return NULL;
}

const struct type_info *type_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (strcasecmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

const char *type_removed_name(uint32_t id)
{
    static const struct {
        uint32_t id;
        const char *name;
    } removed[] = {{4, "Q4_2"},      {5, "Q4_3"},      {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},  {33, "Q4_0_8_8"},
                   {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}};
    for (size_t i = 0; i < COUNT_OF(removed); i++)
        if (removed[i].id == id) return removed[i].name;
    return NULL;
}

size_t tensor_row_bytes(const struct tensor *t)
{
    const struct type_info *ti = type_by_id((uint32_t)t->type);
    return (size_t)(t->ne[0] / ti->block) * (size_t)ti->block_bytes;
}

int64_t tensor_n_rows(const struct tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }

const void *tensor_row(const struct tensor *t, int64_t row) { return (const char *)t->data + (size_t)row * tensor_row_bytes(t); }
