/* Finds models by name, and lists them. The layout below the models directory is SOURCE/OWNER/REPO/FILE for what was downloaded;
 * any other arrangement of files works too. */
#include "models.h"

#include "commands.h"
#include "kagari.h"
#include "print.h"
#include "progress.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_DEPTH = 6, MOST_FILES = 100000, MOST_MANIFEST = 1 << 20 };

const char *const model_sources[N_SOURCES] = {"hf", "ms", "ollama"};

/* ---- names ------------------------------------------------------------------------------------------------- */

/* Letters, digits, '.', '_', '-': what the servers allow, and never "." or "..". */
static bool take_part(const char **p, char *out, size_t size)
{
    size_t n = strspn(*p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (n == 0 || n >= size || (*p)[0] == '.') return false;
    memcpy(out, *p, n);
    out[n] = 0;
    *p += n;
    return true;
}

bool model_id_parse(struct model_id *id, const char *text)
{
    *id = (struct model_id){.source = SOURCE_HF};
    for (int i = 0; i < N_SOURCES; i++) {
        size_t n = strlen(model_sources[i]);
        if (strncmp(text, model_sources[i], n) != 0 || text[n] != ':') continue;
        id->source = (enum model_source)i;
        text += n + 1;
        break;
    }
    bool ollama = id->source == SOURCE_OLLAMA;
    if (!take_part(&text, id->owner, sizeof id->owner)) return false;
    if (*text == '/') {
        text++;
        if (!take_part(&text, id->repo, sizeof id->repo)) return false;
    } else if (ollama) {
        strcpy(id->repo, id->owner);
        strcpy(id->owner, "library");
    } else {
        return false;
    }
    if (ollama) strcpy(id->quant, "latest");
    if (*text == ':') {
        text++;
        if (!take_part(&text, id->quant, sizeof id->quant)) return false;
    }
    return !*text;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

bool model_shard(const char *name, unsigned *number, unsigned *count)
{
    size_t n = strlen(name);
    int end = 0;
    if (n < 20) return false;
    return sscanf(name + n - 20, "-%5u-of-%5u.gguf%n", number, count, &end) == 2 && end == 20 && *number >= 1 && *number <= *count;
}

bool model_files_add(struct model_files *f, const char *name, uint64_t bytes)
{
    if ((f->n & (f->n - 1)) == 0) {
        struct model_file *more = f->n < MOST_FILES ? realloc(f->v, (f->n ? 2 * f->n : 1) * sizeof *more) : NULL;
        if (!more) return false;
        f->v = more;
    }
    f->v[f->n] = (struct model_file){.name = strdup(name), .bytes = bytes};
    return f->v[f->n].name && ++f->n;
}

void model_files_free(struct model_files *f)
{
    for (size_t i = 0; i < f->n; i++) free(f->v[i].name);
    free(f->v);
    *f = (struct model_files){0};
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A model: not what only goes with one. */
static bool is_model(const char *path)
{
    const char *name = base_name(path);
    unsigned number = 1, count;
    if (!ends_with(name, ".gguf") || strncasecmp(name, "mmproj", 6) == 0 || strcasestr(name, "imatrix")) return false;
    return !model_shard(name, &number, &count) || number == 1;
}

/* Is the word in the name, with neither letters nor digits around it? '_' is part of such words: Q4_K is not in Q4_K_M. */
static bool has_word(const char *name, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = name; (p = strcasestr(p, word)) != NULL; p++) {
        char before = p > name ? p[-1] : '-', after = p[n];
        bool starts = !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", before);
        bool ends = !after || !strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", after);
        if (starts && ends) return true;
    }
    return false;
}

static long find_quant(const struct model_files *f, const char *quant)
{
    for (size_t i = 0; i < f->n; i++)
        if (is_model(f->v[i].name) && has_word(base_name(f->v[i].name), quant)) return (long)i;
    return -1;
}

static void list_names(const struct model_files *f, char *why, size_t size, size_t n)
{
    for (size_t i = 0; i < f->n && n < size; i++)
        if (is_model(f->v[i].name)) n += (size_t)snprintf(why + n, size - n, " %s", base_name(f->v[i].name));
}

long model_pick(const struct model_files *f, const char *quant, char *why, size_t size)
{
    static const char *const order[] = {"q4_k_m", "q4_0", "q5_k_m", "q8_0", "f16"};
    long only = -1, n = 0, found = -1;
    for (size_t i = 0; i < f->n; i++)
        if (is_model(f->v[i].name)) only = (long)i, n++;
    if (n == 0) {
        snprintf(why, size, "there is no GGUF file");
        return -1;
    }
    if (*quant) {
        found = find_quant(f, quant);
        if (found < 0) list_names(f, why, size, (size_t)snprintf(why, size, "none of the files is %s:", quant));
        return found;
    }
    if (n == 1) return only;
    for (size_t i = 0; i < sizeof order / sizeof *order && found < 0; i++) found = find_quant(f, order[i]);
    if (found < 0) list_names(f, why, size, (size_t)snprintf(why, size, "say which one is meant:"));
    return found;
}

/* ---- folders -------------------------------------------------------------------------------------------------- */

static char *join(const char *a, const char *between, const char *b)
{
    char *s = malloc(strlen(a) + strlen(between) + strlen(b) + 1);
    if (s) strcpy(stpcpy(stpcpy(s, a), between), b);
    return s;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

char *models_folder(const struct settings *s)
{
    const char *base = environment("XDG_DATA_HOME"), *home = environment("HOME");
    if (s->models) return strdup(s->models);
    if (base && base[0] == '/') return join(base, "/", "kagari/models");
    return home ? join(home, "/", ".local/share/kagari/models") : NULL;
}

static bool is_folder_model(const char *path)
{
    char *config = join(path, "/", "config.json");
    bool is = config && access(config, R_OK) == 0;
    free(config);
    return is;
}

/* Adds what is below root/at, with names relative to root: GGUF files, and Hugging Face folders. Links to folders are not followed. */
static bool walk(struct model_files *found, const char *root, const char *at, int depth)
{
    char *folder = join(root, *at ? "/" : "", at);
    DIR *dir = folder ? opendir(folder) : NULL;
    bool good = folder != NULL, weights = false;
    uint64_t bytes = 0;
    for (struct dirent *e; good && dir && (e = readdir(dir)) != NULL;) {
        struct stat st;
        char *name = join(at, *at ? "/" : "", e->d_name);
        if (!name || fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || e->d_name[0] == '.') {
            good = name != NULL;
        } else if (S_ISDIR(st.st_mode)) {
            good = depth >= MOST_DEPTH || walk(found, root, name, depth + 1);
        } else if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)) {
            if (ends_with(name, ".gguf")) good = model_files_add(found, name, (uint64_t)st.st_size);
            else if (ends_with(name, ".safetensors")) weights = true, bytes += (uint64_t)st.st_size;
        }
        free(name);
    }
    if (dir) closedir(dir);
    if (good && weights && *at && is_folder_model(folder)) good = model_files_add(found, at, bytes);
    free(folder);
    return good;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct model_file *)a)->name, ((const struct model_file *)b)->name); }

