/* layers: file */
/* Every option that `kagari help` lists, for whatever command, acts: each is demonstrated here through a pseudo-terminal, and one that is not fails the
 * test. A setting is demonstrated three times: as option, as key of the configuration file and as variable. */
#include "terminal.h"

#include "file/file.h"
#include "adapter_folder.h"
#include "gguf_writer.h"

#include <ctype.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define K "$K -b cpu -t 1 "
#define KT "$K -b cpu -t 1 --temperature 0 "
#define CHAT "$K -b cpu -t 1 --temperature 0 -n 2 --chat "
#define BENCH "$K bench -b cpu --shape tiny --prompt 4 --generate 2 --runs 1 --context 5 --threads 2 --verify 2 --deterministic --kv-type f32 --json --plot $H/b.svg && head -c 4 $H/b.svg"
#define PLX "$K perplexity -m $H/tiny.gguf -b cpu -t 1 --file $H/long.txt --ctx 64 --chunks 2 "

/* A line for the shell, in which @ stands for the option and its value: with it and without it what comes must differ as `expect` says:
 *   "text"    is there with it, not without it           "!text"   the other way round
 *   "~"       the two are not the same                   "=line"   the same as of this line, not as without it
 * Without an @ the line has the option in it, and must give the text. Several lines may demonstrate different things of one option. */
struct demo {
    const char *command, *option, *value, *line, *expect;
};

