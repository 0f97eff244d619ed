/* UTF-8: validation by the ranges of the Unicode standard's table 3-7, and the stream that turns token bytes into whole
 * characters. Knows nothing of vocabularies. */
#include "text/utf8.h"

#include "text/text.h"

int utf8_check(const uint8_t *s, size_t n)
{
    if (n == 0) return 0;
    uint8_t a = s[0];
    if (a < 0x80) return n == 1 ? 1 : -1;
    if (a < 0xc2 || a > 0xf4) return -1;
    size_t want = a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
    if (n > want) return -1;
    if (n >= 2) {
        uint8_t lo = a == 0xe0 ? 0xa0 : a == 0xf0 ? 0x90 : 0x80, hi = a == 0xed ? 0x9f : a == 0xf4 ? 0x8f : 0xbf;
        if (s[1] < lo || s[1] > hi) return -1;
    }
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return -1;
    return n == want;
}

size_t utf8_char(const uint8_t *s, size_t n)
{
    if (n == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t want = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    return want <= n && utf8_check(s, want) == 1 ? want : 0;
}

size_t utf8_valid_prefix(const uint8_t *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        while (i + 8 <= n && (load_u64(s + i) & 0x8080808080808080u) == 0) i += 8;
        if (i == n) break;
        size_t k = utf8_char(s + i, n - i);
        if (k == 0) break;
        i += k;
    }
    return i;
}

size_t utf8_decode(const uint8_t *s, size_t n, uint32_t *code)
{
    size_t k = utf8_char(s, n);
    if (k == 1) *code = s[0];
    if (k == 2) *code = (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    if (k == 3) *code = (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    if (k == 4) *code = (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
    return k;
}

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* One U+FFFD stands for each maximal subpart, as the Unicode standard recommends (section 3.9). */
static kg_status push_byte(struct utf8_stream *s, uint8_t byte, struct buf *out)
{
    for (;;) {
        s->held[s->n_held++] = byte;
        int state = utf8_check(s->held, (size_t)s->n_held);
        if (state == 0) return KG_OK;
        int n = s->n_held;
        s->n_held = 0;
        if (state == 1) return buf_append(out, s->held, (size_t)n);
        KG_TRY(buf_append(out, replacement, 3));
        if (n == 1) return KG_OK;
        /* what was held is one bad subpart; this byte may begin a character */
    }
}

kg_status utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t n, bool flush, struct buf *out)
{
    const uint8_t *p = (const uint8_t *)bytes;
    size_t i = 0;
    while (i < n) {
        if (s->n_held == 0) {
            size_t k = utf8_valid_prefix(p + i, n - i);
            if (k > 0) KG_TRY(buf_append(out, p + i, k));
            i += k;
            if (i == n) break;
        }
        KG_TRY(push_byte(s, p[i++], out));
    }
    if (flush && s->n_held > 0) {
        s->n_held = 0;
        KG_TRY(buf_append(out, replacement, 3));
    }
    return KG_OK;
}
