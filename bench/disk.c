// LD_PRELOAD, the same for every server of the benchmark: counts syncs, and makes them as slow as on another disk.
//
// BENCH_SYNCS is a file that holds the number of syncs of all processes of a server (8 bytes, this machine's order).
// BENCH_FLUSH_US, if set, is the least time of one flush in microseconds. Like the kernel (block/blk-flush.c) it has one
// flush running and merges all that wait into the next one, so a server that syncs from many threads shares them, too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished_one = PTHREAD_COND_INITIALIZER;
static uint64_t started, finished;  // flushes, counted
static int running;
static long flush_us;
static atomic_ullong own_count, *syncs = &own_count;

__attribute__((constructor)) static void prepare(void) {
    const char *us = getenv("BENCH_FLUSH_US"), *file = getenv("BENCH_SYNCS");
    flush_us = us ? atol(us) : 0;
    const int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *syncs, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) syncs = page;
    close(fd);
}

static void sleep_exactly(void) {
    static _Thread_local int exact;
    if (!exact) exact = prctl(PR_SET_TIMERSLACK, 1000UL) == 0;  // in ns; the default adds 50 us to every sleep
    const struct timespec time = {flush_us / 1000000, flush_us % 1000000 * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static void flush(void) {
    pthread_mutex_lock(&lock);
    const uint64_t mine = started + 1;  // the next to start covers what was written before now
    while (finished < mine) {
        if (running) {
            pthread_cond_wait(&finished_one, &lock);
            continue;
        }
        running = 1;
        started++;
        pthread_mutex_unlock(&lock);
        sleep_exactly();
        pthread_mutex_lock(&lock);
        running = 0;
        finished = started;
        pthread_cond_broadcast(&finished_one);
    }
    pthread_mutex_unlock(&lock);
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const int result = real(fd);
    if (result == 0 && flush_us) flush();
    if (result == 0) atomic_fetch_add_explicit(syncs, 1, memory_order_relaxed);
    return result;
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int fsync(int fd) { return sync_with("fsync", fd); }
