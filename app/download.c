/* kagari download: from a name to files that are whole. A file grows as NAME.CHECKSUM.part, where a later call goes on, and gets its name
 * when its length and checksum are right. */
#include "commands.h"
#include "hub.h"
#include "print.h"
#include "progress.h"
#include "repl.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_INTERRUPTED = 130, MOST_TRIES = 5 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static bool go_on(struct http *h)
{
    (void)h;
    return !interrupted;
}

struct download {
    const struct settings *s;
    struct model_id id;
    const char *token;
    char *folder;
    struct hub_listing files;
    size_t *chosen; /* [n_chosen] of files */
    size_t n_chosen;
};

/* One file on its way. */
struct fetch {
    const struct hub_file *file;
    char *path, *part;
    int fd;
    EVP_MD_CTX *digest;
    uint64_t done;
    struct progress progress;
    char error[256]; /* "": none */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcasecmp(s + n - m, end) == 0;
}

/* ---- which files ------------------------------------------------------------------------------------------- */

static bool choose(struct download *d, size_t i)
{
    d->chosen[d->n_chosen++] = i;
    return true;
}

/* What a Hugging Face folder consists of, as far as it concerns us. */
static bool belongs_to_folder(const char *path)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(path, names[i]) == 0) return true;
    return ends_with(path, ".safetensors") && !strchr(path, '/') && strncmp(path, "consolidated", 12) != 0; /* Mistral's own copy of the same */
}

static int choose_folder(struct download *d, const char *name)
{
    bool config = false, weights = false;
    for (size_t i = 0; i < d->files.n; i++) {
        const char *path = d->files.v[i].path;
        if (!belongs_to_folder(path)) continue;
        config = config || strcmp(path, "config.json") == 0;
        weights = weights || ends_with(path, ".safetensors");
        choose(d, i);
    }
    if (!config || !weights) return print_error(EXIT_RUNTIME, "%s: there is neither a GGUF file nor a config.json with .safetensors", name);
    return 0;
}

static int choose_shards(struct download *d, const char *name, size_t first, unsigned count)
{
    const char *path = d->files.v[first].path;
    size_t same = strlen(path) - 20;
    for (unsigned k = 1; k <= count; k++) {
        unsigned number, of;
        size_t i = 0;
        while (i < d->files.n && !(strncmp(d->files.v[i].path, path, same) == 0 && strlen(d->files.v[i].path) == same + 20 &&
                                   model_shard(d->files.v[i].path, &number, &of) && number == k && of == count)) i++;
        if (i == d->files.n) return print_error(EXIT_RUNTIME, "%s: the server does not have file %u of %u", name, k, count);
        choose(d, i);
    }
    return 0;
}

static int choose_gguf(struct download *d, const char *name, bool *none)
{
    struct model_files files = {0};
    char why[512] = "out of memory";
    const char *quant = d->s->quantization ? d->s->quantization : d->id.source == SOURCE_OLLAMA ? "" : d->id.quant;
    unsigned number, count;
    long i = -1;
    bool good = true;
    *none = true;
    for (size_t k = 0; good && k < d->files.n; k++) {
        good = model_files_add(&files, d->files.v[k].path, d->files.v[k].bytes);
        *none = *none && !ends_with(d->files.v[k].path, ".gguf");
    }
    if (good) i = model_pick(&files, quant, why, sizeof why);
    model_files_free(&files);
    if (i < 0) return *none && !*quant ? 0 : print_error(EXIT_RUNTIME, "%s: %s", name, why);
    if (model_shard(d->files.v[i].path, &number, &count)) return choose_shards(d, name, (size_t)i, count);
    choose(d, (size_t)i);
    return 0;
}

static int choose_files(struct download *d, const char *name)
{
    enum { AUTO, GGUF, SAFETENSORS };
    bool none = true;
    d->chosen = calloc(d->files.n + 1, sizeof *d->chosen);
    if (!d->chosen) return print_error(EXIT_RUNTIME, "out of memory");
    int code = d->s->format == SAFETENSORS ? 0 : choose_gguf(d, name, &none);
    if (code || d->n_chosen) return code;
    if (d->s->format == GGUF) return print_error(EXIT_RUNTIME, "%s: there is no GGUF file", name);
    return choose_folder(d, name);
}

