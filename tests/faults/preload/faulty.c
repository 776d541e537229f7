/*
 * A C library between a process and its disk and clock, put there with LD_PRELOAD. What it does is written in a file that
 * the test shares with it: rules that say which calls, on files with which words in their names, fail how and how often,
 * and how far the wall clock is off. It counts what it saw and what it did, so that a test can tell whether its fault
 * happened. Everything else goes straight to the kernel. tests/faults/preload.rs knows the same layout.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES 8
enum { WRITES = 1, FLUSHES = 2, READS = 4, MAPS = 8 };
/* In place of an errno: only half of it is written or read, which is no error. */
#define HALF (-1)
/* In place of an errno: the process is killed before the call. */
#define KILL (-2)
/* In place of an errno: the call waits until the rule is lifted, and goes well then. */
#define WAIT (-3)

struct rule {
    _Atomic uint32_t calls;     /* WRITES and so on, or'ed; 0: no rule */
    int32_t error;              /* errno, HALF, KILL or WAIT */
    _Atomic uint32_t pass;      /* so many matching calls go through first */
    _Atomic uint32_t times;     /* so many fail then; UINT32_MAX: all */
    _Atomic uint32_t seen;
    _Atomic uint32_t fired;
    char words[104];            /* in the file's path, at its end if they end with '$'; ends with 0 */
};

struct page {
    _Atomic int64_t ahead_ns;   /* the wall clock's offset */
    _Atomic uint64_t looked;    /* how often the wall clock was asked */
    uint8_t unused[112];
    struct rule rules[RULES];
};

static struct page *page;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DOCKET_TEST_FAULTS");
    if (path == NULL) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *at = (void *)syscall(SYS_mmap, NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (at != MAP_FAILED) page = at;
}

static int is_in(const char *words, const char *path) {
    size_t length = strlen(words), all = strlen(path);
    if (length == 0 || words[length - 1] != '$') return strstr(path, words) != NULL;
    return all >= length - 1 && strncmp(path + all - (length - 1), words, length - 1) == 0;
}

/* Whether this call is to go wrong: 0, HALF or an errno. */
static int fault(uint32_t call, int file) {
    if (page == NULL || file < 0) return 0;
    char link[32], path[512];
    int known = 0;
    for (int number = 0; number < RULES; number++) {
        struct rule *rule = &page->rules[number];
        if ((rule->calls & call) == 0) continue;
        if (!known) {
            /* No stdio: this may be called from anywhere. */
            char digits[12];
            int count = 0, rest = file;
            do { digits[count++] = (char)('0' + rest % 10); rest /= 10; } while (rest > 0);
            memcpy(link, "/proc/self/fd/", 14);
            for (int place = 0; place < count; place++) link[14 + place] = digits[count - 1 - place];
            link[14 + count] = 0;
            long length = syscall(SYS_readlink, link, path, sizeof path - 1);
            if (length < 0) return 0;
            path[length] = 0;
            known = 1;
        }
        if (!is_in(rule->words, path)) continue;
        uint32_t place = rule->seen++;
        if (place < rule->pass) continue;
        if (rule->times != UINT32_MAX && place - rule->pass >= rule->times) continue;
        rule->fired++;
        if (rule->error == KILL) {
            syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
            for (;;) syscall(SYS_pause);
        }
        if (rule->error == WAIT) {
            struct timespec moment = { 0, 1000000 };
            while ((rule->calls & call) != 0) syscall(SYS_nanosleep, &moment, NULL);
            continue;
        }
        return rule->error;
    }
    return 0;
}

static long failed(int error) {
    errno = error;
    return -1;
}

static size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

ssize_t write(int file, const void *bytes, size_t count) {
    int error = fault(WRITES, file);
    if (error > 0) return failed(error);
    return syscall(SYS_write, file, bytes, error == HALF ? half(count) : count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    int error = fault(WRITES, file);
    if (error > 0) return failed(error);
    return syscall(SYS_pwrite64, file, bytes, error == HALF ? half(count) : count, at);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return pwrite64(file, bytes, count, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    int error = fault(WRITES, file);
    if (error > 0) return failed(error);
    if (error == HALF && count > 0) return syscall(SYS_write, file, parts[0].iov_base, half(parts[0].iov_len));
    return syscall(SYS_writev, file, parts, count);
}

ssize_t read(int file, void *bytes, size_t count) {
    int error = fault(READS, file);
    if (error > 0) return failed(error);
    return syscall(SYS_read, file, bytes, error == HALF ? half(count) : count);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t at) {
    int error = fault(READS, file);
    if (error > 0) return failed(error);
    return syscall(SYS_pread64, file, bytes, error == HALF ? half(count) : count, at);
}

ssize_t pread(int file, void *bytes, size_t count, off_t at) { return pread64(file, bytes, count, at); }

int fsync(int file) {
    int error = fault(FLUSHES, file);
    return error > 0 ? (int)failed(error) : (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    int error = fault(FLUSHES, file);
    return error > 0 ? (int)failed(error) : (int)syscall(SYS_fdatasync, file);
}

void *mmap(void *at, size_t bytes, int may, int how, int file, off_t from) {
    int error = (how & MAP_ANONYMOUS) ? 0 : fault(MAPS, file);
    if (error > 0) {
        errno = error;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, at, bytes, may, how, file, from);
}

void *mmap64(void *at, size_t bytes, int may, int how, int file, off64_t from) {
    return mmap(at, bytes, may, how, file, from);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = (int)syscall(SYS_clock_gettime, clock, time);
    if (done == 0 && page != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        page->looked++;
        int64_t all = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + page->ahead_ns;
        time->tv_sec = all / 1000000000;
        time->tv_nsec = all % 1000000000;
    }
    return done;
}
