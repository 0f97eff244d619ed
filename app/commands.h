/* The commands: each returns the exit code and has printed what went wrong. */
#ifndef APP_COMMANDS_H
#define APP_COMMANDS_H

#include "options.h"

#define COMMAND(id, name, arg, function, summary) int function(const struct settings *s);
#include "commands.def"
#undef COMMAND

#endif