static const struct demo demos[] = {
    /* ---- what is computed, and with what */
    {"", "model", "$H/other.gguf", K "@ -p Once -n 1 --stats", "other.gguf"},
    {"", "backend", "reference", "$K @ -p Once -n 1 --stats", "reference backend"},
    {"", "gpu-layers", "1", "KAGARI_HYBRID=emulator $K -m $H/tiny.gguf -b hybrid @ -p a -n 1 --log-level debug", "gpu_layers 1"},
    {"", "lora", "$H/adapter.gguf=3", KT "@ -p Once -n 8", "~"},
    {"", "lora", "$H/peft", KT "@ -p Once -n 8", "~"},
    {"", "threads", "3", "$K -b cpu @ -p Once -n 1 --log-level debug", "threads 3"},
    {"", "kv-type", "f32", K "@ -p Once -n 1 --stats", "cache   2 tokens, 0.38 MiB"},
    {"verify", "activations", "f32", "$K verify -b cpu -t 1 -m $M @ -p Once", "~"},
    {"", "deterministic", NULL, K "@ -p Once -n 1 --log-level debug", "deterministic"},
    {"", "fallback", "reference", "KAGARI_BACKEND=metal $K @ -p Once -n 1 --stats", "reference backend"},
    {"", "batch", "2", K "@ --temperature 0 -p 'Once upon a time' -n 1 --log-level trace", "2 of 5 tokens"},
    {"", "ctx", "8", KT "@ -p Once -n 9", "the context is full"},
    {"tokenize", "tokenizer", "$H/vocab.gguf", "$K tokenize @ --pieces ab", "~"},
    {"", "tokenizer", "$H/vocab.gguf", K "@ -p aab -n 0 --log-level trace", "vocab.gguf"},
    /* ---- prompts */
    {"", "prompt", "Once upon a time", KT "@ -n 3 </dev/null", "=" KT "--tokens 1,2475,642,261,565 -n 3"},
    {"", "tokens", "1,2475", KT "@ -n 2 --print-ids </dev/null", "=" KT "-p Once -n 2 --print-ids"},
    {"", "file", "$H/once.txt", KT "@ -n 3 </dev/null", "=" KT "-p Once -n 3"},
    {"", "special", NULL, KT "-p '</s>' -n 2 --print-ids @", "~"},
    /* ---- what is generated */
    {"", "max-tokens", "2", KT "@ -p Once --print-ids --ctx 20", "=" KT "-p Once --print-ids -n 2"},
    {"", "temperature", "0", K "@ -p Once -n 9 --seed 3", "=" K "-p Once -n 9 --top-k 1"},
    {"", "top-k", "1", K "-p Once -n 9 --temperature 2 --seed 3 @", "=" KT "-p Once -n 9"},
    {"", "top-p", "0.01", K "-p Once -n 9 --temperature 1.5 --seed 3 @", "=" KT "-p Once -n 9"},
    {"", "min-p", "1", K "-p Once -n 9 --temperature 2 --seed 3 @", "=" KT "-p Once -n 9"},
    {"", "repeat-penalty", "9", KT "-p Once -n 20 @", "~"},
    {"", "presence-penalty", "50", KT "-p Once -n 20 @", "~"},
    {"", "frequency-penalty", "50", KT "-p Once -n 20 @", "~"},
    {"", "penalty-last-n", "0", KT "-p Once -n 20 --repeat-penalty 9 @", "=" KT "-p Once -n 20"},
    {"", "seed", "7", K "-p Once -n 9 --temperature 2 @", "=" K "-p Once -n 9 --temperature 2 --seed=7"},
    {"", "stop", "noise", KT "-p Once -n 9 @", "!noise"},
    {"", "ignore-eos", NULL, K "-m $H/tiny.gguf -p a --temperature 2 --top-k 0 --top-p 1 --seed 1 -n 2000 --ctx 3000 @ --print-ids | tr , '\\n' | wc -l", "2000"},
    {"", "print-ids", NULL, KT "-p Once -n 1 @", "452"},
    {"", "no-stream", NULL, KT "-p Once -n 200 @ | dd bs=65536 count=1 2>/dev/null", "=" KT "-p Once -n 200"},
    /* ---- what is said about it */
    {"", "stats", NULL, KT "-p Once -n 1 @", "text    1 tokens"},
    {"", "no-progress", NULL, KT "-f $H/long.txt --batch 8 -n 1 @", "! of "},
    {"", "log-level", "debug", KT "-p Once -n 1 @", "model /"},
    {"", "no-color", NULL, "$K info /nowhere @", "!\033[1;31m"},
    {"", "config", "$H/two.toml", K "@ -p Once --temperature 0 --print-ids --ctx 20", "=" KT "-p Once --print-ids -n 2"},
    {"", "help", NULL, "$K @ </dev/null", "Usage:"},
    {"", "version", NULL, "$K @ </dev/null", "kagari 0."},
    {"help", "man", NULL, "$K help @", ".TH KAGARI 1"},
    {"help", "completions", "fish", "$K help @", "complete -c kagari"},
    {"help", "completions", "zsh", "$K help @", "#compdef"},
    {"help", "completions", "bash", "$K help @", "COMPREPLY"},
    /* ---- conversations */
    {"", "chat", NULL, "echo Once | $K -b cpu -t 1 -n 1 @ --temperature 0 --template $H/t.jinja --log-level error", "~"},
    {"", "tui", NULL, KT "@", "\033[?1049h"},
    {"", "load-history", "$H/talk.json", "echo '/stats' | " CHAT "@", "messages  3,"},
    {"", "save-history", "$H/saved.json", "echo Once | " CHAT "@ >/dev/null; cat $H/saved.json; rm -f $H/saved.json", "\"content\": \"Once\""},
    {"", "no-auto-save", NULL, "echo Once | " CHAT "--save-history $H/auto.json @ >/dev/null; cat $H/auto.json; rm -f $H/auto.json", "!\"content\": \"Once\""},
    {"", "history-file", "$H/typed", "$K -b cpu -t 1 -n 1 @; echo kept $(grep -c Once $H/typed); rm -f $H/typed", "kept 1"},
    {"", "max-history", "1", "$K -b cpu -t 1 -n 1 --history-file $H/typed @; echo kept $(grep -c 'one' $H/typed); rm -f $H/typed", "kept 0"},
    {"", "show-thinking", NULL, "echo Once | " CHAT "--template $H/think.jinja @ | wc -c | tr -d ' '", "~"},
    {"", "system-prompt", "Be kind.", "echo /system | " CHAT "@", "System prompt: Be kind."},
    {"", "template", "$H/t.jinja", "echo /template | " CHAT "@", "Chat template off"},
    {"", "tools", "$H/tools.json", CHAT "-p hi --template $H/counts.jinja @", "~"},
    {"", "variables", "{\"x\": 5}", CHAT "-p hi --template $H/counts.jinja @", "~"},
    {"", "save-cache", "$H/cache", KT "-p Once -n 1 @ >/dev/null; ls $H/cache; rm -f $H/cache", "!No such file"},
    {"", "load-cache", "$H/kept", KT "-p 'Once upon a time' -n 1 --stats @", "from the cache"},
    /* ---- files */
    {"info", "json", NULL, "$K info $H/tiny.gguf @ | head -c 1", "{"},
    {"tokenize", "ids", NULL, "$K tokenize @ Once", "1,2475"},
    {"tokenize", "pieces", NULL, "$K tokenize @ Once", "!2475"},
    {"tokenize", "no-bos", NULL, "$K tokenize @ Once", "!<s>"},
    {"logits", "out", "$H/l.f32", "$K logits -b cpu -p Once @; wc -c <$H/l.f32; rm -f $H/l.f32", "32768"},
    {"template", "prompt", "hi you", "echo '[]' | $K template --template $H/t.jinja @", "[user] hi you"},
    {"template", "file", "$H/talk.json", "echo '[]' | $K template --template $H/t.jinja @", "[assistant] two"},
    {"template", "named", "tool_use", "$K template -m $H/vocab.gguf -p hi @", "with tools: hi"},
    {"template", "no-generation-prompt", NULL, "$K template --template $H/t.jinja -p hi @", "![assistant]"},
    {"template", "source", NULL, "$K template --template $H/t.jinja @ </dev/null", "{% for m"},
    {"template", "now", "1790000000", "$K template --template $H/now.jinja -p x @", "2026-09-21"},
    {"list", "models", "$H/models", "$K list @", "me/it"},
    {"convert", "base", "$M", "$K convert $H/peft $H/c.gguf @; $K info $H/c.gguf; rm -f $H/c.gguf", "blk.2.attn_output.weight.lora_b"},
    {"convert", "outtype", "f32", "$K convert $H/tiny.gguf $H/c.gguf @; $K info $H/c.gguf; rm -f $H/c.gguf", "!F16"},
    {"quantize", "imatrix", "$H/im.gguf", "$K quantize $H/tiny.gguf $H/q.gguf Q4_K_M @", "by their importance"},
    {"quantize", "output-type", "f16", "$K quantize $H/tiny.gguf $H/q.gguf Q4_K_M @", "F16     -> F16"},
    {"quantize", "embedding-type", "q8_0", "$K quantize $H/tiny.gguf $H/q.gguf Q4_K_M @", "-> Q8_0"},
    {"quantize", "tensor-type", "attn_q=q5_0", "$K quantize $H/tiny.gguf $H/q.gguf Q4_K_M @", "-> Q5_0"},
    {"quantize", "pure", NULL, "$K quantize $H/tiny.gguf $H/q.gguf Q4_K_M @", "!-> Q6_K"},
    {"quantize", "allow-requantize", NULL, "$K quantize $H/small.gguf $H/q.gguf Q5_0 @", "bytes of tensors ->"},
    {"imatrix", "file", "$H/long.txt", "$K imatrix -m $H/tiny.gguf -b cpu -t 1 @ --out $H/im3.gguf; ls $H/im3.gguf; rm -f $H/im3.gguf", "!No such file"},
    {"imatrix", "out", "$H/im4.gguf", "$K imatrix -m $H/tiny.gguf -b cpu -t 1 --file $H/long.txt @; ls $H/im4.gguf; rm -f $H/im4.gguf", "!No such file"},
    {"imatrix", "chunk", "32", "$K imatrix -m $H/tiny.gguf -b cpu -t 1 --file $H/long.txt --out $H/im5.gguf --chunks 2 @; $K info $H/im5.gguf | grep chunk", "~"},
    {"imatrix", "chunks", "1", "$K imatrix -m $H/tiny.gguf -b cpu -t 1 --file $H/long.txt --out $H/im5.gguf --chunk 32 @; $K info $H/im5.gguf | grep chunk", "~"},
    {"perplexity", "kl-base", "$H/small.gguf", PLX "@", "KL divergence"},
    {"perplexity", "ctx", "32", "$K perplexity -m $H/tiny.gguf -b cpu -t 1 --file $H/long.txt --chunks 2 @ --json", "\"ctx\": 32"},
    {"verify", "report", "$H/r.html", "$K verify -m $H/tiny.gguf -b cpu -t 1 -p a @ >/dev/null; head -c 15 $H/r.html; rm -f $H/r.html", "<!DOCTYPE html>"},
    {"verify", "base", "$H/tiny.gguf", "$K verify -m $H/small.gguf -b cpu -t 1 -p a @", "~"},
    {"embed", "pooling", "last", "$K embed -m $H/tiny.gguf -b cpu -t 1 -p ab @", "~"},
    {"split", "max-size", "500K", "$K split $H/tiny.gguf $H/sp @; rm -f $H/sp-*", "8 files"},
    {"split", "max-tensors", "10", "$K split $H/tiny.gguf $H/sp @; rm -f $H/sp-*", "3 files"},
    {"devices", "check", NULL, "OCL_ICD_VENDORS=/nowhere $K devices --check", "without -b:"},
    /* ---- measuring speed: one run for all */
    {"bench", "shape", NULL, BENCH, "\"model\": \"tiny\""},
    {"bench", "prompt", NULL, BENCH, "\"prompt\": 4,"},
    {"bench", "generate", NULL, BENCH, "\"generate\": 2,"},
    {"bench", "context", NULL, BENCH, "\"context\": 5,"},
    {"bench", "runs", NULL, BENCH, "\"runs\": 1,"},
    {"bench", "verify", NULL, BENCH, "\"logits_bound\": 0."},
    {"bench", "plot", NULL, BENCH, "<svg"},
    {"bench", "type", "q8_0", "$K bench --shape tiny --out $H/n.gguf @; $K info $H/n.gguf; rm -f $H/n.gguf", "Q8_0"},
    {"bench", "out", NULL, "$K bench --shape tiny --type q8_0 --out $H/n.gguf; $K info $H/n.gguf; rm -f $H/n.gguf", "GGUF v3"},
    {"bench", "csv", NULL, "$K bench -b cpu -t 1 --shape tiny --prompt 4 --generate 2 --runs 1 --csv", "model,type,backend"},
    /* ---- downloads: $D begins with a server, $L is what it was asked */
    {"download", "output-dir", "$H/here", ". $D; $K download own/it @", "/here/it-Q4_0.gguf"},
    {"download", "quantization", "q8_0", ". $D; $K download own/it --output-dir $H/here @", "it-Q8_0.gguf"},
    {"download", "format", "safetensors", ". $D; $K download own/it --output-dir $H/here @", "safetensors"},
    {"download", "force", NULL, ". $D; $K download own/it --output-dir $H/here; : >$L; $K download own/it --output-dir $H/here @; cat $L", "GET /own/it/resolve/main/it-Q4_0.gguf"},
    {"download", "chat", NULL, ". $D; KAGARI_BACKEND=cpu $K download own/story --output-dir $H/here @", "You> "},
    {"download", "token", "hf_word", ". $D; : >$L; $K download own/it --force --output-dir $H/here @; cat $L", "Bearer hf_word"},
};

