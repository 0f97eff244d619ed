/* Owns the temporary file beside the one that is wanted. */
#include "outfile.h"

#include "options.h"
#include "print.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int outfile_open(struct outfile *o, const char *path)
{
    size_t size = strlen(path) + 40;
    struct stat st;
    *o = (struct outfile){.path = path};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) { /* a pipe or a terminal is written to, not replaced */
        o->f = fopen(path, "w");
        return o->f ? 0 : print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
    }
    o->temporary = malloc(size);
    if (!o->temporary) return print_error(EXIT_RUNTIME, "out of memory");
    snprintf(o->temporary, size, "%s.%ld.part", path, (long)getpid());
    int fd = open(o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 && (o->f = fdopen(fd, "w"))) return 0;
    int why = errno;
    if (fd >= 0) {
        close(fd);
        unlink(o->temporary);
    }
    free(o->temporary);
    *o = (struct outfile){0};
    return print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(why));
}

int outfile_close(struct outfile *o, int code)
{
    if (!o->f) return code;
    errno = 0;
    bool bad = fflush(o->f) != 0 || ferror(o->f) || (o->temporary && fsync(fileno(o->f)) != 0);
    int why = errno;
    if (fclose(o->f) != 0 && !bad) {
        bad = true;
        why = errno;
    }
    if (o->temporary && !code && !bad && rename(o->temporary, o->path) != 0) {
        bad = true;
        why = errno;
    }
    if (o->temporary && (code || bad)) unlink(o->temporary);
    if (!code && bad) code = print_error(EXIT_RUNTIME, "cannot write %s: %s", o->path, why ? strerror(why) : "an earlier write failed");
    free(o->temporary);
    *o = (struct outfile){0};
    return code;
}
