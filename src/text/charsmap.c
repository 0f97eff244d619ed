/* Reads precompiled_charsmap: the trie's length in bytes, the trie, then the replacements. Every index is checked while walking, since
 * nothing else bounds a damaged table. */
#include "text/charsmap.h"

kg_status charsmap_load(struct charsmap *m, struct arena *arena, const uint8_t *p, size_t n)
{
    uint32_t bytes = n >= 4 ? load_u32(p) : 0;
    if (bytes < 4 || bytes % 4 != 0 || bytes > n - 4)
        return status_set(KG_ERR_FORMAT, "precompiled_charsmap: %zu bytes do not hold a trie of %u", n, bytes);
    uint32_t *units = arena_alloc(arena, bytes);
    m->n_texts = n - 4 - bytes;
    m->texts = units ? arena_strndup(arena, (const char *)p + 4 + bytes, m->n_texts) : NULL;
    if (!m->texts) return KG_ERR_MEMORY;
    memcpy(units, p + 4, bytes);
    m->units = units;
    m->n_units = bytes / 4;
    return KG_OK;
}

/* A unit: the label in the low byte, bit 8 for "a value is below", the distance to the children above, by 256 if bit 9 is set. A value has bit 31. */
static size_t below(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 0x200) >> 6); }

enum { MAX_SEQUENCE = 256 }; /* bytes; a damaged table may go in circles */

const char *charsmap_find(const struct charsmap *m, const char *s, size_t n, bool shortest, size_t *used)
{
    const char *found = NULL;
    if (m->n_units == 0) return NULL;
    size_t at = below(m->units[0]);
    for (size_t i = 0; i < MIN(n, (size_t)MAX_SEQUENCE) && s[i] != 0; i++) {
        at ^= (uint8_t)s[i];
        if (at >= m->n_units || (m->units[at] & 0x800000ffu) != (uint8_t)s[i]) break;
        bool value = m->units[at] & 0x100;
        at ^= below(m->units[at]);
        if (!value || at >= m->n_units) continue;
        size_t text = m->units[at] & 0x7fffffffu;
        if (text > m->n_texts) continue;
        found = m->texts + text;
        *used = i + 1;
        if (shortest) break;
    }
    return found;
}
