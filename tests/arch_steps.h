/* The files that sentence-transformers puts beside a tiny model (arch_case.h). Header only. */
#ifndef TESTS_ARCH_STEPS_H
#define TESTS_ARCH_STEPS_H

#include "arch_case.h"

#include <sys/stat.h>
#include <unistd.h>

/* The folder of a file in it. */
static void folder_of(const char *folder, const char *file, char *out, size_t size)
{
    const char *slash = strrchr(file, '/');
    snprintf(out, size, "%s/%.*s", folder, slash ? (int)(slash - file) : 0, file);
}

/* What sentence-transformers puts beside the model, if the case has it. */
static void write_steps(const char *folder, const struct cases *c)
{
    char path[400], before[80];
    for (int i = 0; i < c->n_files; i++) {
        folder_of(folder, c->files[i].path, path, sizeof path);
        mkdir(path, 0777);
        snprintf(path, sizeof path, "%s/%s", folder, c->files[i].path);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fputs(c->files[i].text, f);
        fclose(f);
    }
    for (int i = 0, n; i < c->n_parts; i += n) {
        for (n = 1; i + n < c->n_parts && strcmp(c->part_paths[i], c->part_paths[i + n]) == 0;) n++;
        snprintf(path, sizeof path, "%s/%s", folder, c->part_paths[i]);
        snprintf(before, sizeof before, "%s:", c->part_paths[i]);
        write_list(path, &c->parts[i], n, before);
    }
}

static void remove_steps(const char *folder, const struct cases *c)
{
    char path[400];
    for (int i = 0; i < c->n_parts; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, c->part_paths[i]);
        unlink(path);
    }
    for (int i = 0; i < c->n_files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, c->files[i].path);
        unlink(path);
        folder_of(folder, c->files[i].path, path, sizeof path);
        rmdir(path); /* the model's own folder is not empty */
    }
}

#endif
