/* Walks the double array with every index checked, since a file may say anything. */
#include "text/charsmap.h"

#include "text/utf8.h"

#include <utf8proc.h>

enum { CLUSTER_BYTES = 6, MAX_KEY = 256, MAX_TEXT = 1024 }; /* bytes; real maps have keys of 18 and texts of 54 at most */

kg_status charsmap_init(struct charsmap *out, const uint8_t *bytes, size_t n)
{
    *out = (struct charsmap){0};
    if (n == 0) return KG_OK;
    const uint32_t n_trie = n >= 4 ? load_u32(bytes) : 0;
    if (n_trie == 0 || n_trie % 4 || n_trie > n - 4 || n - 4 - n_trie == 0 || bytes[n - 1] != 0)
        return status_set(KG_ERR_FORMAT, "the precompiled map of characters is damaged");
    *out = (struct charsmap){bytes + 4, n_trie / 4, (const char *)bytes + 4 + n_trie, n - 4 - n_trie};
    return KG_OK;
}

static inline uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

bool charsmap_match(const struct charsmap *map, const char *s, size_t n, bool longest, struct str *to, size_t *n_matched)
{
    bool found = false;
    if (map->n_units == 0) return false;
    uint32_t at = offset_of(load_u32(map->units));
    for (size_t i = 0; i < n && i < MAX_KEY && s[i] != 0; i++) {
        at ^= (uint8_t)s[i];
        if (at >= map->n_units) break;
        const uint32_t unit = load_u32(map->units + 4 * (size_t)at);
        if ((unit & 0x800000ffu) != (uint8_t)s[i]) break;
        at ^= offset_of(unit);
        if (at >= map->n_units) break;
        if (!(unit & 0x100)) continue;
        const uint32_t value = load_u32(map->units + 4 * (size_t)at) & 0x7fffffffu;
        const char *end = value < map->n_texts ? memchr(map->texts + value, 0, MIN(map->n_texts - value, (size_t)MAX_TEXT)) : NULL;
        if (!end) continue;
        *to = (struct str){map->texts + value, (size_t)(end - (map->texts + value))};
        *n_matched = i + 1;
        found = true;
        if (!longest) break;
    }
    return found;
}

static kg_status apply_cluster(const struct charsmap *map, const char *s, size_t n, struct buf *out)
{
    struct str to;
    size_t matched;
    if (n < CLUSTER_BYTES && charsmap_match(map, s, n, false, &to, &matched)) return buf_append(out, to.ptr, to.len);
    for (size_t i = 0; i < n;) {
        const size_t k = MAX(utf8_char((const uint8_t *)s + i, n - i), (size_t)1);
        if (charsmap_match(map, s + i, k, false, &to, &matched)) KG_TRY(buf_append(out, to.ptr, to.len));
        else KG_TRY(buf_append(out, s + i, k));
        i += k;
    }
    return KG_OK;
}

static kg_status apply_clusters(const struct charsmap *map, const char *text, size_t n, struct buf *out)
{
    size_t start = 0;
    uint32_t last = 0;
    utf8proc_int32_t state = 0;
    for (size_t i = 0; i < n;) {
        uint32_t code = 0xfffd;
        const size_t k = MAX(utf8_decode((const uint8_t *)text + i, n - i, &code), (size_t)1);
        if (i > 0 && utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)code, &state)) {
            KG_TRY(apply_cluster(map, text + start, i - start, out));
            start = i;
        }
        last = code;
        i += k;
    }
    return n > start ? apply_cluster(map, text + start, n - start, out) : KG_OK;
}

kg_status charsmap_apply(const struct charsmap *map, const char *text, size_t n, bool by_clusters, struct buf *out)
{
    if (by_clusters) return apply_clusters(map, text, n, out);
    for (size_t i = 0; i < n;) {
        struct str to;
        size_t k;
        if (charsmap_match(map, text + i, n - i, true, &to, &k)) {
            KG_TRY(buf_append(out, to.ptr, to.len));
        } else {
            k = MAX(utf8_char((const uint8_t *)text + i, n - i), (size_t)1);
            KG_TRY(buf_append(out, text + i, k));
        }
        i += k;
    }
    return KG_OK;
}
