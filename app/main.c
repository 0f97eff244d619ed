/* kagari, the program: chooses the command, and sees to it that output that could not be written is an error. Uses nothing of
 * the library but kagari.h. */
#include "commands.h"

#include "describe.h"
#include "print.h"

#include "kagari.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

const struct command commands[N_COMMANDS] = {
#define COMMAND(id, name, arg, function, summary) {name, id, arg, summary, function},
#include "commands.def"
#undef COMMAND
};

int command_help(const struct settings *s)
{
    static void (*const completions[])(FILE *) = {describe_bash, describe_zsh, describe_fish}; /* in the order of options.def */
    if (s->man && s->given[OPT_completions]) return print_error(EXIT_USAGE, "--man and --completions are both given");
    if (s->arg && (s->man || s->given[OPT_completions])) return print_error(EXIT_USAGE, "--man and --completions describe all commands, not one");
    if (s->man) describe_man(stdout);
    if (s->given[OPT_completions]) completions[s->completions](stdout);
    if (s->man || s->given[OPT_completions]) return 0;
    const struct command *c = options_command(s->arg ? s->arg : "");
    if (!c) return print_error(EXIT_USAGE, "unknown command '%s'; the nearest is '%s'", s->arg, options_nearest_command(s->arg));
    options_help(c, stdout);
    return 0;
}

/* A standard stream that the caller closed must not become the descriptor of a model file: reads and writes of it fail instead. */
static void occupy_standard_streams(void)
{
    int fd;
    do fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO) close(fd);
}

static int run(const struct settings *s)
{
    if (s->help) {
        options_help(s->command, stdout);
        return 0;
    }
    if (s->version) {
        printf("kagari %s\n", kg_version());
        return 0;
    }
    return s->command->run(s);
}

int main(int argc, char **argv)
{
    occupy_standard_streams();
    struct settings s;
    int code = options_parse(&s, argc, argv);
    print_setup((enum level)s.log_level, !s.no_color);
    if (s.config_read) print_note(LEVEL_DEBUG, "settings from %s", s.config_path);
    if (!code) {
        code = run(&s);
        errno = 0;
        if ((fflush(stdout) != 0 || ferror(stdout)) && !code)
            code = print_error(EXIT_RUNTIME, "cannot write to standard output: %s", errno ? strerror(errno) : "an earlier write failed");
    }
    options_free(&s);
    return code;
}
