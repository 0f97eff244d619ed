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

const struct command commands[] = {
    {"", GENERATE, NULL, "continues a prompt: prints the text that follows it", command_generate},
    {"info", INFO, "FILE", "what is in a model file: metadata, tensors, bytes by type", command_info},
    {"tokenize", TOKENIZE, "[TEXT]", "turns text (standard input if not given) into tokens", command_tokenize},
    {"template", TEMPLATE, NULL, "prints a conversation as the model's chat template renders it", command_template},
    {"logits", LOGITS, NULL, "writes the raw logits after a prompt to a file: float32, of the reference backend float64", command_logits},
    {"verify", VERIFY, NULL, "measures a backend against the float64 reference; fails beyond its error bound", command_verify},
    {"bench", BENCH, NULL, "measures prompt and generation speed beside what this machine can do at most", command_bench},
    {"quantize", QUANTIZE, "IN OUT TYPE", "writes a model file with smaller tensor types: Q4_K_M, Q8_0, ... (any other word lists them)", command_quantize},
    {"imatrix", IMATRIX, NULL, "measures on a text how much each column of each matrix counts, for quantize --imatrix", command_imatrix},
    {"embed", EMBED, NULL, "prints the embedding of a text, of length 1, as JSON", command_embed},
    {"split", SPLIT, "IN PREFIX", "cuts a model file into PREFIX-00001-of-0000N.gguf and so on", command_split},
    {"merge", MERGE, "FIRST OUT", "makes one model file of those that split made", command_merge},
    {"convert", CONVERT, "IN OUT", "makes a GGUF of a Hugging Face folder: names, keys and order of rows as llama.cpp has them", command_convert},
    {"backends", BACKENDS, NULL, "lists what can compute in this build", command_backends},
    {"devices", DEVICES, NULL, "lists the GPUs and other devices of this machine, with memory, and why one cannot be used", command_devices},
    {"list", LIST, "[hf|ms|ollama]", "lists the models that -m takes by name: those of the models directory and of ollama's store", command_list},
    {"download", DOWNLOAD, "MODEL", "gets a model, whole and checked: hf:owner/repo[:QUANT], ms:owner/repo[:QUANT], ollama:name[:tag]", command_download},
    {"config", CONFIG, NULL, "prints the settings in effect and where each comes from, as a configuration file", command_config},
    {"help", HELP, "[COMMAND]", "this text, or the options of a command", command_help},
};
const size_t n_commands = sizeof commands / sizeof *commands;

int command_help(const struct settings *s)
{
    if (s->man && s->given[OPT_completions]) return print_error(EXIT_USAGE, "--man and --completions are both given");
    if (s->arg && (s->man || s->given[OPT_completions])) return print_error(EXIT_USAGE, "--man and --completions describe all commands, not one");
    if (s->man) describe_man(stdout);
    if (s->given[OPT_completions]) describe_bash(stdout);
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