/* ---- one file ------------------------------------------------------------------------------------------------ */

/* The folders of a path, as far as they are missing. */
static bool make_folders(char *path)
{
    for (char *p = path; (p = strchr(p + 1, '/')) != NULL; *p = '/') {
        *p = 0;
        bool good = mkdir(path, 0777) == 0 || errno == EEXIST;
        if (good) continue;
        *p = '/';
        return false;
    }
    return true;
}

/* Of an empty file. Git hashes its kind and length first. */
static bool start_digest(struct fetch *f)
{
    char head[40];
    bool git = !f->file->sha256[0] && f->file->git_sha1[0];
    if (EVP_DigestInit_ex(f->digest, git ? EVP_sha1() : EVP_sha256(), NULL) != 1) return false;
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)f->file->bytes) + 1;
    return !git || EVP_DigestUpdate(f->digest, head, (size_t)n) == 1;
}

static bool restart(struct fetch *f)
{
    f->done = 0;
    if (start_digest(f) && ftruncate(f->fd, 0) == 0 && lseek(f->fd, 0, SEEK_SET) == 0) return true;
    snprintf(f->error, sizeof f->error, "cannot begin again: %s", strerror(errno));
    return false;
}

/* What an earlier call left. */
static bool read_part(struct fetch *f)
{
    static char buffer[1 << 18];
    struct stat st;
    if (fstat(f->fd, &st) != 0 || (uint64_t)st.st_size > f->file->bytes || !start_digest(f)) return restart(f);
    for (ssize_t n; !interrupted && (n = read(f->fd, buffer, sizeof buffer)) != 0;) {
        if (n < 0 || EVP_DigestUpdate(f->digest, buffer, (size_t)n) != 1) return restart(f);
        f->done += (uint64_t)n;
    }
    return true;
}

static bool on_start(struct http *h)
{
    struct fetch *f = h->ctx;
    if (h->code != 206 && f->done == 0) return true;
    if (h->code != 206) return restart(f); /* the server gives only all of it */
    if (h->has_range && h->range_from == f->done && h->range_total == f->file->bytes) return true;
    snprintf(f->error, sizeof f->error, "the server sends another part than was asked for");
    return false;
}

static bool on_data(struct http *h, const char *data, size_t n)
{
    struct fetch *f = h->ctx;
    if (n > f->file->bytes - f->done) {
        snprintf(f->error, sizeof f->error, "the server sends more than the %llu bytes that it lists", (unsigned long long)f->file->bytes);
        return false;
    }
    for (size_t at = 0; at < n;) {
        ssize_t written = write(f->fd, data + at, n - at);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            snprintf(f->error, sizeof f->error, "cannot write: %s", strerror(errno));
            return false;
        }
        EVP_DigestUpdate(f->digest, data + at, (size_t)written);
        at += (size_t)written;
        f->done += (uint64_t)written;
    }
    progress_show(&f->progress, f->done, f->file->bytes);
    return true;
}

static void wait_before_try(int failures)
{
    struct timespec t = {.tv_nsec = 200000000};
    for (int i = 0; i < 1 << (2 * failures - 2) && !interrupted; i++) nanosleep(&t, NULL); /* 0.2, 0.8, 3.2, 12.8 s */
}

/* Until it is whole. */
static bool receive(struct fetch *f, const char *token)
{
    int failures = 0;
    while (f->done < f->file->bytes && !interrupted) {
        uint64_t before = f->done;
        struct http h = {.url = f->file->url, .token = token, .from = f->done, .start = on_start, .data = on_data, .tick = go_on, .ctx = f};
        enum http_status status = http_get(&h);
        if (status == HTTP_STOPPED) return false;
        if (status == HTTP_REFUSED && h.code == 416 && before > 0 && restart(f) && failures++ < MOST_TRIES) continue;
        if (status == HTTP_OK && f->done < f->file->bytes) status = HTTP_FAILED, snprintf(h.error, sizeof h.error, "the answer ends too early");
        if (status == HTTP_OK) break;
        failures = f->done > before ? 1 : failures + 1;
        if (status != HTTP_FAILED || failures == MOST_TRIES) {
            snprintf(f->error, sizeof f->error, "%.250s", h.error);
            return false;
        }
        print_note(LEVEL_DEBUG, "%s: %s; trying again", f->file->path, h.error);
        wait_before_try(failures);
    }
    return !interrupted;
}

