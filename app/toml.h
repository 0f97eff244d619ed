/* TOML 1.0 as configuration files need it: tables, dotted and quoted keys, all strings, integers, floats, booleans, arrays of such.
 * What no setting could take (dates, inline tables, arrays of tables or of arrays) is an error that says so. Knows no keys. */
#ifndef APP_TOML_H
#define APP_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum toml_kind { TOML_STRING, TOML_INTEGER, TOML_FLOAT, TOML_BOOLEAN };

struct toml_item {
    enum toml_kind kind;
    char *text; /* decoded; integers in decimal, floats without '_', "true" or "false" */
};
struct toml_value {
    char *key; /* "table.key" */
    int line;
    bool is_array;
    struct toml_item *items; /* [n_items]; exactly one if it is no array */
    size_t n_items;
};
struct toml {
    struct toml_value *values; /* [n_values], in the order of the file */
    size_t n_values;
};

enum { TOML_MOST_BYTES = 1 << 20, TOML_MOST_VALUES = 4096, TOML_MOST_KEY = 255 };

/* text[len] must be 0. True, or false with the line and what is wrong there in error; *out is empty then. */
bool toml_parse(struct toml *out, const char *text, size_t len, int *line, char error[static 160]);
void toml_free(struct toml *t);
/* A string as TOML writes it, with its quotes. */
void toml_write_string(FILE *out, const char *text);

#endif
