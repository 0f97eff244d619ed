/* What the commands work on: which model file, which prompt, and the library's parameters from the settings. */
#ifndef APP_INPUT_H
#define APP_INPUT_H

#include "kagari.h"
#include "options.h"

/* Path of the model file: the option or argument, $KAGARI_MODEL, or the bundled model. Checks that it is there. Returns 0 or an
 * exit code after printing why; *path is valid until the next call. */
int input_model_path(const struct settings *s, const char **path);
/* Checks that this build has the backend, and opens the model with it. */
int input_open_model(const struct settings *s, kg_model **model, const char **path);
/* The path, malloc'ed, of another model file: that path, or a name in the models directory. */
int input_other_model(const struct settings *s, const char *name, char **path);
enum { INPUT_MOST_ADAPTERS = 16 };
/* "FILE" or "FILE=F": the length of FILE, and F, else 1. */
size_t input_adapter(const char *text, double *strength, bool *given);
int input_model_params(const struct settings *s, kg_model_params *params);

/* --load-cache (a file that is not there yet is fine if it is that of --save-cache too) and --save-cache, if they are given. */
int input_load_cache(const struct settings *s, kg_session *session);
int input_save_cache(const struct settings *s, kg_session *session);

/* All of standard input or of a file, malloc'ed, NUL-terminated. */
int input_read_file(const char *path, char **text, size_t *len);
int input_read_stdin(char **text, size_t *len);
/* A prompt as token ids. */
struct prompt {
    const int32_t *ids; /* [n], n >= 1 */
    size_t n;
    int32_t *owned; /* NULL if the ids are those of --tokens */
};
/* --tokens, or --prompt, or --file, or `fallback`, or (fallback NULL) standard input; file and standard input less one line end at the end. tok may be NULL with --tokens. */
int input_prompt(const struct settings *s, const kg_tokenizer *tok, const char *fallback, struct prompt *out);
void input_prompt_free(struct prompt *p);

#endif
