// A disk in memory that takes its time, as a file to put a loop device on. A real file system on it waits, merges and
// serialises as it does on a real disk.
//
//     cc -O2 -pthread -o slow_disk bench/slow_disk.c && ./slow_disk FILE GIBIBYTES COMMAND_US
//
// FILE is mounted over until the process ends. The device serves one command at a time, in order of arrival: a write
// takes COMMAND_US and 1 ns a byte, a flush COMMAND_US, a read no time. It speaks the kernel's FUSE protocol itself
// (linux/fuse.h), on a mount whose root is one regular file, so that it needs no library.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, PAGES = 256, DATA_BYTES = PAGES * 4096, REQUEST_BYTES = DATA_BYTES + 4096 };

static int fuse;
static char *disk;
static uint64_t disk_bytes;
static int64_t command_ns, busy_until_ns;
static pthread_mutex_t device = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what) {
    perror(what);
    _exit(1);
}

// Waits until the device has carried out one more command.
static void serve_command(int64_t cost_ns) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    const int64_t now_ns = time.tv_sec * 1000000000LL + time.tv_nsec;
    pthread_mutex_lock(&device);
    const int64_t done_ns = (busy_until_ns > now_ns ? busy_until_ns : now_ns) + cost_ns;
    busy_until_ns = done_ns;
    pthread_mutex_unlock(&device);
    time = (struct timespec){done_ns / 1000000000, done_ns % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void answer(uint64_t unique, int error, const void *data, size_t size) {
    const struct fuse_out_header head = {.len = (uint32_t)(sizeof head + size), .error = -error, .unique = unique};
    const struct iovec parts[] = {{(void *)&head, sizeof head}, {(void *)data, size}};
    if (writev(fuse, parts, size ? 2 : 1) < 0 && errno != ENOENT) die("answer");
}

static void init(uint64_t unique) {
    const struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = DATA_BYTES,
        .flags = FUSE_ASYNC_DIO | FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES,
        .max_background = 64,
        .congestion_threshold = 64,
        .max_write = DATA_BYTES,
        .time_gran = 1,
        .max_pages = PAGES,
    };
    answer(unique, 0, &out, sizeof out);
}

static void attributes(uint64_t unique) {
    const struct fuse_attr_out out = {
        .attr_valid = UINT32_MAX,
        .attr = {.ino = FUSE_ROOT_ID, .size = disk_bytes, .mode = S_IFREG | 0600, .nlink = 1, .blksize = 4096},
    };
    answer(unique, 0, &out, sizeof out);
}

static void transfer(uint64_t unique, int writes, uint64_t offset, uint32_t size, const void *data) {
    if (offset > disk_bytes || size > disk_bytes - offset) {
        answer(unique, EIO, NULL, 0);
    } else if (writes) {
        memcpy(disk + offset, data, size);
        serve_command(command_ns + size);
        const struct fuse_write_out out = {.size = size};
        answer(unique, 0, &out, sizeof out);
    } else {
        answer(unique, 0, disk + offset, size);
    }
}

static void handle(const struct fuse_in_header *head) {
    const void *body = head + 1;
    const struct fuse_open_out opened = {0};
    const struct fuse_statfs_out statistics = {.st = {.bsize = 4096, .namelen = 255}};
    const struct fuse_read_in *read_in = body;
    const struct fuse_write_in *write_in = body;
    switch (head->opcode) {
        case FUSE_INIT: return init(head->unique);
        case FUSE_GETATTR:
        case FUSE_SETATTR: return attributes(head->unique);
        case FUSE_OPEN: return answer(head->unique, 0, &opened, sizeof opened);
        case FUSE_STATFS: return answer(head->unique, 0, &statistics, sizeof statistics);
        case FUSE_READ: return transfer(head->unique, 0, read_in->offset, read_in->size, NULL);
        case FUSE_WRITE: return transfer(head->unique, 1, write_in->offset, write_in->size, write_in + 1);
        case FUSE_FSYNC: serve_command(command_ns); return answer(head->unique, 0, NULL, 0);
        case FUSE_FLUSH:
        case FUSE_RELEASE: return answer(head->unique, 0, NULL, 0);
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT: return;  // these have no answer
        default: answer(head->unique, ENOSYS, NULL, 0);
    }
}

static void *serve(void *unused) {
    (void)unused;
    prctl(PR_SET_TIMERSLACK, 1000UL);  // in ns; the default adds 50 us to every sleep
    char *request = malloc(REQUEST_BYTES);
    if (!request) die("malloc");
    for (;;) {
        const ssize_t size = read(fuse, request, REQUEST_BYTES);
        if (size >= (ssize_t)sizeof(struct fuse_in_header)) handle((struct fuse_in_header *)request);
        else if (errno == ENODEV) _exit(0);  // unmounted
        else if (errno != EINTR && errno != ENOENT && errno != EAGAIN) die("read");
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: slow_disk FILE GIBIBYTES COMMAND_US\n"), 2;
    disk_bytes = strtoull(argv[2], NULL, 10) << 30;
    command_ns = atoll(argv[3]) * 1000;
    disk = mmap(NULL, disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (disk == MAP_FAILED) die("mmap");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);  // no page of this process may wait for this disk
    fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0) die("/dev/fuse");
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=%o,user_id=0,group_id=0", fuse, S_IFREG | 0600);
    if (mount("slow_disk", argv[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0) die(argv[1]);
    if (unshare(CLONE_NEWNS) != 0) die("unshare");  // whoever ends last with the file system must not be this process
    for (int i = 1; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, NULL) != 0) die("pthread_create");
    }
    serve(NULL);
}
