// The measuring stick: bank accounts over HTTP as a good C programmer would write them first.
//
// One process, one thread per connection, HTTP/1.1 keep-alive, a hash map of accounts, and a mutex per account that is
// held from the check of the balance until the change is on disk: append one record to one log, fdatasync, answer.
// A failed write or sync ends the process, since what is on disk is unknown then. At start the log is replayed up to
// the first record that is torn.
//
//     cc -O2 -pthread -o baseline bench/baseline.c && ./baseline 8090 /some/folder
//
//     POST /v1/actors/ACCOUNT/{name}/deposit   {"amount": 5}   -> 5
//     POST /v1/actors/ACCOUNT/{name}/debit     {"amount": 3}   -> {"ok":true,"balance":2}
//     POST /v1/actors/ACCOUNT/{name}/balance                   -> 2
//     GET  /healthz                                            -> ok
//
// What it lacks beside kubeactor: retries that are applied once, several processes, alarms, calls between accounts.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { BUCKETS = 1 << 16, NAME_BYTES = 1024, REQUEST_BYTES = 16 * 1024, STACK_BYTES = 128 * 1024, BACKLOG = 1024 };

struct account {
    struct account *next;
    pthread_mutex_t lock;
    int64_t balance;
    uint16_t length;
    char name[];
};

struct record {  // followed by `length` bytes of name
    uint32_t checksum;
    uint16_t length;
    uint16_t zero;
    int64_t delta;
};

static struct account *buckets[BUCKETS];
static pthread_rwlock_t map_lock = PTHREAD_RWLOCK_INITIALIZER;
static int log_fd;

static void die(const char *what) {
    perror(what);
    _exit(1);
}

static uint32_t hash(const void *data, size_t length, uint32_t seed) {  // FNV-1a
    const unsigned char *bytes = data;
    uint32_t value = seed ? seed : 2166136261u;
    for (size_t i = 0; i < length; i++) value = (value ^ bytes[i]) * 16777619u;
    return value;
}

static uint32_t checksum(const struct record *record, const char *name) {
    const size_t skip = sizeof record->checksum;
    return hash(name, record->length, hash((const char *)record + skip, sizeof *record - skip, 0));
}

static struct account *find_in(struct account *chain, const char *name, uint16_t length) {
    while (chain && (chain->length != length || memcmp(chain->name, name, length))) chain = chain->next;
    return chain;
}

// The account of a name, made on first touch. Accounts live as long as the process.
static struct account *find(const char *name, uint16_t length) {
    struct account **bucket = &buckets[hash(name, length, 0) % BUCKETS];
    pthread_rwlock_rdlock(&map_lock);
    struct account *account = find_in(*bucket, name, length);
    pthread_rwlock_unlock(&map_lock);
    if (account) return account;

    pthread_rwlock_wrlock(&map_lock);
    account = find_in(*bucket, name, length);
    if (!account) {
        account = malloc(sizeof *account + length);
        if (!account) die("malloc");
        *account = (struct account){.next = *bucket, .length = length};
        pthread_mutex_init(&account->lock, NULL);
        memcpy(account->name, name, length);
        *bucket = account;
    }
    pthread_rwlock_unlock(&map_lock);
    return account;
}

// Puts a change on disk. One write() of an O_APPEND file, so records of several threads do not mix.
static void commit(const struct account *account, int64_t delta) {
    char bytes[sizeof(struct record) + NAME_BYTES];
    struct record record = {.length = account->length, .delta = delta};
    record.checksum = checksum(&record, account->name);
    memcpy(bytes, &record, sizeof record);
    memcpy(bytes + sizeof record, account->name, account->length);
    const ssize_t size = (ssize_t)(sizeof record + account->length);
    if (write(log_fd, bytes, (size_t)size) != size) die("write");
    if (fdatasync(log_fd) != 0) die("fdatasync");
}

static int deposit(struct account *account, int64_t amount, char *body, size_t size) {
    pthread_mutex_lock(&account->lock);
    int64_t balance;
    const int refused = __builtin_add_overflow(account->balance, amount, &balance);
    if (!refused) {
        commit(account, amount);
        account->balance = balance;
    }
    pthread_mutex_unlock(&account->lock);
    return refused ? -1 : snprintf(body, size, "%" PRId64, balance);
}

static int debit(struct account *account, int64_t amount, char *body, size_t size) {
    pthread_mutex_lock(&account->lock);
    const int ok = account->balance >= amount;
    if (ok) {
        commit(account, -amount);
        account->balance -= amount;
    }
    const int64_t balance = account->balance;
    pthread_mutex_unlock(&account->lock);
    return snprintf(body, size, "{\"ok\":%s,\"balance\":%" PRId64 "}", ok ? "true" : "false", balance);
}

static int balance_of(struct account *account, char *body, size_t size) {
    pthread_mutex_lock(&account->lock);
    const int64_t balance = account->balance;
    pthread_mutex_unlock(&account->lock);
    return snprintf(body, size, "%" PRId64, balance);
}

