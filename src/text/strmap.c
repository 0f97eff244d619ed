/* The hash table from strings to ids that vocabularies use. */
#include "text/tokenizer.h"

#include <stdlib.h>

uint64_t text_hash(const char *s, size_t n, uint64_t seed)
{
    uint64_t h = seed ^ (n * 0x9e3779b97f4a7c15u);
    while (n >= 8) {
        h = (h ^ load_u64(s)) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
        s += 8;
        n -= 8;
    }
    uint64_t tail = 0;
    if (n >= 4) {
        tail = (uint64_t)load_u32(s) << 32 | load_u32(s + n - 4);
    } else {
        for (size_t i = 0; i < n; i++) tail = tail << 8 | (uint8_t)s[i];
    }
    h = (h ^ tail) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static kg_status allocate(struct strmap *map, size_t n_slots)
{
    map->slots = calloc(n_slots, sizeof *map->slots);
    if (!map->slots) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary of %zu slots", n_slots);
    map->mask = n_slots - 1;
    map->n = 0;
    return KG_OK;
}

kg_status strmap_init(struct strmap *map, size_t n_expected, uint64_t seed)
{
    size_t n_slots = 64;
    while (n_slots < n_expected * 2) n_slots *= 2;
    map->seed = seed;
    return allocate(map, n_slots);
}

void strmap_free(struct strmap *map)
{
    free(map->slots);
    map->slots = NULL;
}

/* The slot of the text, or the free one where it would go. */
static struct strmap_slot *find_slot(const struct strmap *map, const char *s, size_t n)
{
    size_t i = (size_t)text_hash(s, n, map->seed) & map->mask;
    for (;; i = (i + 1) & map->mask) {
        struct strmap_slot *slot = &map->slots[i];
        if (!slot->ptr || (slot->len == n && memcmp(slot->ptr, s, n) == 0)) return slot;
    }
}

uint32_t strmap_find(const struct strmap *map, const char *s, size_t n)
{
    const struct strmap_slot *slot = find_slot(map, s, n);
    return slot->ptr ? slot->id : SYMBOL_NONE;
}

static kg_status grow(struct strmap *map)
{
    struct strmap old = *map;
    KG_TRY(allocate(map, (old.mask + 1) * 2));
    for (size_t i = 0; i <= old.mask; i++) {
        if (!old.slots[i].ptr) continue;
        *find_slot(map, old.slots[i].ptr, old.slots[i].len) = old.slots[i];
        map->n++;
    }
    free(old.slots);
    return KG_OK;
}

kg_status strmap_add(struct strmap *map, const char *s, size_t n, uint32_t id)
{
    if (map->n * 2 > map->mask) {
        struct strmap before = *map;
        kg_status status = grow(map);
        if (status != KG_OK) {
            *map = before;
            return status;
        }
    }
    struct strmap_slot *slot = find_slot(map, s, n);
    if (slot->ptr) return KG_OK;
    *slot = (struct strmap_slot){s, (uint32_t)n, id};
    map->n++;
    return KG_OK;
}