/* What is typed at the keyboard of some of them, when `after` has come. */
static const struct keys {
    const char *option, *typed, *after;
} all_keys[] = {
    {"tui", "/exit\r", "leaves"}, {"chat", "/exit\n", "You> "}, {"history-file", "Once\n/exit\n", "You> "}, {"max-history", "one\ntwo\n/exit\n", "You> "}, {"", NULL, NULL},
};
static const struct keys *keys_of(const char *option)
{
    const struct keys *k = all_keys;
    while (*k->option && strcmp(k->option, option) != 0) k++;
    return k;
}

/* ---- running a line ------------------------------------------------------------------------------------------------- */

struct run {
    const struct keys *keys;
    char *line, *text; /* what came, without carriage returns and space at its end */
};
static struct run runs[512];
static size_t n_runs;

static char *run(const char *line, const struct keys *keys)
{
    const char *typed = keys ? keys->typed : NULL;
    for (size_t i = 0; i < n_runs; i++)
        if (strcmp(runs[i].line, line) == 0 && runs[i].keys == keys) return runs[i].text;
    struct winsize size = {.ws_row = 24, .ws_col = 200};
    struct terminal t = {0};
    t.pid = forkpty(&t.fd, NULL, NULL, &size);
    assert_true(t.pid >= 0);
    if (t.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    fcntl(t.fd, F_SETFD, FD_CLOEXEC);
    long start = now_ms(), end = start + 60000;
    bool open = true;
    while (open && now_ms() < end) {
        if (typed && t.text && strstr(t.text, keys->after)) type(&t, typed), typed = NULL;
        open = receive(&t, 50);
    }
    if (open) fail_msg("%s: does not end; so far: %s", line, t.text ? t.text : "");
    waitpid(t.pid, NULL, 0);
    close(t.fd);
    size_t n = 0;
    char *text = t.text ? t.text : calloc(1, 1);
    for (size_t i = 0; i < t.n; i++)
        if (text[i] != '\r') text[n++] = text[i];
    while (n && isspace((unsigned char)text[n - 1])) n--;
    text[n] = 0;
    assert_true(n_runs < COUNT(runs));
    if (now_ms() - start > 1500) print_message("%.1f s: %s\n", (double)(now_ms() - start) / 1000, line);
    runs[n_runs++] = (struct run){keys, strdup(line), text};
    return text;
}

/* The line with words in the place of @. */
static void fill(char out[4096], const char *line, const char *words, const char *before)
{
    const char *at = strchr(line, '@');
    char rest[4096];
    size_t n = (size_t)snprintf(out, 4096, "%s%.*s", before, at ? (int)(at - line) : (int)strlen(line), line);
    if (!at) return;
    fill(rest, at + 1, words, "");
    snprintf(out + n, 4096 - n, "%s%s", words, rest);
}

/* What is wrong with what came; NULL: nothing. */
static const char *judge(const struct demo *d, const char *with, const char *without)
{
    const char *e = d->expect;
    if (e[0] == '!') return strstr(with, e + 1) ? "it is there all the same" : !strstr(without, e + 1) ? "it is not there without the option either" : NULL;
    if (e[0] == '~') return strcmp(with, without) == 0 ? "what comes is the same without the option" : NULL;
    if (e[0] == '=') {
        char line[4096];
        fill(line, e + 1, "", "");
        const char *same = run(line, NULL);
        return strcmp(with, same) != 0 ? "what comes is not that of the other line" : strcmp(with, without) == 0 ? "what comes is the same without the option" : NULL;
    }
    return !strstr(with, e) ? "it is not there" : strchr(d->line, '@') && strstr(without, e) ? "it is there without the option too" : NULL;
}

static size_t n_wrong;

static void check(const struct demo *d, const char *words, const char *before, const char *how)
{
    char line[4096], plain[4096];
    fill(line, d->line, words, before);
    fill(plain, d->line, "", "");
    bool twice = strchr(d->line, '@') != NULL;
    const char *without = twice ? run(plain, keys_of(d->option)) : "", *with = run(line, keys_of(d->option)), *wrong = judge(d, with, without);
    if (wrong) n_wrong++, print_error("--%s by %s: '%s': %s\n$ %s\n%s\n---- without: ----\n%s\n\n", d->option, how, d->expect, wrong, line, with, without);
}

/* ---- what there is --------------------------------------------------------------------------------------------------- */

/* An option as `kagari help` lists it; commands that share a row of the table have the same line. */
struct option_row {
    char name[64], *line, command[32]; /* the first command that has it */
    bool shown;
};
static struct option_row rows[512];
static size_t n_rows;

static struct option_row *find_row(const char *name, const char *line)
{
    for (size_t i = 0; i < n_rows; i++)
        if (strcmp(rows[i].name, name) == 0 && strcmp(rows[i].line, line) == 0) return &rows[i];
    return NULL;
}

/* The next option in the help of a command: its name, and the rest of its line. */
static bool next_option(char **at, char name[64], char **rest)
{
    for (char *line; (line = *at) != NULL && *line;) {
        char *end = strchr(line, '\n');
        if (end) *end = 0;
        *at = end ? end + 1 : NULL;
        if (strncmp(line, "  -", 3) != 0 && strncmp(line, "      --", 8) != 0) continue;
        line = strstr(line, "--");
        size_t n = strcspn(line + 2, " ");
        snprintf(name, 64, "%.*s", (int)n, line + 2);
        *rest = line + 2 + n;
        return true;
    }
    return false;
}

static char *help_of(const char *command)
{
    char line[128];
    snprintf(line, sizeof line, "$K help %s", command);
    return strdup(run(line, NULL));
}

static void collect(const char *command)
{
    char *help = help_of(command), *at = help, name[64], *rest;
    while (next_option(&at, name, &rest)) {
        if (find_row(name, rest)) continue;
        assert_true(n_rows < COUNT(rows));
        struct option_row *r = &rows[n_rows++];
        *r = (struct option_row){.line = strdup(rest)};
        snprintf(r->name, sizeof r->name, "%s", name);
        snprintf(r->command, sizeof r->command, "%s", command);
    }
    free(help);
}

/* The row that a demonstration is about. */
static struct option_row *row_of(const struct demo *d)
{
    char *help = help_of(d->command), *at = help, name[64], *rest;
    struct option_row *r = NULL;
    while (!r && next_option(&at, name, &rest))
        if (strcmp(name, d->option) == 0) r = find_row(name, rest);
    free(help);
    return r;
}

/* As key of the configuration file, if it is a setting: writes such a file. As variable: *variable is "NAME='value' " or empty. */
static bool setting_of(const struct demo *d, const struct option_row *r, const char *words, char variable[512])
{
    char line[1024], *text, *at, *comment, section[64] = "";
    const char *env = strrchr(r->line, '[');
    variable[0] = 0;
    if (env && env[1] == '$') snprintf(variable, 512, "%.*s='%s' ", (int)strcspn(env + 2, "]"), env + 2, d->value ? d->value : "1");
    snprintf(line, sizeof line, "$K help config");
    if (!strstr(run(line, NULL), r->line)) return false;
    snprintf(line, sizeof line, "$K config %s", words);
    text = strdup(run(line, NULL));
    for (at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        char *end = strchr(at, '\n');
        if (*at == '[') snprintf(section, sizeof section, "%.*s", (int)strcspn(at, "\n"), at);
        comment = strstr(at, "  # command line: ");
        if (!comment || (end && comment > end)) continue;
        char content[1024];
        snprintf(content, sizeof content, "%s\n%.*s\n", section, (int)(comment - at), at);
        snprintf(line, sizeof line, "%.60s.toml", d->option);
        write_file(in_home(line), content);
        free(text);
        return true;
    }
    free(text);
    return false;
}

static void test_options(void **state)
{
    (void)state;
    char *help = help_of("");
    bool no_download = system("$K download x/y --output-dir /nowhere 2>&1 | grep -q 'built without'") == 0;
    collect("");
    for (char *at = strstr(help, "Commands:\n") + 10; *at == ' '; at = strchr(at, '\n') + 1) {
        char command[32];
        if (sscanf(at, " %31s", command) == 1) collect(command);
    }
    size_t n_settings = 0;
    for (size_t i = 0; i < COUNT(demos); i++) {
        const struct demo *d = &demos[i];
        char words[512], variable[512], before[600];
        struct option_row *r = row_of(d);
        if (!r) fail_msg("kagari %s has no option --%s any more", d->command, d->option);
#ifndef HAS_SCREEN
        if (strcmp(d->option, "tui") == 0) {
            r->shown = true;
            continue;
        }
#endif
        if (no_download && strcmp(d->command, "download") == 0) {
            r->shown = true;
            continue;
        }
        if (d->value) snprintf(words, sizeof words, "--%s %s%s%s", d->option, d->value[0] == '$' ? "\"" : "'", d->value, d->value[0] == '$' ? "\"" : "'");
        else snprintf(words, sizeof words, "--%s", d->option);
        check(d, words, "", "option");
        r->shown = true;
        if (!strchr(d->line, '@') || strcmp(d->option, "help") == 0 || strcmp(d->option, "version") == 0 || strcmp(d->option, "config") == 0) continue;
        if (setting_of(d, r, words, variable)) {
            n_settings++;
            snprintf(before, sizeof before, "unset %.*s; export KAGARI_CONFIG=$H/%s.toml; ", variable[0] ? (int)strcspn(variable, "=") : 1, variable[0] ? variable : "_", d->option);
            check(d, "", before, "key");
        }
        if (variable[0]) {
            for (char *q = variable; d->value && d->value[0] == '$' && *q; q++)
                if (*q == '\'') *q = '"';
            snprintf(before, sizeof before, "export %s; ", variable);
            check(d, "", before, "variable");
        }
    }
    size_t n_missing = 0;
    for (size_t i = 0; i < n_rows; i++)
        if (!rows[i].shown) n_missing++, print_message("not demonstrated: kagari %s --%s\n", rows[i].command, rows[i].name);
    assert_int_equal(n_missing + n_wrong, 0);
    print_message("%zu options in %zu demonstrations, %zu of them settings; %zu lines were run\n", n_rows, COUNT(demos), n_settings, n_runs);
    free(help);
}

/* ---- files that lines use --------------------------------------------------------------------------------------------- */

static void write_adapter(void)
{
    struct file *f;
    struct gw w = {0};
    uint32_t noise = 1;
    assert_int_equal(file_open(&f, MODEL), KG_OK);
    gw_str(&w, "general.type", "adapter");
    gw_str(&w, "general.architecture", "llama");
    gw_str(&w, "adapter.type", "lora");
    gw_f32(&w, "adapter.lora.alpha", 8);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        if (strcmp(t->name, "blk.0.attn_q.weight") != 0) continue;
        size_t n = (size_t)(t->ne[0] + t->ne[1]);
        float *v = malloc(n * sizeof *v);
        for (size_t k = 0; k < n; k++) v[k] = (float)(int32_t)(noise = noise * 1664525u + 1013904223u) * 0x1p-31f;
        gw_tensor(&w, "blk.0.attn_q.weight.lora_a", 0, 2, (int64_t[]){t->ne[0], 1}, v, (size_t)t->ne[0] * 4);
        gw_tensor(&w, "blk.0.attn_q.weight.lora_b", 0, 2, (int64_t[]){1, t->ne[1]}, v + t->ne[0], (size_t)t->ne[1] * 4);
        free(v);
    }
    gw_save(&w, in_home("adapter.gguf"));
    file_close(&f);
}

