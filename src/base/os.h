/* The operating system: file maps, large buffers, clock, processors. */
#ifndef BASE_OS_H
#define BASE_OS_H

#include "base/base.h"

struct os_map {
    const uint8_t *data; /* read-only, private map; NULL for an empty file */
    size_t n_bytes;
};
kg_status os_map_file(struct os_map *out, const char *path);
void os_unmap(struct os_map *map);
/* Tells the system that these bytes of a map are not needed now: their pages may leave memory and come back on the next touch. */
void os_map_release(const void *p, size_t n_bytes);

/* Zeroed memory on pages of its own, on huge pages where the system has them; 64-byte aligned at least. NULL on failure. */
void *os_alloc(size_t n_bytes);
void os_free(void *p, size_t n_bytes);

/* The same, freed by os_unmap; os_map_release does not lose what is in it. */
void *os_alloc_shared(size_t n_bytes);
bool os_is_directory(const char *path);

double os_seconds(void);       /* monotonic clock */
int os_n_processors(void);     /* that this process may run on */
size_t os_cache_bytes(int level); /* of a processor's cache of data, 2 or 3; 0: unknown */
size_t os_peak_rss(void);      /* bytes */

#endif
