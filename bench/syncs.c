// LD_PRELOAD, the same for every server of the benchmark: counts its syncs.
//
// BENCH_SYNCS is a file that holds the number of syncs of all processes of a server (8 bytes, this machine's order).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_ullong own_count, *syncs = &own_count;

__attribute__((constructor)) static void prepare(void) {
    const char *file = getenv("BENCH_SYNCS");
    const int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *syncs, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) syncs = page;
    close(fd);
}

static int sync_with(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const int result = real(fd);
    if (result == 0) atomic_fetch_add_explicit(syncs, 1, memory_order_relaxed);
    return result;
}

int fdatasync(int fd) { return sync_with("fdatasync", fd); }

int fsync(int fd) { return sync_with("fsync", fd); }
