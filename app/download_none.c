/* Stands for download.c where libcurl or libcrypto are missing when the program is built. */
#include "commands.h"
#include "print.h"

int command_download(const struct settings *s)
{
    (void)s;
    return print_error(EXIT_RUNTIME, "this program was built without libcurl or libcrypto (Debian: libcurl4-openssl-dev, libssl-dev), so it cannot download");
}