/* True also where the server gives no checksum. */
static bool right_digest(struct fetch *f)
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
    const char *want = f->file->sha256[0] ? f->file->sha256 : f->file->git_sha1;
    if (EVP_DigestFinal_ex(f->digest, raw, &n) != 1) return false;
    for (unsigned i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", raw[i]);
    if (!want[0]) print_note(LEVEL_WARN, "%s: the server gives no checksum; only the length was checked", f->file->path);
    if (!want[0] || strcmp(want, hex) == 0) return true;
    unlink(f->part);
    snprintf(f->error, sizeof f->error, "the checksum is %.16s..., the server lists %.16s...: what was downloaded has been removed", hex, want);
    return false;
}

static bool enough_space(struct fetch *f)
{
    struct statvfs v;
    uint64_t need = f->file->bytes - f->done;
    char a[16], b[16];
    if (fstatvfs(f->fd, &v) != 0 || (uint64_t)v.f_bavail * v.f_frsize >= need) return true;
    progress_size(a, need);
    progress_size(b, (uint64_t)v.f_bavail * v.f_frsize);
    snprintf(f->error, sizeof f->error, "%s are needed, the disk has %s left", a, b);
    return false;
}

static bool fetch_part(struct download *d, struct fetch *f)
{
    bool good = false;
    f->fd = open(f->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    f->digest = EVP_MD_CTX_new();
    if (f->fd < 0 || !f->digest) snprintf(f->error, sizeof f->error, "cannot open %.150s: %s", f->part, strerror(errno));
    else if (flock(f->fd, LOCK_EX | LOCK_NB) != 0) snprintf(f->error, sizeof f->error, "another program downloads it now");
    else good = read_part(f) && enough_space(f);
    if (good) {
        if (f->done) print_note(LEVEL_INFO, "%s: going on after %llu of %llu bytes", f->file->path, (unsigned long long)f->done, (unsigned long long)f->file->bytes);
        progress_begin(&f->progress, d->s, base_name(f->file->path), true, f->done);
        good = receive(f, d->token) && right_digest(f);
        progress_end(&f->progress);
    }
    if (good && (fsync(f->fd) != 0 || rename(f->part, f->path) != 0)) {
        snprintf(f->error, sizeof f->error, "cannot finish: %s", strerror(errno));
        good = false;
    }
    if (f->fd >= 0) close(f->fd);
    EVP_MD_CTX_free(f->digest);
    return good;
}

static int fetch_file(struct download *d, const struct hub_file *file)
{
    struct fetch f = {.file = file, .fd = -1};
    struct stat st;
    const char *name = d->s->output_dir ? base_name(file->path) : file->path, *sum = file->sha256[0] ? file->sha256 : file->git_sha1;
    char size[16];
    int code = 0;
    if (asprintf(&f.path, "%s/%s", d->folder, name) < 0 || asprintf(&f.part, "%s.%.16s.part", f.path, sum[0] ? sum : "0") < 0) return print_error(EXIT_RUNTIME, "out of memory");
    progress_size(size, file->bytes);
    bool there = stat(f.path, &st) == 0;
    if (there && !d->s->force && (uint64_t)st.st_size == file->bytes) {
        print_note(LEVEL_INFO, "%s is there already; --force downloads it again", f.path);
    } else if (there && !d->s->force) {
        code = print_error(EXIT_RUNTIME, "%s has %llu bytes, that of the server %llu; --force replaces it", f.path, (unsigned long long)st.st_size, (unsigned long long)file->bytes);
    } else if (!make_folders(f.path)) {
        code = print_error(EXIT_RUNTIME, "cannot make the folder of %s: %s", f.path, strerror(errno));
    } else {
        print_note(LEVEL_INFO, "downloading %s, %s", file->path, size);
        if (!fetch_part(d, &f)) code = f.error[0] ? print_error(EXIT_RUNTIME, "%s: %s", file->path, f.error) : EXIT_INTERRUPTED;
        if (code == EXIT_INTERRUPTED) print_error(0, "%s: stopped after %llu of %llu bytes; the same command goes on from there", file->path, (unsigned long long)f.done, (unsigned long long)file->bytes);
    }
    free(f.path);
    free(f.part);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int prepare(struct download *d)
{
    const struct settings *s = d->s;
    if (!s->arg) return print_error(EXIT_USAGE, "kagari download needs a name: hf:owner/repo[:QUANT], ms:owner/repo[:QUANT] or ollama:name[:tag]");
    if (!model_id_parse(&d->id, s->arg)) return print_error(EXIT_USAGE, "'%s' is not the name of a model: hf:owner/repo[:QUANT], ms:owner/repo[:QUANT] or ollama:name[:tag]", s->arg);
    bool ollama = d->id.source == SOURCE_OLLAMA;
    if (s->quantization && (ollama || d->id.quant[0])) return print_error(EXIT_USAGE, "'%s' says already which file is meant: --quantization does not go with it", s->arg);
    if (ollama && s->given[OPT_format]) return print_error(EXIT_USAGE, "ollama has only GGUF: --format does not go with it");
    /* HF_TOKEN is for Hugging Face and for nobody else */
    d->token = d->id.source == SOURCE_HF || s->from[OPT_token] == FROM_FLAG ? s->token : NULL;
    char *root = s->output_dir ? NULL : models_folder(s);
    if (s->output_dir) d->folder = strdup(s->output_dir);
    else if (!root) return print_error(EXIT_RUNTIME, "there is no models directory, since HOME is not set: give --output-dir or --models");
    else if (asprintf(&d->folder, "%s/%s/%s/%s", root, model_sources[d->id.source], d->id.owner, d->id.repo) < 0) d->folder = NULL;
    free(root);
    return d->folder ? 0 : print_error(EXIT_RUNTIME, "out of memory");
}

/* The path for scripts, advice for people, and a conversation if they want one. */
static int print_result(const struct download *d)
{
    const char *first = d->files.v[d->chosen[0]].path;
    bool folder = !ends_with(first, ".gguf");
    char *path = NULL;
    if (asprintf(&path, "%s%s%s", d->folder, folder ? "" : "/", folder ? "" : d->s->output_dir ? base_name(first) : first) < 0) return print_error(EXIT_RUNTIME, "out of memory");
    puts(path);
    if (!folder && d->n_chosen > 1) print_note(LEVEL_INFO, "these are %zu files of one model, which the first opens; kagari merge makes one of them", d->n_chosen);
    int code = 0;
    if (d->s->chat_after) {
        struct settings s = *d->s; /* as they are but for the model */
        s.model = path;
        code = repl_run(&s);
    }
    free(path);
    return code;
}

int command_download(const struct settings *s)
{
    struct download d = {.s = s};
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    char error[512];
    int code = prepare(&d);
    sigemptyset(&action.sa_mask);
    if (!code) {
        sigaction(SIGINT, &action, NULL);
        enum http_status status = hub_list(&d.files, &d.id, d.token, go_on, error);
        if (status == HTTP_STOPPED) code = EXIT_INTERRUPTED;
        else if (status != HTTP_OK) code = print_error(EXIT_RUNTIME, "%s: %s", s->arg, error);
    }
    if (!code) code = choose_files(&d, s->arg);
    for (size_t i = 0; !code && i < d.n_chosen; i++) code = fetch_file(&d, &d.files.v[d.chosen[i]]);
    if (!code) code = print_result(&d);
    hub_free(&d.files);
    free(d.chosen);
    free(d.folder);
    return code;
}
