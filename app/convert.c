/* The command that makes a GGUF of a Hugging Face folder, model or adapter. */
#include "commands.h"

#include "print.h"

#include "kagari.h"

int command_convert(const struct settings *s)
{
    static const char *const types[] = {"auto", "f32", "f16", "bf16"}; /* in the order of options.def */
    if (s->n_args != 2) return print_error(EXIT_USAGE, "kagari convert needs two arguments: the folder, and the file to write");
    if ((s->adapted ? kg_convert_adapter(s->args[0], s->adapted, s->args[1], types[s->outtype]) : kg_convert(s->args[0], s->args[1], types[s->outtype])) != KG_OK) return print_error(EXIT_RUNTIME, "%s", kg_error_message());
    return 0;
}
