/* Injects faults between a program and the kernel: disk errors, a wrong clock, and a journal of data that is not synced.
 *
 * It is loaded with LD_PRELOAD. PINTLE_SHIM names the control file (struct control), which the program's parent maps or
 * writes at any time. System calls that change files are caught by a seccomp filter that raises SIGSYS, and not by
 * replacing functions of libc, so that raw system calls (as rustix makes them) are caught as well. The clock is read
 * without a system call, so there the functions of libc are replaced. Without PINTLE_SHIM nothing happens; if seccomp is
 * not available, the program ends at once with a message, since a fault that is not injected must not look like one that
 * was survived.
 *
 * The journal is the basis of a simulated power cut: every change to a file below `root` is recorded with the octets that
 * it overwrites, and every sync with its beginning and end. tests/src/faults/powercut.rs undoes what was not synced.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* ---- the control file; its layout is repeated in tests/src/faults/shim.rs ---- */

enum op { WRITE = 1, SYNC = 2, CREATE = 4, ALLOCATE = 8, TRUNCATE = 16, RENAME = 32, UNLINK = 64, FOLDER_SYNC = 128, OPEN = 256 };
enum act { FAIL = 0, SHORT = 1, DIE_BEFORE = 2, DIE_AFTER = 3 };

struct rule {
    _Atomic uint32_t armed;
    uint32_t ops;
    int32_t error;
    uint32_t act;
    _Atomic int64_t skip; /* this many matching calls pass first */
    _Atomic int64_t left; /* and this many are hit then */
    _Atomic uint64_t hits;
    char path[88]; /* a part of the file's path */
};

struct control {
    uint64_t magic;
    _Atomic int64_t offset; /* nanoseconds added to the time of day */
    _Atomic int64_t drift;  /* drift in parts in a million since `since` */
    _Atomic int64_t since;  /* a time of the monotonic clock */
    _Atomic uint32_t journal;
    uint32_t unused;
    char root[256];
    char side[256]; /* the folder of the journal and of unlinked files */
    struct rule rules[8];
};

#define MAGIC 0x31454c544e4950ULL
#define ROOM 65536

static struct control *control;
static int journal = -1;
static size_t root_length;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static char before[ROOM]; /* protected by `busy` */

/* ---- the only place from which trapped calls are made ---- */

long pintle_gate(long number, long a, long b, long c, long d, long e, long f);
extern char pintle_gate_end[];
#if defined(__x86_64__)
__asm__(".text\n.globl pintle_gate\n.hidden pintle_gate\n.type pintle_gate,@function\npintle_gate:\n"
        "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\nsyscall\n"
        ".globl pintle_gate_end\n.hidden pintle_gate_end\npintle_gate_end:\nret\n");
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
__asm__(".text\n.globl pintle_gate\n.hidden pintle_gate\n.type pintle_gate,%function\npintle_gate:\n"
        "mov x8,x0\nmov x0,x1\nmov x1,x2\nmov x2,x3\nmov x3,x4\nmov x4,x5\nmov x5,x6\nsvc 0\n"
        ".globl pintle_gate_end\n.hidden pintle_gate_end\npintle_gate_end:\nret\n");
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "the shim knows x86_64 and aarch64"
#endif

struct call {
    long number, a[6];
};

static long pass(const struct call *call) {
    return pintle_gate(call->number, call->a[0], call->a[1], call->a[2], call->a[3], call->a[4], call->a[5]);
}

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) sched_yield();
}

static void unlock(void) {
    atomic_flag_clear_explicit(&busy, memory_order_release);
}

static void die(void) {
    for (;;) pintle_gate(SYS_kill, getpid(), SIGKILL, 0, 0, 0, 0);
}

/* ---- paths ---- */

