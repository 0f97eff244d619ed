/* The commands: each returns the exit code and has printed what went wrong. */
#ifndef APP_COMMANDS_H
#define APP_COMMANDS_H

#include "options.h"

int command_generate(const struct settings *s);
int command_info(const struct settings *s);
int command_tokenize(const struct settings *s);
int command_template(const struct settings *s);
int command_logits(const struct settings *s);
int command_verify(const struct settings *s);
int command_bench(const struct settings *s);
int command_quantize(const struct settings *s);
int command_split(const struct settings *s);
int command_imatrix(const struct settings *s);
int command_embed(const struct settings *s);
int command_merge(const struct settings *s);
int command_convert(const struct settings *s);
int command_backends(const struct settings *s);
int command_devices(const struct settings *s);
int command_list(const struct settings *s);
int command_download(const struct settings *s);
int command_config(const struct settings *s);
int command_help(const struct settings *s);

#endif
