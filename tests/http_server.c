/* A small HTTP server for tests of downloads: serves files below a folder, on 127.0.0.1, and keeps a log of requests.
 *   http_server FOLDER LOG PORT_FILE      writes its port into PORT_FILE; ends with its parent
 * A request for /a/b?c is answered by the file FOLDER/a/b?c, else FOLDER/a/b. Beside a file NAME may lie
 *   NAME.status   status code (a file without content need not be there)
 *   NAME.headers  further header lines
 *   NAME.cut      a number: the connection ends after so many bytes of the content; the file is removed, so once
 *   NAME.norange  Range: is not obeyed
 * Log: one line per request: method, path, Range, Authorization ("-" if there is none). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *folder, *log_path;

/* At most size - 1 bytes of a file; NULL if there is none. */
static char *slurp(const char *name, const char *suffix, char *buf, size_t size)
{
    char path[3000];
    snprintf(path, sizeof path, "%s%s", name, suffix);
    FILE *in = fopen(path, "rb");
    if (!in) return NULL;
    size_t n = fread(buf, 1, size - 1, in);
    fclose(in);
    buf[n] = 0;
    return buf;
}

static void value_of(const char *request, const char *name, char *out, size_t size)
{
    const char *at = strcasestr(request, name);
    snprintf(out, size, "-");
    if (at) snprintf(out, size, "%.*s", (int)strcspn(at + strlen(name), "\r\n"), at + strlen(name));
}

static void send_all(int fd, const char *data, size_t n)
{
    for (ssize_t sent; n > 0 && (sent = send(fd, data, n, MSG_NOSIGNAL)) > 0; n -= (size_t)sent) data += sent;
}

static void send_content(int fd, const char *name, long from, long n)
{
    static char buffer[1 << 16];
    char number[32], path[3000];
    FILE *in = fopen(name, "rb");
    if (slurp(name, ".cut", number, sizeof number)) {
        snprintf(path, sizeof path, "%s.cut", name);
        unlink(path);
        if (atol(number) < n) n = atol(number);
    }
    if (!in || fseek(in, from, SEEK_SET) != 0) n = 0;
    while (n > 0) {
        size_t k = fread(buffer, 1, n < (long)sizeof buffer ? (size_t)n : sizeof buffer, in);
        if (k == 0) break;
        send_all(fd, buffer, k);
        n -= (long)k;
    }
    if (in) fclose(in);
}

static void answer(int fd, const char *name, const char *range)
{
    char head[4096], status[16], more[2048] = "", ignored[8];
    struct stat st = {0};
    bool there = stat(name, &st) == 0 && S_ISREG(st.st_mode);
    long from = 0, size = there ? (long)st.st_size : 0;
    int code = slurp(name, ".status", status, sizeof status) ? atoi(status) : there ? 200 : 404;
    if (code == 200 && !slurp(name, ".norange", ignored, sizeof ignored) && sscanf(range, "bytes=%ld-", &from) == 1) code = from < size ? 206 : 416;
    if (code != 206) from = 0;
    slurp(name, ".headers", more, sizeof more);
    if (code == 206) snprintf(more + strlen(more), sizeof more - strlen(more), "Content-Range: bytes %ld-%ld/%ld\r\n", from, size - 1, size);
    if (code >= 300) size = from = 0;
    snprintf(head, sizeof head, "HTTP/1.1 %d x\r\nContent-Length: %ld\r\nConnection: close\r\n%s\r\n", code, size - from, more);
    send_all(fd, head, strlen(head));
    if (code < 300) send_content(fd, name, from, size - from);
}

static void serve(int fd)
{
    static char request[16384];
    char path[1024], name[2048], range[128], token[256];
    size_t n = 0;
    ssize_t got;
    while (n < sizeof request - 1 && !strstr(request, "\r\n\r\n") && (got = recv(fd, request + n, sizeof request - 1 - n, 0)) > 0) n += (size_t)got;
    if (sscanf(request, "GET %1000s HTTP/", path) != 1 || strstr(path, "..")) return;
    value_of(request, "\r\nRange: ", range, sizeof range);
    value_of(request, "\r\nAuthorization: ", token, sizeof token);
    FILE *log = fopen(log_path, "a");
    if (log) {
        fprintf(log, "GET %s %s %s\n", path, range, token);
        fclose(log);
    }
    struct stat st;
    snprintf(name, sizeof name, "%s%s", folder, path);
    if (stat(name, &st) != 0 && strchr(name + strlen(folder), '?')) *strchr(name + strlen(folder), '?') = 0;
    answer(fd, name, range);
}

static int listen_somewhere(const char *port_file)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    char part[1024];
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) != 0 || listen(s, 16) != 0 || getsockname(s, (struct sockaddr *)&a, &len) != 0) return -1;
    snprintf(part, sizeof part, "%s.new", port_file);
    FILE *out = fopen(part, "w");
    if (!out) return -1;
    fprintf(out, "%d\n", ntohs(a.sin_port));
    fclose(out);
    return rename(part, port_file) == 0 ? s : -1;
}

int main(int argc, char **argv)
{
    if (argc != 4) return 2;
    folder = argv[1];
    log_path = argv[2];
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* no server outlives its test */
    signal(SIGCHLD, SIG_IGN);
    int s = listen_somewhere(argv[3]);
    if (s < 0) return perror("http_server"), 1;
    for (;;) {
        int fd = accept(s, NULL, NULL);
        if (fd < 0 && errno != EINTR) return 1;
        if (fd >= 0 && fork() == 0) {
            serve(fd);
            close(fd);
            _exit(0);
        }
        if (fd >= 0) close(fd);
    }
}
