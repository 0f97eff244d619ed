/* The program described for other programs. */
#ifndef APP_DESCRIBE_H
#define APP_DESCRIBE_H

#include "kagari.h"
#include "options.h"

void describe_man(FILE *out);  /* a page for man(1) */
/* Scripts that complete commands, options and values. */
void describe_bash(FILE *out);
void describe_zsh(FILE *out);
void describe_fish(FILE *out);

#endif
