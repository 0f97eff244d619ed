/* The program described for other programs, from the tables of commands and options: the manual page, completion in bash. */
#include "describe.h"

#include "option_table.h"

#include <string.h>

/* ---- manual page (man(7)) -------------------------------------------------------------------------------- */

/* Characters that roff would read as its own. A dash is typed as a dash, not a hyphen. */
static void roff(const char *text, FILE *out)
{
    if (*text == '.' || *text == '\'') fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\') fputs("\\e", out);
        else if (*text == '-') fputs("\\-", out);
        else fputc(*text, out);
    }
}

static void man_option(const struct option *o, FILE *out)
{
    fputs(".TP\n.B ", out);
    if (o->letter) fprintf(out, "\\-%c, ", o->letter);
    fputs("\\-\\-", out);
    roff(o->name, out);
    if (o->arg) fputs(" ", out), roff(o->arg, out);
    fputc('\n', out);
    roff(o->help, out);
    if (o->fallback) fputs(" [", out), roff(o->fallback, out), fputc(']', out);
    fputc('\n', out);
}

void describe_man(FILE *out)
{
    fprintf(out, ".TH KAGARI 1 \"\" \"kagari %s\"\n.SH NAME\nkagari \\- runs large language models\n", kg_version());
    fputs(".SH SYNOPSIS\n.B kagari\n[options]\n.br\n.B kagari\ncommand [options]\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        fprintf(out, ".SH \"KAGARI%s%s\"\n", c->name[0] ? " " : "", c->name);
        if (c->arg) fputs("Arguments: ", out), roff(c->arg, out), fputs(".\n.PP\n", out);
        roff(c->help, out);
        fputc('\n', out);
        for (size_t k = 0; k < OPT_N; k++)
            if (option_used_by(&option_table[k], c)) man_option(&option_table[k], out);
    }
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong command line, 130 interrupted.\n", out);
}

/* ---- bash ---------------------------------------------------------------------------------------------------- */

static void bash_names(const struct option *o, const char *between, FILE *out)
{
    if (o->letter) fprintf(out, "-%c%s", o->letter, between);
    fprintf(out, "--%s", o->name);
}

/* One command: its options, and what may follow those that take a value. */
static void bash_command(const struct command *c, FILE *out)
{
    fprintf(out, "    '%s')\n        options='", c->name);
    for (size_t i = 0; i < OPT_N; i++)
        if (option_used_by(&option_table[i], c)) bash_names(&option_table[i], " ", out), fputc(' ', out);
    fputs("'\n        case $before in\n", out);
    for (size_t i = 0; i < OPT_N; i++) {
        const struct option *o = &option_table[i];
        if (!option_used_by(o, c) || o->kind == KIND_FLAG) continue;
        fputs("        ", out);
        bash_names(o, "|", out);
        if (o->kind == KIND_CHOICE) {
            fputs(") follows='", out);
            for (const char *p = o->arg; *p; p++) fputc(*p == '|' ? ' ' : *p, out);
            fputs("' ;;\n", out);
        } else {
            fputs(strcmp(o->arg, "FILE") == 0 ? ") follows=FILE ;;\n" : ") return ;;\n", out);
        }
    }
    fputs("        esac ;;\n", out);
}

void describe_bash(FILE *out)
{
    fputs("# bash completion for kagari: eval \"$(kagari help --completions bash)\"\n_kagari()\n{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= commands options= follows= i\n    commands='",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (commands[i].name[0]) fprintf(out, "%s ", commands[i].name);
    fputs("'\n    COMPREPLY=()\n    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        [[ \" $commands\" == *\" ${COMP_WORDS[i]} \"* ]] && { command=${COMP_WORDS[i]}; break; }\n    done\n    case $command in\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) bash_command(&commands[i], out);
    fputs("    esac\n"
          "    if [[ -z $follows && $word == -* ]]; then follows=$options\n"
          "    elif [[ -z $follows && -z $command ]]; then follows=$commands; fi\n"
          "    if [[ -n $follows && $follows != FILE ]]; then mapfile -t COMPREPLY < <(compgen -W \"$follows\" -- \"$word\")\n"
          "    else compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); fi\n"
          "}\ncomplete -F _kagari kagari\n",
          out);
}