/* Shards become one entry, that of the first. */
static void join_shards(struct model_files *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        unsigned number, count;
        bool later = model_shard(f->v[i].name, &number, &count) && number > 1;
        size_t same = strlen(f->v[i].name) < 20 ? 0 : strlen(f->v[i].name) - 20;
        if (later && n > 0 && strncmp(f->v[n - 1].name, f->v[i].name, same) == 0) {
            f->v[n - 1].bytes += f->v[i].bytes;
            free(f->v[i].name);
        } else {
            f->v[n++] = f->v[i];
        }
    }
    f->n = n;
}

static bool scan(struct model_files *found, const char *root)
{
    *found = (struct model_files){0};
    if (!walk(found, root, "", 0)) return false;
    if (found->n) qsort(found->v, found->n, sizeof *found->v, by_name);
    join_shards(found);
    return true;
}

/* ---- ollama's store -------------------------------------------------------------------------------------------- */

static char *ollama_store(void)
{
    const char *named = environment("OLLAMA_MODELS"), *home = environment("HOME");
    if (named) return strdup(named);
    char *own = home ? join(home, "/", ".ollama/models/manifests") : NULL;
    bool there = own && access(own, F_OK) == 0;
    if (there) own[strlen(own) - strlen("/manifests")] = 0;
    if (there) return own;
    free(own);
    return strdup("/usr/share/ollama/.ollama/models"); /* where its service keeps them */
}

