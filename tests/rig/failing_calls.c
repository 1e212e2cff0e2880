/* For LD_PRELOAD: call number n that changes files below a folder fails, as it does on a broken or full disk.

   plan_failure(folder, n, error, only_space): call number n fails with `error`; n = 0 only counts the calls.
   `only_space` simulates a full disk: only calls that need space count, all of them fail from call n on, and the
   first failing write writes half of its bytes. calls_made() returns the number of calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static long target, made;
static int failure, full_disk;

void plan_failure(const char *folder, long n, int error, int only_space) {
    snprintf(below, sizeof below, "%s/", folder);
    target = n, failure = error, full_disk = only_space, made = 0;
}

long calls_made(void) { return made; }

static int is_below(const char *path) { return below[0] && !strncmp(path, below, strlen(below)); }

static int fd_is_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = below[0] ? readlink(link, path, sizeof path - 1) : -1;
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(int counts, int takes_space) {
    if (!counts || (full_disk && !takes_space)) return 0;
    long number = __atomic_add_fetch(&made, 1, __ATOMIC_SEQ_CST);
    if (!target || (full_disk ? number < target : number != target)) return 0;
    errno = failure;
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (!fails(fd_is_below(fd), 1)) return real(fd, data, size);
    if (full_disk && made == target && size > 1) return real(fd, data, size / 2);
    return -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return fails(fd_is_below(fd), 1) ? -1 : real(fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return fails(fd_is_below(fd), 1) ? -1 : real(fd, data, size, place);
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return fails(fd_is_below(fd), 0) ? -1 : real(fd);
}

int close(int fd) { /* as on Linux, a close that fails has closed the file */
    REAL(int, "close", int);
    int failed = fails(fd_is_below(fd), 0), result = real(fd);
    if (failed) errno = failure;
    return failed ? -1 : result;
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fails(is_below(to), 0) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return fails(is_below(path) && !access(path, F_OK), 0) ? -1 : real(path);
}

static int open_any(const char *name, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, mode_t) = (int (*)(const char *, int, mode_t))dlsym(RTLD_NEXT, name);
    return fails((flags & O_CREAT) && is_below(path), 1) ? -1 : real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_any("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_any("open64", path, flags, mode);
}
