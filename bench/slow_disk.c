// LD_PRELOAD: makes syncs take as long as on a slower disk, for every server of the benchmark alike.
//
// SLOW_DISK_US is the least time of one flush in microseconds. Like the kernel (block/blk-flush.c) it has one flush running
// and merges all that wait into the next one, so a server that syncs from many threads at once shares them here, too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finished_one = PTHREAD_COND_INITIALIZER;
static uint64_t started, finished;  // flushes, counted
static int running;

static void sleep_us(long us) {
    static _Thread_local int exact;
    if (!exact) exact = prctl(PR_SET_TIMERSLACK, 1000UL) == 0;  // in ns; the default adds 50 us to every sleep
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static void flush(void) {
    const char *us = getenv("SLOW_DISK_US");
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
        sleep_us(us ? atol(us) : 0);
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
    if (result == 0) flush();
    return result;
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int fsync(int fd) { return sync_with("fsync", fd); }