static void replay(void) {
    FILE *log = fdopen(dup(log_fd), "r");
    if (!log) die("fdopen");
    struct record record;
    char name[NAME_BYTES];
    off_t good = 0;
    while (fread(&record, sizeof record, 1, log) == 1) {
        if (record.length > NAME_BYTES || fread(name, 1, record.length, log) != record.length) break;
        if (checksum(&record, name) != record.checksum) break;
        find(name, record.length)->balance += record.delta;
        good += (off_t)sizeof record + record.length;
    }
    fclose(log);
    if (ftruncate(log_fd, good) != 0 || fdatasync(log_fd) != 0) die("truncate");
}

static int hex(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

// Decodes %XX in place; the new length, or -1.
static int unquote(char *text, size_t length) {
    size_t out = 0;
    for (size_t i = 0; i < length; i++, out++) {
        text[out] = text[i];
        if (text[i] != '%') continue;
        if (i + 2 >= length || hex(text[i + 1]) < 0 || hex(text[i + 2]) < 0) return -1;
        text[out] = (char)(hex(text[i + 1]) * 16 + hex(text[i + 2]));
        i += 2;
    }
    return out > 0 && out <= NAME_BYTES ? (int)out : -1;
}

// The amount of {"amount": N}, or 0 if there is no positive whole number.
static int64_t amount_of(const char *json) {
    const char *at = strstr(json, "\"amount\"");
    if (!at) return 0;
    at += strlen("\"amount\"");
    at += strspn(at, " \t\r\n");
    if (*at++ != ':') return 0;
    errno = 0;
    char *end;
    const long long amount = strtoll(at, &end, 10);
    if (end == at || errno || amount <= 0) return 0;
    end += strspn(end, " \t\r\n");
    return *end == '}' || *end == ',' ? amount : 0;
}

// Writes the answer's body; the status. `path` and `json` end with NUL.
static int handle(int post, char *path, const char *json, char *body, size_t size) {
    static const char prefix[] = "/v1/actors/ACCOUNT/";
    if (!post && !strcmp(path, "/healthz")) return snprintf(body, size, "ok\n"), 200;

    char *method = strrchr(path, '/');
    if (!post || strncmp(path, prefix, sizeof prefix - 1) || method < path + sizeof prefix) return 404;
    char *name = path + sizeof prefix - 1;
    const int length = unquote(name, (size_t)(method - name));
    if (length < 0) return 400;
    if (!strcmp(method, "/balance")) return balance_of(find(name, (uint16_t)length), body, size), 200;

    const int64_t amount = amount_of(json);
    if (amount == 0) return 400;
    struct account *account = find(name, (uint16_t)length);
    if (!strcmp(method, "/debit")) return debit(account, amount, body, size), 200;
    if (!strcmp(method, "/deposit")) return deposit(account, amount, body, size) < 0 ? 400 : 200;
    return 404;
}

// Takes one request off the buffer and answers it. Its bytes, 0 if it is not complete, -1 to close.
static ssize_t serve_one(int fd, char *buffer, size_t have) {
    char *blank = memmem(buffer, have, "\r\n\r\n", 4);
    if (!blank) return have < REQUEST_BYTES ? 0 : -1;
    *blank = 0;
    char *json = blank + 4;
    const char *field = strcasestr(buffer, "\r\nContent-Length:");
    const long length = field ? strtol(field + strlen("\r\nContent-Length:"), NULL, 10) : 0;
    *blank = '\r';
    if (length < 0 || length > REQUEST_BYTES - (json - buffer)) return -1;
    const size_t total = (size_t)(json - buffer) + (size_t)length;
    if (have < total) return 0;

    const char after = json[length];  // the first byte of a pipelined request
    json[length] = 0;
    const int post = !strncmp(buffer, "POST ", 5);
    char *path = post ? buffer + 5 : buffer + 4, *end = memchr(buffer, '\r', have), *version;
    *end = 0;
    if ((!post && strncmp(buffer, "GET ", 4)) || !(version = strchr(path, ' '))) return -1;
    *version = 0;
    char body[128] = "", answer[512];
    const int status = handle(post, path, json, body, sizeof body);
    json[length] = after;

    const char *reason = status == 200 ? "OK" : status == 400 ? "Bad Request" : "Not Found";
    const int size = snprintf(answer, sizeof answer,
                              "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              status, reason, strlen(body), body);
    return write(fd, answer, (size_t)size) == size ? (ssize_t)total : -1;
}

static void *serve(void *argument) {
    const int fd = (int)(intptr_t)argument;
    char buffer[REQUEST_BYTES + 1];
    size_t have = 0;
    for (;;) {
        const ssize_t used = have ? serve_one(fd, buffer, have) : 0;
        if (used < 0) break;
        if (used > 0) {
            have -= (size_t)used;
            memmove(buffer, buffer + used, have);
            continue;
        }
        const ssize_t got = read(fd, buffer + have, REQUEST_BYTES - have);
        if (got <= 0) break;
        have += (size_t)got;
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: baseline PORT FOLDER\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    const int folder = open(argv[2], O_RDONLY | O_DIRECTORY);
    log_fd = openat(folder, "log", O_RDWR | O_APPEND | O_CREAT, 0600);
    if (folder < 0 || log_fd < 0 || fsync(folder) != 0) die(argv[2]);
    replay();

    const int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) die("listen");

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        const int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_t thread;
        if (pthread_create(&thread, &attributes, serve, (void *)(intptr_t)fd) != 0) close(fd);
    }
}