/* Only a vocabulary, with two templates. */
static void write_vocab(void)
{
    static const char *const words[] = {"<unk>", "<s>", "</s>", "a", "b"};
    struct gw w = {0};
    gw_str(&w, "general.architecture", "llama");
    gw_str(&w, "tokenizer.ggml.model", "llama");
    gw_arr_head(&w, "tokenizer.ggml.tokens", GW_STR, COUNT(words));
    for (size_t i = 0; i < COUNT(words); i++) gw_put_str(&w.metas, words[i], strlen(words[i]));
    gw_arr(&w, "tokenizer.ggml.scores", GW_F32, (float[]){0, 0, 0, -1, -2}, 5, 4);
    gw_arr(&w, "tokenizer.ggml.token_type", GW_I32, (int32_t[]){2, 3, 3, 1, 1}, 5, 4);
    gw_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gw_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    gw_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    gw_str(&w, "tokenizer.chat_template", "plain: {{ messages[0].content }}");
    gw_str(&w, "tokenizer.chat_template.tool_use", "with tools: {{ messages[0].content }}");
    gw_save(&w, in_home("vocab.gguf"));
}

/* A server on this machine that has one model; files as in test_download.sh. */
static void write_server(void)
{
#ifdef HTTP_SERVER
    setenv("S", HTTP_SERVER, 1);
    setenv("D", in_home("serve.sh"), 1);
    write_file(in_home("serve.sh"), "rm -f $H/port; $S $H/web $H/log $H/port & server=$!\ntrap 'kill $server' EXIT\n"
                                    "while ! [ -s $H/port ]; do sleep 0.02; done\nexport HF_ENDPOINT=http://127.0.0.1:$(cat $H/port) L=$H/log\n");
    write_file(in_home("repo.sh"), "mkdir -p $H/web/own/it/resolve/main $H/web/api/models/own/it/tree; tree=$H/web/api/models/own/it/tree/main; between=[; : >$H/log\n"
                                   "for f in it-Q8_0.gguf it-Q4_0.gguf config.json tokenizer.json model.safetensors; do at=$H/web/own/it/resolve/main/$f\n"
                                   "{ head -c 5000 $M; echo $f; } >$at; sum=$(sha256sum $at | cut -c1-64)\n"
                                   "printf '%s{\"type\":\"file\",\"oid\":\"0\",\"size\":%d,\"path\":\"%s\",\"lfs\":{\"oid\":\"%s\",\"size\":%d,\"pointerSize\":1}}' "
                                   "$between $(stat -c %s $at) $f $sum $(stat -c %s $at) >>$tree; between=,; done; printf ']' >>$tree\n");
    write_file(in_home("story.sh"), "mkdir -p $H/web/own/story/resolve/main $H/web/api/models/own/story/tree; ln -s $M $H/web/own/story/resolve/main/story.gguf; n=$(stat -L -c %s $M)\n"
                                    "printf '[{\"type\":\"file\",\"oid\":\"0\",\"size\":%d,\"path\":\"story.gguf\",\"lfs\":{\"oid\":\"%s\",\"size\":%d,\"pointerSize\":1}}]' "
                                    "$n $(sha256sum $M | cut -c1-64) $n >$H/web/api/models/own/story/tree/main\n");
    assert_int_equal(system("sh $H/repo.sh && sh $H/story.sh"), 0);
#endif
}

