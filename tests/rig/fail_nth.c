/* LD_PRELOAD: the FAIL_AT-th write, sync, truncation or rename below FAIL_BELOW fails with FAIL_ERRNO, and so do those
   after it if FAIL_ON is set, as on a disk that is full. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int count;

static int fails(const char *path)
{
    const char *below = getenv("FAIL_BELOW"), *at = getenv("FAIL_AT");
    if (!below || !at || strncmp(path, below, strlen(below))) return 0;
    int now = atomic_fetch_add(&count, 1) + 1;
    if (now != atoi(at) && !(now > atoi(at) && getenv("FAIL_ON"))) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static int fails_fd(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) { return fails_fd(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return fails_fd(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return fails_fd(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
int fsync(int fd) { return fails_fd(fd) ? -1 : REAL(fsync)(fd); }
int rename(const char *from, const char *to) { return fails(from) ? -1 : REAL(rename)(from, to); }
