/* The program described for other programs. */
#ifndef APP_DESCRIBE_H
#define APP_DESCRIBE_H

#include "kagari.h"
#include "options.h"

void describe_man(FILE *out);  /* a page for man(1) */
void describe_bash(FILE *out); /* a script for bash */

#endif