static int path_of(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* The absolute path that a call names, if it is below an open folder or the current one. */
static int path_at(int folder, const char *name, char *path, size_t size) {
    if (name[0] == '/') return snprintf(path, size, "%s", name) < (int)size;
    if (folder == AT_FDCWD) {
        if (!getcwd(path, size)) return 0;
    } else if (!path_of(folder, path, size)) {
        return 0;
    }
    size_t length = strlen(path);
    return snprintf(path + length, size - length, "/%s", name) < (int)(size - length);
}

/* SQLite's shared memory is not durable data. */
static int ours(const char *path) {
    size_t length = strlen(path);
    if (length > 4 && !strcmp(path + length - 4, "-shm")) return 0;
    return root_length && !strncmp(path, control->root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* ---- rules ---- */

static struct rule *due(uint32_t op, const char *path) {
    for (int i = 0; i < 8; i++) {
        struct rule *rule = &control->rules[i];
        if (!atomic_load(&rule->armed) || !(rule->ops & op) || !strstr(path + root_length, rule->path)) continue;
        if (atomic_fetch_sub(&rule->skip, 1) > 0) continue;
        if (atomic_fetch_sub(&rule->left, 1) <= 0) continue;
        atomic_fetch_add(&rule->hits, 1);
        return rule;
    }
    return NULL;
}

/* ---- the journal ---- */

enum kind { OLD = 1, LENGTH = 2, SYNC_BEGIN = 3, SYNC_END = 4, CREATED = 5, UNLINKED = 6, RENAMED = 7 };

struct record {
    uint32_t kind, path_length;
    uint64_t inode, offset, size; /* `size`: the file's previous length */
    uint64_t old_length, new_length;
};

static void note(struct record record, const char *path, const void *old, const void *new) {
    record.path_length = strlen(path);
    struct iovec parts[4] = {{&record, sizeof record},
                             {(void *)path, record.path_length},
                             {(void *)old, record.old_length},
                             {(void *)new, record.new_length}};
    if (pintle_gate(SYS_writev, journal, (long)parts, 4, 0, 0, 0) < 0) die();
}

static int journals(void) {
    return journal >= 0 && atomic_load(&control->journal);
}

/* Records the octets in a range of the file, and those that will replace them; `new` may be NULL. */
static void note_range(int fd, const char *path, const struct stat *file, uint64_t at, uint64_t length, const char *new) {
    char self[32];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int reader = -1;
    if (at < (uint64_t)file->st_size) reader = pintle_gate(SYS_openat, AT_FDCWD, (long)self, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    for (uint64_t done = 0; done < length;) {
        uint64_t piece = length - done < ROOM ? length - done : ROOM;
        ssize_t had = reader < 0 ? 0 : pread(reader, before, piece, at + done);
        struct record record = {OLD, 0, file->st_ino, at + done, file->st_size, had > 0 ? had : 0, new ? piece : 0};
        note(record, path, before, new ? new + done : NULL);
        done += piece;
    }
    if (reader >= 0) close(reader);
}

static void note_length(const char *path, const struct stat *file, uint64_t length) {
    note((struct record){LENGTH, 0, file->st_ino, length, file->st_size, 0, 0}, path, NULL, NULL);
}

/* Makes a second name for a file that is about to lose its only one. */
static uint64_t bury(const char *path) {
    struct stat file;
    char grave[320];
    if (stat(path, &file) || !S_ISREG(file.st_mode)) return 0;
    snprintf(grave, sizeof grave, "%s/%lu", control->side, (unsigned long)file.st_ino);
    link(path, grave);
    return file.st_ino;
}

/* ---- the calls ---- */

static long refuse(const struct rule *rule, const struct call *call) {
    (void)call;
    if (rule->act == DIE_BEFORE) die();
    return -(long)rule->error;
}

static long finish(const struct rule *rule, long result) {
    if (rule && rule->act == DIE_AFTER) die();
    return result;
}

static int hits_early(const struct rule *rule) {
    return rule && (rule->act == FAIL || rule->act == DIE_BEFORE);
}

static long on_write(const struct call *call) {
    char path[512];
    struct stat file;
    int fd = call->a[0];
    int vector = call->number == SYS_writev || call->number == SYS_pwritev || call->number == SYS_pwritev2;
    if (!path_of(fd, path, sizeof path) || !ours(path)) return pass(call);
    struct call made = *call;
    struct rule *rule = due(WRITE, path);
    if (hits_early(rule)) return refuse(rule, call);
    if (rule && rule->act == SHORT) {
        if (vector) made.a[2] = made.a[2] > 1 ? made.a[2] / 2 : 1;
        else made.a[2] = made.a[2] > 1 ? made.a[2] / 2 : 1;
    }
    if (!journals()) return finish(rule, pass(&made));
    lock();
    fstat(fd, &file);
    int at_place = call->number == SYS_pwrite64 || call->number == SYS_pwritev || call->number == SYS_pwritev2;
    off_t at = at_place ? made.a[3] : fcntl(fd, F_GETFL) & O_APPEND ? file.st_size : lseek(fd, 0, SEEK_CUR);
    if (vector) {
        const struct iovec *parts = (const struct iovec *)made.a[1];
        for (long i = 0; i < made.a[2]; at += parts[i++].iov_len)
            note_range(fd, path, &file, at, parts[i].iov_len, parts[i].iov_base);
    } else {
        note_range(fd, path, &file, at, made.a[2], (const char *)made.a[1]);
    }
    long result = finish(rule, pass(&made));
    unlock();
    return result;
}

static long on_sync(const struct call *call) {
    char path[512];
    struct stat file;
    int fd = call->a[0];
    if (!path_of(fd, path, sizeof path) || !ours(path) || fstat(fd, &file)) return pass(call);
    struct rule *rule = due(S_ISDIR(file.st_mode) ? FOLDER_SYNC : SYNC, path);
    if (hits_early(rule)) return refuse(rule, call);
    if (!journals()) return finish(rule, pass(call));
    static _Atomic uint64_t syncs;
    uint64_t number = ((uint64_t)getpid() << 32) + atomic_fetch_add(&syncs, 1);
    struct record record = {SYNC_BEGIN, 0, file.st_ino, number, 0, 0, 0};
    lock();
    note(record, path, NULL, NULL);
    unlock();
    /* The power is not really cut, so octets need not reach a disk for the journal to record them as durable. */
    long result = 0;
    record.kind = SYNC_END;
    lock();
    note(record, path, NULL, NULL);
    unlock();
    return finish(rule, result);
}

/* ftruncate and fallocate. */
static long on_length(const struct call *call) {
    char path[512];
    struct stat file;
    int fd = call->a[0], allocates = call->number == SYS_fallocate;
    if (!path_of(fd, path, sizeof path) || !ours(path) || fstat(fd, &file)) return pass(call);
    struct rule *rule = due(allocates ? ALLOCATE : TRUNCATE, path);
    if (hits_early(rule)) return refuse(rule, call);
    if (!journals()) return finish(rule, pass(call));
    lock();
    uint64_t length = allocates ? (uint64_t)(call->a[2] + call->a[3]) : (uint64_t)call->a[1];
    if (allocates && call->a[1] & 0x3e) /* punches a hole, or writes zeros */
        note_range(fd, path, &file, call->a[2], call->a[3], NULL);
    else if (length < (uint64_t)file.st_size && !allocates)
        note_range(fd, path, &file, length, file.st_size - length, NULL);
    if (!(allocates && call->a[1] & 1)) note_length(path, &file, length);
    long result = finish(rule, pass(call));
    unlock();
    return result;
}

static long on_open(const struct call *call, int folder, const char *name, long flags) {
    char path[512];
    struct stat file;
    if (!path_at(folder, name, path, sizeof path) || !ours(path)) return pass(call);
    int there = !stat(path, &file);
    struct rule *rule = due((flags & O_CREAT && !there) ? CREATE | OPEN : OPEN, path);
    if (hits_early(rule)) return refuse(rule, call);
    if (!journals() || !(flags & (O_CREAT | O_TRUNC))) return finish(rule, pass(call));
    lock();
    if (there && flags & O_TRUNC && file.st_size) {
        int reader = pintle_gate(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
        if (reader >= 0) {
            note_range(reader, path, &file, 0, file.st_size, NULL);
            note_length(path, &file, 0);
            close(reader);
        }
    }
    long result = pass(call);
    if (result >= 0 && !there && !fstat(result, &file))
        note((struct record){CREATED, 0, file.st_ino, 0, 0, 0, 0}, path, NULL, NULL);
    unlock();
    return finish(rule, result);
}

static long on_unlink(const struct call *call, int folder, const char *name, long flags) {
    char path[512];
    if (flags & AT_REMOVEDIR || !path_at(folder, name, path, sizeof path) || !ours(path)) return pass(call);
    struct rule *rule = due(UNLINK, path);
    if (hits_early(rule)) return refuse(rule, call);
    if (!journals()) return finish(rule, pass(call));
    lock();
    uint64_t inode = bury(path);
    if (inode) note((struct record){UNLINKED, 0, inode, 0, 0, 0, 0}, path, NULL, NULL);
    long result = pass(call);
    unlock();
    return finish(rule, result);
}

static long on_rename(const struct call *call, int from_folder, const char *from, int to_folder, const char *to) {
    char source[512], target[512];
    struct stat file;
    if (!path_at(from_folder, from, source, sizeof source) || !path_at(to_folder, to, target, sizeof target)) return pass(call);
    if (!ours(source) && !ours(target)) return pass(call);
    struct rule *rule = due(RENAME, target);
    if (hits_early(rule)) return refuse(rule, call);
    if (!journals() || stat(source, &file)) return finish(rule, pass(call));
    lock();
    uint64_t replaced = bury(target);
    struct record record = {RENAMED, 0, file.st_ino, replaced, 0, strlen(target), 0};
    note(record, source, target, NULL);
    long result = pass(call);
    unlock();
    return finish(rule, result);
}

static long on_call(const struct call *call) {
    const long *a = call->a;
    switch (call->number) {
    case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev: case SYS_pwritev2: return on_write(call);
    case SYS_fsync: case SYS_fdatasync: return on_sync(call);
    case SYS_ftruncate: case SYS_fallocate: return on_length(call);
    case SYS_openat: return on_open(call, a[0], (const char *)a[1], a[2]);
    case SYS_unlinkat: return on_unlink(call, a[0], (const char *)a[1], a[2]);
    case SYS_renameat2: return on_rename(call, a[0], (const char *)a[1], a[2], (const char *)a[3]);
#ifdef SYS_renameat
    case SYS_renameat: return on_rename(call, a[0], (const char *)a[1], a[2], (const char *)a[3]);
#endif
#ifdef SYS_open
    case SYS_open: return on_open(call, AT_FDCWD, (const char *)a[0], a[1]);
    case SYS_unlink: return on_unlink(call, AT_FDCWD, (const char *)a[0], 0);
    case SYS_rename: return on_rename(call, AT_FDCWD, (const char *)a[0], AT_FDCWD, (const char *)a[1]);
#endif
    /* Programs that copy by these calls fall back to read and write, which are caught. */
    case SYS_copy_file_range: case SYS_sendfile: return -ENOSYS;
    default: return pass(call);
    }
}

static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal;
    int saved = errno;
    mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    greg_t *r = machine->gregs;
    struct call call = {info->si_syscall, {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]}};
    r[REG_RAX] = on_call(&call);
#else
    unsigned long long *r = machine->regs;
    struct call call = {info->si_syscall, {r[0], r[1], r[2], r[3], r[4], r[5]}};
    r[0] = on_call(&call);
#endif
    errno = saved;
}

/* ---- the clock ---- */

static int (*real_clock)(clockid_t, struct timespec *);

static void read_clock(clockid_t clock, struct timespec *to) {
    if (real_clock) real_clock(clock, to);
    else pintle_gate(SYS_clock_gettime, clock, (long)to, 0, 0, 0, 0);
}

static int64_t nanoseconds(struct timespec time) {
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static struct timespec of_day(void) {
    struct timespec now, steady;
    read_clock(CLOCK_REALTIME, &now);
    if (!control) return now;
    read_clock(CLOCK_MONOTONIC, &steady);
    int64_t passed = nanoseconds(steady) - atomic_load(&control->since);
    int64_t all = nanoseconds(now) + atomic_load(&control->offset) + passed / 1000000 * atomic_load(&control->drift);
    return (struct timespec){all / 1000000000LL, all % 1000000000LL};
}

int clock_gettime(clockid_t clock, struct timespec *to) {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
        read_clock(clock, to);
        return 0;
    }
    *to = of_day();
    return 0;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    (void)zone;
    struct timespec now = of_day();
    *to = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *to) {
    time_t now = of_day().tv_sec;
    if (to) *to = now;
    return now;
}

/* ---- start-up ---- */

static void give_up(const char *what) {
    fprintf(stderr, "shim: %s: %s\n", what, strerror(errno));
    _exit(97);
}

static void catch_calls(void) {
    static const int numbers[] = {SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2, SYS_fsync, SYS_fdatasync,
                                  SYS_ftruncate, SYS_fallocate, SYS_openat, SYS_unlinkat, SYS_renameat2,
                                  SYS_copy_file_range, SYS_sendfile,
#ifdef SYS_renameat
                                  SYS_renameat,
#endif
#ifdef SYS_open
                                  SYS_open, SYS_unlink, SYS_rename,
#endif
    };
    enum { COUNT = sizeof numbers / sizeof *numbers };
    struct sock_filter filter[COUNT + 10];
    int at = 0;
    uint64_t gate = (uint64_t)pintle_gate_end;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < COUNT; i++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, numbers[i], COUNT - i, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)gate, 0, 2);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4);
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(gate >> 32), 1, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {at, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        give_up("seccomp filters are not to be had here");
}

__attribute__((constructor)) static void begin(void) {
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *file = getenv("PINTLE_SHIM");
    if (!file) return;
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd < 0) give_up(file);
    struct control *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED || mapped->magic != MAGIC) give_up("the control file");
    close(fd);
    control = mapped;
    root_length = strlen(control->root);
    if (atomic_load(&control->journal)) {
        char path[320];
        snprintf(path, sizeof path, "%s/journal", control->side);
        journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (journal < 0) give_up(path);
    }
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigfillset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, NULL)) give_up("a handler of SIGSYS");
    catch_calls();
}
