/* The configuration file and the environment: values of settings that the command line does not give. */
#ifndef APP_CONFIG_H
#define APP_CONFIG_H

#include "options.h"

/* Reads the configuration file (--config, $KAGARI_CONFIG, $XDG_CONFIG_HOME/kagari/config.toml or ~/.config/kagari/config.toml; only the
 * last two may be missing) and then the environment into *s. Returns 0 or an exit code after printing what is wrong. */
int config_apply(struct settings *s);
void config_free(struct settings *s);
/* The effective values as a configuration file, each with the place that it comes from. */
void config_print(const struct settings *s, FILE *out);
/* The same into a file, values that are defaults as comments, so that later versions may have better ones. path NULL: the file that was
 * read, or would have been. The file appears or is replaced when it is complete; folders are made. *written (may be NULL, free) is its path. */
int config_save(const struct settings *s, const char *path, char **written);

#endif