static int make_files(void **state)
{
    if (make_home(state)) return -1;
    static const char *const unset[] = {"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "OLLAMA_MODELS", "HF_TOKEN", "NO_COLOR"};
    for (size_t i = 0; i < COUNT(unset); i++) unsetenv(unset[i]);
    setenv("HOME", home, 1);
    setenv("H", home, 1);
    setenv("K", KAGARI, 1);
    setenv("M", MODEL, 1);
    setenv("KAGARI_MODEL", MODEL, 1);
    setenv("KAGARI_CONFIG", "/dev/null", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
    setenv("TERM", "xterm-256color", 1);
    char text[8192] = "";
    for (int i = 0; i < 60; i++) strcat(text, "The fox ran to the old tree and saw a bird. ");
    write_file(in_home("long.txt"), text);
    write_file(in_home("once.txt"), "Once\n");
    write_file(in_home("two.toml"), "[generation]\nmax_tokens = 2\n");
    write_file(in_home("talk.json"), "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", \"content\": \"two\"}, {\"role\": \"user\", \"content\": \"three\"}]}");
    write_file(in_home("t.jinja"), "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}");
    write_file(in_home("think.jinja"), "{{ messages[0].content }}<think>");
    write_file(in_home("counts.jinja"), "{{ messages[0].content }} {{ x }} {{ tools|length if tools }}{{ 'The fox' if x or tools }}");
    write_file(in_home("tools.json"), "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]");
    write_file(in_home("now.jinja"), "{{ strftime_now('%Y-%m-%d') }}");
    write_adapter();
    write_adapter_folder(in_home("peft"));
    write_vocab();
    write_server();
    return system("cd $H && ln -s $M other.gguf && mkdir -p models/hf/me/it && ln -s $M models/hf/me/it/it.gguf && $K bench --shape tiny --type f16 --out tiny.gguf && "
                  "$K quantize tiny.gguf small.gguf Q4_K_M >quantize.log && $K imatrix -m tiny.gguf -b cpu --file long.txt --out im.gguf 2>imatrix.log && "
                  "$K -b cpu -p 'Once upon' -n 1 --save-cache kept >kept.log");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_options)};
    return cmocka_run_group_tests(tests, make_files, remove_home);
}