/* The file with the weights that a manifest names; NULL if it names none that is there. */
static char *ollama_blob(const char *store, const char *manifest, uint64_t *bytes)
{
    struct stat st;
    if (stat(manifest, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MOST_MANIFEST) return NULL;
    json_t *root = json_load_file(manifest, JSON_REJECT_DUPLICATES, NULL), *layer;
    size_t i;
    char *path = NULL;
    json_array_foreach(json_object_get(root, "layers"), i, layer)
    {
        const char *type = json_string_value(json_object_get(layer, "mediaType")), *digest = json_string_value(json_object_get(layer, "digest"));
        bool named = type && digest && strcmp(type, "application/vnd.ollama.image.model") == 0 && strncmp(digest, "sha256:", 7) == 0;
        if (!named || path || strlen(digest) != 71 || strspn(digest + 7, "0123456789abcdef") != 64) continue;
        path = join(store, "/blobs/sha256-", digest + 7);
    }
    json_decref(root);
    if (path && stat(path, &st) == 0 && S_ISREG(st.st_mode)) *bytes = (uint64_t)st.st_size;
    else free(path), path = NULL;
    return path;
}

/* In the models directory (root, may be NULL), else in ollama's store. */
static char *ollama_find(const char *root, const struct model_id *id)
{
    char *store = ollama_store(), *own = NULL, *manifest = NULL, *blob = NULL;
    uint64_t bytes;
    if (root && asprintf(&own, "%s/ollama/%s/%s/%s.gguf", root, id->owner, id->repo, id->quant) >= 0 && access(own, R_OK) == 0) {
        blob = own;
        own = NULL;
    } else if (store && asprintf(&manifest, "%s/manifests/registry.ollama.ai/%s/%s/%s", store, id->owner, id->repo, id->quant) >= 0) {
        blob = ollama_blob(store, manifest, &bytes);
    }
    free(own);
    free(manifest);
    free(store);
    return blob;
}

/* ---- -m NAME ------------------------------------------------------------------------------------------------------ */

/* In SOURCE/OWNER/REPO: *path stays NULL if there is no such folder. */
static int find_in_repo(const char *root, const struct model_id *id, const char *name, char **path)
{
    struct model_files files = {0};
    char *folder = NULL, why[512] = "out of memory";
    struct stat st;
    int code = 0;
    if (asprintf(&folder, "%s/%s/%s/%s", root, model_sources[id->source], id->owner, id->repo) < 0) return print_error(EXIT_RUNTIME, "out of memory");
    if (stat(folder, &st) == 0 && S_ISDIR(st.st_mode)) {
        bool good = scan(&files, folder);
        if (good && files.n == 0 && !*id->quant && is_folder_model(folder)) {
            *path = strdup(folder);
        } else {
            long i = good ? model_pick(&files, id->quant, why, sizeof why) : -1;
            if (i >= 0) *path = join(folder, "/", files.v[i].name);
            else code = print_error(EXIT_RUNTIME, "%s, in %s: %s", name, folder, why);
        }
    }
    model_files_free(&files);
    free(folder);
    return code;
}

/* The name of an entry as -m takes it: without "hf/" and ".gguf". len is its length. */
static const char *short_name(const char *name, size_t *len)
{
    if (strncmp(name, "hf/", 3) == 0) name += 3;
    *len = strlen(name) - (ends_with(name, ".gguf") ? 5 : 0);
    return name;
}

static bool same_name(const char *wanted, const char *entry)
{
    size_t len, n = strlen(wanted) - (ends_with(wanted, ".gguf") ? 5 : 0);
    const char *name = short_name(entry, &len), *base = base_name(name);
    if (len == n && strncmp(name, wanted, n) == 0) return true;
    return len - (size_t)(base - name) == n && strncmp(base, wanted, n) == 0;
}

static int find_in_tree(const char *root, const char *name, char **path)
{
    struct model_files files;
    const char *first = NULL, *second = NULL;
    if (!scan(&files, root)) return print_error(EXIT_RUNTIME, "cannot look through %s", root);
    for (size_t i = 0; i < files.n; i++) {
        if (!same_name(name, files.v[i].name)) continue;
        if (!first) first = files.v[i].name;
        else second = files.v[i].name;
    }
    int code = second ? print_error(EXIT_USAGE, "several models in %s have the name '%s': %s, %s", root, name, first, second) : 0;
    if (!code && first) *path = join(root, "/", first);
    model_files_free(&files);
    return code;
}

int models_find(const struct settings *s, const char *name, char **path)
{
    struct model_id id;
    char *root = models_folder(s);
    bool is_id = model_id_parse(&id, name), ollama = is_id && id.source == SOURCE_OLLAMA;
    size_t n = is_id ? strlen(model_sources[id.source]) : 0;
    bool has_source = is_id && strncmp(name, model_sources[id.source], n) == 0 && name[n] == ':';
    int code = 0;
    *path = NULL;
    if (ollama) *path = ollama_find(root, &id);
    if (root && is_id && !ollama) code = find_in_repo(root, &id, name, path);
    if (root && !code && !*path && is_id && !has_source) {
        id.source = SOURCE_MS;
        code = find_in_repo(root, &id, name, path);
    }
    if (root && !code && !*path && name[0] != '/' && name[0] != '.' && *name) code = find_in_tree(root, name, path);
    free(root);
    if (*path) print_note(LEVEL_DEBUG, "model %s is %s", name, *path);
    return code;
}

/* ---- kagari list ---------------------------------------------------------------------------------------------------- */

struct listing {
    const struct settings *s;
    size_t n;
};

/* The tensor type with most bytes. */
static void main_type(const kg_file *file, char out[static 32])
{
    struct { char name[32]; uint64_t bytes; } types[64];
    size_t n = 0, best = 0;
    kg_tensor_info t;
    for (size_t i = 0; kg_file_tensor(file, i, &t) == KG_OK; i++) {
        size_t k = 0;
        while (k < n && strcmp(types[k].name, t.type) != 0) k++;
        if (k == n && n < 64) snprintf(types[n].name, sizeof types[n].name, "%s", t.type), types[n++].bytes = 0;
        if (k < n) types[k].bytes += t.n_bytes;
    }
    for (size_t k = 1; k < n; k++)
        if (types[k].bytes > types[best].bytes) best = k;
    snprintf(out, 32, "%s", n ? types[best].name : "-");
}

static void architecture(const kg_file *file, char out[static 64])
{
    snprintf(out, 64, "-");
    for (size_t i = 0; i < kg_file_n_keys(file); i++) {
        char value[64];
        size_t n;
        if (strcmp(kg_file_key(file, i), "general.architecture") != 0 || (n = kg_file_value(file, i, 0, value, sizeof value)) < 2 || n >= sizeof value) continue;
        snprintf(out, 64, "%.*s", (int)n - 2, value + 1); /* without the quotes */
    }
}

/* name[0..len) is what -m takes. */
static void print_model(void *ctx, const char *name, size_t len, const char *path, uint64_t bytes)
{
    struct listing *l = ctx;
    kg_file *file = NULL;
    char type[32] = "-", arch[64] = "-", size[16];
    bool good = kg_file_open(&file, path) == KG_OK;
    if (good) main_type(file, type), architecture(file, arch);
    progress_size(size, bytes);
    if (l->s->json) {
        fputs(l->n ? ",\n  {\"name\": " : "[\n  {\"name\": ", stdout);
        print_json(stdout, name, len);
        fputs(", \"path\": ", stdout);
        print_json(stdout, path, strlen(path));
        printf(", \"bytes\": %llu, \"type\": ", (unsigned long long)bytes);
        print_json(stdout, type, strlen(type));
        fputs(", \"architecture\": ", stdout);
        print_json(stdout, arch, strlen(arch));
        fputs(", \"error\": ", stdout);
        if (good) fputs("null", stdout);
        else print_json(stdout, kg_error_message(), strlen(kg_error_message()));
        putchar('}');
    } else {
        if (l->n == 0) printf("%10s  %-8s %-14s %s\n", "size", "type", "architecture", "name");
        printf("%10s  %-8s %-14s ", size, type, arch);
        print_plain(stdout, name, len);
        if (!good) fputs("  (cannot be read: ", stdout), print_plain(stdout, kg_error_message(), strlen(kg_error_message())), putchar(')');
        putchar('\n');
    }
    l->n++;
    kg_file_close(&file);
}

static bool in_source(int source, const char *name)
{
    size_t n = source < 0 ? 0 : strlen(model_sources[source]);
    return n == 0 || (strncmp(name, model_sources[source], n) == 0 && name[n] == '/');
}

/* What is found goes to each. */
struct search {
    int source; /* -1: all */
    models_each *each;
    void *ctx;
};

static void list_folder(const struct search *l, const char *root)
{
    struct model_files files;
    if (!scan(&files, root)) print_note(LEVEL_WARN, "cannot look through all of %s", root);
    for (size_t i = 0; i < files.n; i++) {
        size_t len;
        const char *name = short_name(files.v[i].name, &len);
        bool shown = in_source(l->source, files.v[i].name) && (!ends_with(files.v[i].name, ".gguf") || is_model(files.v[i].name));
        char *path = shown ? join(root, "/", files.v[i].name) : NULL;
        if (path) l->each(l->ctx, name, len, path, files.v[i].bytes);
        free(path);
    }
    model_files_free(&files);
}

/* Manifests are files OWNER/NAME/TAG. */
static void list_ollama(const struct search *l, const char *store, const char *folder, const char *at, int depth)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *path = entries[i]->d_name[0] != '.' ? join(folder, "/", entries[i]->d_name) : NULL;
        char *name = path ? join(at, depth == 2 ? ":" : depth == 1 && *at ? "/" : "", entries[i]->d_name) : NULL;
        uint64_t bytes = 0;
        char *blob = name && depth == 2 ? ollama_blob(store, path, &bytes) : NULL;
        if (name && depth < 2) list_ollama(l, store, path, depth == 0 && strcmp(name, "library") == 0 ? "" : name, depth + 1);
        if (blob) {
            char *whole = join("ollama:", "", name);
            if (whole) l->each(l->ctx, whole, strlen(whole), blob, bytes);
            free(whole);
        }
        free(blob);
        free(name);
        free(path);
        free(entries[i]);
    }
    free(entries);
}

void models_list(const struct settings *s, int source, models_each *each, void *ctx)
{
    struct search l = {source, each, ctx};
    char *root = models_folder(s), *store = ollama_store(), *manifests = store ? join(store, "/", "manifests/registry.ollama.ai") : NULL;
    if (root) list_folder(&l, root);
    if (manifests && (source < 0 || source == SOURCE_OLLAMA)) list_ollama(&l, store, manifests, "", 0);
    free(manifests);
    free(store);
    free(root);
}

int command_list(const struct settings *s)
{
    struct listing l = {.s = s};
    int source = -1;
    for (int i = 0; s->arg && i < N_SOURCES; i++)
        if (strcmp(s->arg, model_sources[i]) == 0) source = i;
    if (s->arg && source < 0) return print_error(EXIT_USAGE, "kagari list %s: must be hf, ms, ollama or nothing", s->arg);
    models_list(s, source, print_model, &l);
    char *root = models_folder(s);
    if (s->json) puts(l.n ? "\n]" : "[]");
    else if (l.n == 0) print_note(LEVEL_INFO, "no models in %s; kagari download gets some", root ? root : "a models directory: HOME is not set");
    free(root);
    return 0;
}
