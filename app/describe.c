/* The program described for other programs, from the tables of commands and options: the manual page, completion in bash, zsh and fish. */
#include "describe.h"

#include "option_table.h"

#include <string.h>

static bool is_path(const struct option *o) { return o->arg && (strcmp(o->arg, "FILE") == 0 || strcmp(o->arg, "DIR") == 0); }

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

/* The configuration file and the environment. */
static void man_settings(FILE *out)
{
    fputs(".SH CONFIGURATION\nDefaults, the configuration file, the environment, the command line: later ones win. The file is TOML:\n"
          ".I $XDG_CONFIG_HOME/kagari/config.toml\nor\n.I ~/.config/kagari/config.toml\n(or what\n.B \\-\\-config\nor\n.B KAGARI_CONFIG\nname). Its keys, and variables:\n",
          out);
    for (size_t k = 0; k < OPT_N; k++) {
        const struct option *o = &option_table[k];
        if (!o->key && !o->env) continue;
        fputs(".TP\n.B ", out);
        if (o->key) roff(o->key + (o->key[0] == '!'), out);
        if (o->key && o->env) fputs(", ", out);
        if (o->env) roff(o->env, out);
        fputs(o->key && o->key[0] == '!' ? "\nthe opposite of " : "\nas ", out);
        fputs("\\-\\-", out), roff(o->name, out), fputc('\n', out);
    }
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
    man_settings(out);
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
            fputs(is_path(o) ? ") follows=FILE ;;\n" : ") return ;;\n", out);
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

/* ---- zsh ------------------------------------------------------------------------------------------------------ */

/* Within '...': what zsh or _arguments would read as its own. */
static void zsh_text(const char *text, const char *special, FILE *out)
{
    for (; *text; text++) {
        if (*text == '\'') {
            fputs("'\\''", out);
            continue;
        }
        if (strchr(special, *text)) fputc('\\', out);
        fputc(*text, out);
    }
}

static void zsh_option(const struct option *o, FILE *out)
{
    bool many = o->kind == KIND_TEXTS, value = o->kind != KIND_FLAG;
    fputs("            ", out);
    if (many) fputs("'*'", out);
    else if (o->letter) fprintf(out, "'(-%c --%s)'", o->letter, o->name);
    if (o->letter) fprintf(out, "{-%c%s,--%s%s}", o->letter, value ? "+" : "", o->name, value ? "=" : "");
    else fprintf(out, "--%s%s", o->name, value ? "=" : "");
    fputs("'[", out);
    zsh_text(o->help, "[]\\", out);
    fputc(']', out);
    if (value) {
        fputc(':', out);
        zsh_text(o->arg, ":\\", out);
        fputc(':', out);
        if (o->kind == KIND_CHOICE) {
            fputc('(', out);
            for (const char *p = o->arg; *p; p++) fputc(*p == '|' ? ' ' : *p, out);
            fputc(')', out);
        } else {
            fputs(!is_path(o) ? " " : strcmp(o->arg, "DIR") == 0 ? "_files -/" : "_files", out);
        }
    }
    fputs("' \\\n", out);
}

void describe_zsh(FILE *out)
{
    fputs("#compdef kagari\n# zsh completion for kagari: kagari help --completions zsh >a folder of $fpath/_kagari\n_kagari()\n{\n"
          "    local -a commands\n    local command= state i\n    commands=(\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (!commands[i].name[0]) continue;
        fprintf(out, "        '%s:", commands[i].name);
        zsh_text(commands[i].help, "\\", out);
        fputs("'\n", out);
    }
    fputs("    )\n    for ((i = 2; i < CURRENT; i++)); do\n"
          "        (( ${commands[(I)${words[i]}:*]} )) && { command=${words[i]}; break; }\n    done\n    case $command in\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        fprintf(out, "    '%s')\n        _arguments -s -S \\\n", c->name);
        for (size_t k = 0; k < OPT_N; k++)
            if (option_used_by(&option_table[k], c)) zsh_option(&option_table[k], out);
        fputs(c->name[0] ? "            '*: :_files' ;;\n" : "            '1: :->command'\n        [[ $state == command ]] && _describe command commands ;;\n", out);
    }
    fputs("    esac\n}\n[[ $funcstack[1] == _kagari ]] && _kagari \"$@\" || compdef _kagari kagari\n", out);
}

/* ---- fish ----------------------------------------------------------------------------------------------------- */

static void fish_text(const char *text, FILE *out)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') fputc('\\', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void fish_option(const struct command *c, const struct option *o, FILE *out)
{
    fprintf(out, "complete -c kagari -n '%s%s' -l %s", c->name[0] ? "__fish_seen_subcommand_from " : "__kagari_no_command", c->name, o->name);
    if (o->letter) fprintf(out, " -s %c", o->letter);
    if (o->kind == KIND_CHOICE) {
        fputs(" -x -a '", out);
        for (const char *p = o->arg; *p; p++) fputc(*p == '|' ? ' ' : *p, out);
        fputc('\'', out);
    } else if (o->kind != KIND_FLAG) {
        fputs(is_path(o) ? " -r -F" : " -x", out);
    }
    fputs(" -d ", out);
    fish_text(o->help, out);
    fputc('\n', out);
}

void describe_fish(FILE *out)
{
    fputs("# fish completion for kagari: kagari help --completions fish >~/.config/fish/completions/kagari.fish\nfunction __kagari_no_command\n"
          "    not __fish_seen_subcommand_from",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "%s%s", commands[i].name[0] ? " " : "", commands[i].name);
    fputs("\nend\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *c = &commands[i];
        if (c->name[0]) {
            fprintf(out, "complete -c kagari -f -n __kagari_no_command -a %s -d ", c->name);
            fish_text(c->help, out);
            fputc('\n', out);
        }
        for (size_t k = 0; k < OPT_N; k++)
            if (option_used_by(&option_table[k], c)) fish_option(c, &option_table[k], out);
    }
}
