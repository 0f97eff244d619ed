/* Models by name: the models directory, ollama's own store, and which of several files a name means. */
#ifndef APP_MODELS_H
#define APP_MODELS_H

#include "options.h"

enum model_source { SOURCE_HF, SOURCE_MS, SOURCE_OLLAMA, N_SOURCES };
extern const char *const model_sources[N_SOURCES]; /* "hf", "ms", "ollama" */

/* "hf:owner/repo[:QUANT]", "ms:owner/repo[:QUANT]", "ollama:[owner/]name[:tag]". */
struct model_id {
    enum model_source source;
    char owner[97], repo[97]; /* of ollama: "library" if none is given */
    char quant[65];           /* "": none; of ollama: the tag, "latest" if none is given */
};
/* Without a source: hf. False if it is not such a name; parts can be used as names of folders. */
bool model_id_parse(struct model_id *id, const char *text);

/* A model in a folder; names of files are relative to it. */
struct model_file {
    char *name;
    uint64_t bytes; /* of all shards */
};
struct model_files {
    struct model_file *v; /* [n] */
    size_t n;
};
bool model_files_add(struct model_files *f, const char *name, uint64_t bytes);
void model_files_free(struct model_files *f);

/* Which of the GGUF files is meant: the one of that quantization, or (quant "") the first of q4_k_m, q4_0, q5_k_m, q8_0, f16 that is
 * there, or the only one. -1 after writing why not. Shards after the first, projectors and importance matrices never are. */
long model_pick(const struct model_files *f, const char *quant, char *why, size_t size);
/* "name-00001-of-00003.gguf": number and count; false if it is no shard. */
bool model_shard(const char *name, unsigned *number, unsigned *count);

/* The models directory: --models, $KAGARI_MODELS, $XDG_DATA_HOME/kagari/models, ~/.local/share/kagari/models. NULL: there is no home. Free. */
char *models_folder(const struct settings *s);
/* What -m NAME means where no such file is. Returns 0 and *path (free), or NULL if nothing has that name; an exit code after an error. */
int models_find(const struct settings *s, const char *name, char **path);
/* Calls each with every model of a source (-1: of all) that -m takes by name: name[0..len). */
typedef void models_each(void *ctx, const char *name, size_t len, const char *path, uint64_t bytes);
void models_list(const struct settings *s, int source, models_each *each, void *ctx);

#endif
