/* File maps, large buffers, clock and processors on POSIX systems. */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The message keeps the reason whole, even when a caller puts the path before it again: of a long path the end is shown. */
static kg_status map_error(const char *path, const char *reason)
{
    size_t n = strlen(path), most = 200;
    const char *end = n > most ? path + n - most : path;
    while (((unsigned char)*end & 0xc0) == 0x80) end++; /* not from the middle of a character */
    return status_set(KG_ERR_IO, "%s%s: %s", n > most ? "..." : "", end, reason);
}

kg_status os_map_file(struct os_map *out, const char *path)
{
    *out = (struct os_map){0};
    struct stat sb;
    void *p = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would else block until somebody writes to it */
    if (fd < 0) return map_error(path, strerror(errno));
    if (fstat(fd, &sb) != 0) goto fail;
    if (!S_ISREG(sb.st_mode)) {
        close(fd);
        return map_error(path, S_ISDIR(sb.st_mode) ? strerror(EISDIR) : "not a regular file");
    }
    if (sb.st_size > 0) {
        p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) goto fail;
    }
    close(fd);
    *out = (struct os_map){p, (size_t)sb.st_size};
    return KG_OK;
fail:;
    int saved = errno;
    close(fd);
    return map_error(path, strerror(saved));
}

void os_unmap(struct os_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->n_bytes);
    *map = (struct os_map){0};
}

void os_map_release(const void *p, size_t n_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ROUND_UP((uintptr_t)p, page), last = ((uintptr_t)p + n_bytes) / page * page;
    if (last > first) madvise((void *)first, last - first, MADV_DONTNEED);
}

void *os_alloc(size_t n_bytes)
{
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        status_set(KG_ERR_MEMORY, "out of memory (%zu bytes)", n_bytes);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    madvise(p, n_bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void *os_alloc_shared(size_t n_bytes)
{
    /* MADV_DONTNEED empties private memory, but only unmaps the pages of shared memory */
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED) return p;
    status_set(KG_ERR_MEMORY, "out of memory (%zu bytes)", n_bytes);
    return NULL;
}

bool os_is_directory(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

void os_free(void *p, size_t n_bytes)
{
    if (p) munmap(p, n_bytes);
}

double os_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int os_n_processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return MAX(CPU_COUNT(&set), 1);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

size_t os_cache_bytes(int level)
{
    long n = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    n = sysconf(level == 2 ? _SC_LEVEL2_CACHE_SIZE : _SC_LEVEL3_CACHE_SIZE);
#else
    (void)level;
#endif
    return n > 0 ? (size_t)n : 0;
}

size_t os_peak_rss(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
#ifdef __APPLE__
    return (size_t)u.ru_maxrss;
#else
    return (size_t)u.ru_maxrss * 1024;
#endif
}
