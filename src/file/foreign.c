/* Files that no reader takes: tells what they are, so that the user knows what to do. Never reads more than a few thousand bytes. */
#include "file/reader.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const char convert_again[] = "convert the model to GGUF";

static const struct {
    const char *bytes;
    size_t n;
    const char *what;
} kinds[] = {
    {"FUGG", 4, "a draft of GGUF from before its first release (magic \"FUGG\")"},
    {"tjgg", 4, "a GGJT file, a format that GGUF replaced in 2023"},
    {"fmgg", 4, "a GGMF file, a format that GGUF replaced in 2023"},
    {"lmgg", 4, "an unversioned GGML file, a format that GGUF replaced in 2023"},
    {"algg", 4, "a GGLA adapter (LoRA), a format that GGUF replaced in 2023"},
    {"PK\3\4", 4, "a zip archive, maybe a PyTorch checkpoint"},
    {"\x80\x02", 2, "a Python pickle, maybe a PyTorch checkpoint"},
    {"\x89HDF", 4, "an HDF5 file"},
    {"\x1f\x8b", 2, "compressed with gzip"},
    {"\x28\xb5\x2f\xfd", 4, "compressed with zstd"},
    {"\xfd"
     "7zXZ",
     5, "compressed with xz"},
    {"BZh", 3, "compressed with bzip2"},
};

static bool starts_with(const struct os_map *m, const char *text)
{
    size_t n = strlen(text);
    return m->n_bytes >= n && strncasecmp((const char *)m->data, text, n) == 0;
}

/* A Git LFS pointer: "version https://git-lfs...", "oid sha256:...", "size N". */
static kg_status refuse_lfs(const struct os_map *m)
{
    char text[1024];
    size_t n = MIN(m->n_bytes, sizeof text - 1);
    memcpy(text, m->data, n);
    text[n] = 0;
    const char *size = strstr(text, "\nsize ");
    uint64_t n_bytes = size ? strtoull(size + 6, NULL, 10) : 0;
    return status_set(KG_ERR_FORMAT, "is a Git LFS pointer, not the model itself (%" PRIu64 " bytes): fetch it with 'git lfs pull'",
                      n_bytes);
}

/* The oldest ggml files were written without a magic: u32 count, then tokens of u32 length and bytes. */
static bool is_bare_ggml(const struct os_map *m)
{
    struct cursor c = {m->data, m->data + m->n_bytes};
    uint32_t n, len;
    if (!cursor_u32(&c, &n) || n < 256 || n > 1u << 20) return false;
    for (uint32_t i = 0; i < 256; i++) {
        if (!cursor_u32(&c, &len) || len > 256 || len > cursor_left(&c)) return false;
        c.p += len;
    }
    return true;
}

static bool is_text(const struct os_map *m)
{
    size_t n = MIN(m->n_bytes, (size_t)512);
    for (size_t i = 0; i < n; i++)
        if (m->data[i] < 0x20 && !isspace(m->data[i])) return false;
    return true;
}

bool foreign_is_pointer(const struct os_map *m) { return starts_with(m, "version https://git-lfs"); }

kg_status foreign_refuse(const struct os_map *m)
{
    if (m->n_bytes == 0) return status_set(KG_ERR_FORMAT, "the file is empty");
    if (foreign_is_pointer(m)) return refuse_lfs(m);
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (m->n_bytes >= kinds[i].n && memcmp(m->data, kinds[i].bytes, kinds[i].n) == 0)
            return status_set(KG_ERR_UNSUPPORTED, "is %s: %s", kinds[i].what, convert_again);
    if (starts_with(m, "<!doctype") || starts_with(m, "<html"))
        return status_set(KG_ERR_FORMAT, "is a web page, not a model: the download went wrong");
    if (is_bare_ggml(m))
        return status_set(KG_ERR_UNSUPPORTED, "looks like a GGML file without a header, from before GGUF: %s", convert_again);
    if (is_text(m)) return status_set(KG_ERR_FORMAT, "is a text file, not a model in GGUF");

    char start[3 * 8 + 1] = "";
    for (size_t i = 0; i < MIN(m->n_bytes, (size_t)8); i++) snprintf(start + 3 * i, sizeof start - 3 * i, " %02x", m->data[i]);
    return status_set(KG_ERR_FORMAT, "is not a GGUF file (it begins with%s)", start);
}
