/* Evasions about which program it is: every one ends in an exec that makes the mark. */
#define _GNU_SOURCE
#include "evasion.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* `sh -c 'echo >MARK'`, in a buffer of the caller. */
static char *command(const struct request *r, char *buffer, size_t size) {
    snprintf(buffer, size, "echo >%s", r->mark);
    return buffer;
}

/* Runs what `path` leads to as if it were the payload. */
static void run_as(const struct request *r, const char *path) {
    char *argv[] = {(char *)path, (char *)r->mark, NULL};
    run_program(r, path, argv);
}

/* A place of this request's own. */
static void fresh(const struct request *r, const char *name, char *path, size_t size) {
    snprintf(path, size, "%s/%s-%d", r->work, name, gettid());
    unlink(path);
}

/* Arguments that change while they are copied: a child shares the memory, as with vfork, and a thread
 * of the parent turns an allowed command into another and back. */
struct race {
    char *argv[4];
    char *allowed, *evil;
    volatile int over;
};

static void *turn(void *given) {
    struct race *race = given;
    while (!race->over) {
        __atomic_store_n(&race->argv[2], race->evil, __ATOMIC_RELAXED);
        __atomic_store_n(&race->argv[2], race->allowed, __ATOMIC_RELAXED);
    }
    return NULL;
}

static int become_raced(void *given) {
    struct race *race = given;
    execve("/bin/sh", race->argv, environ);
    _exit(127);
}

static void argv_race(struct request *r) {
    char evil[300];
    struct race race = {.argv = {"sh", "-c", ":", NULL}, .allowed = ":", .evil = command(r, evil, sizeof evil)};
    pthread_t thread;
    char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int killed = 0;
    pthread_create(&thread, NULL, turn, &race);
    for (int round = 0; round < 200; round++) {
        int status = 0;
        pid_t child = clone(become_raced, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD, &race);
        waitpid(child, &status, 0);
        killed += WIFSIGNALED(status);
    }
    race.over = 1;
    pthread_join(thread, NULL);
    munmap(stack, 65536);
    note(r, "%d of 200 children were killed", killed);
}

/* The name of the program changes its target while it is looked up. */
struct swap {
    char name[300], spare[300];
    const char *allowed, *evil;
    volatile int over;
};

static void *swap_links(void *given) {
    struct swap *swap = given;
    for (int turn = 0; !swap->over; turn++) {
        if (symlink(turn & 1 ? swap->evil : swap->allowed, swap->spare) == 0) rename(swap->spare, swap->name);
    }
    return NULL;
}

static void path_race(struct request *r) {
    char payload[300];
    struct swap swap = {.allowed = "/bin/true", .evil = in_work(r, "payload", payload, sizeof payload)};
    fresh(r, "raced", swap.name, sizeof swap.name);
    fresh(r, "spare", swap.spare, sizeof swap.spare);
    pthread_t thread;
    int killed = 0;
    pthread_create(&thread, NULL, swap_links, &swap);
    for (int round = 0; round < 200; round++) {
        int status = 0;
        usleep(round % 7 * 30); /* out of step with the other thread */
        pid_t child = fork();
        if (child == 0) {
            char *argv[] = {"true", (char *)r->mark, NULL};
            execv(swap.name, argv);
            _exit(127);
        }
        waitpid(child, &status, 0);
        killed += WIFSIGNALED(status);
    }
    swap.over = 1;
    pthread_join(thread, NULL);
    unlink(swap.name);
    unlink(swap.spare);
    note(r, "%d of 200 children were killed", killed);
}

static int memory_file(const struct request *r) {
    char payload[300], path[64];
    int fd = memfd_create("x", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (copy(in_work(r, "payload", payload, sizeof payload), path)) note(r, "memfd: %s", strerror(errno));
    /* Reopened to read: a file that is open to write is not run. */
    int again = open(path, O_RDONLY | O_CLOEXEC);
    close(fd);
    return again;
}

static void exec_at(struct request *r) {
    int fd = memory_file(r);
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {"x", r->mark, NULL};
        syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
        note(r, "execveat: %s", strerror(errno));
        _exit(127);
    }
    await(r, child);
    close(fd);
}

static void exec_descriptor(struct request *r) {
    int fd = memory_file(r);
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {"x", r->mark, NULL};
        fexecve(fd, argv, environ);
        note(r, "fexecve: %s", strerror(errno));
        _exit(127);
    }
    await(r, child);
    close(fd);
}

static void deleted(struct request *r) {
    char payload[300], gone[300], path[64];
    fresh(r, "gone", gone, sizeof gone);
    copy(in_work(r, "payload", payload, sizeof payload), gone);
    int fd = open(gone, O_RDONLY | O_CLOEXEC);
    unlink(gone);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    run_as(r, path);
    close(fd);
}

static void shared_memory(struct request *r) {
    char payload[300], path[64];
    snprintf(path, sizeof path, "/dev/shm/clew-lab-%d", gettid());
    copy(in_work(r, "payload", payload, sizeof payload), path);
    run_as(r, path);
    unlink(path);
}

/* The loader is the program; what it loads is only data to it. */
static void loader(struct request *r) {
    char payload[300];
    char *argv[] = {"ld.so", (char *)in_work(r, "payload", payload, sizeof payload), r->mark, NULL};
    run_program(r, "/lib64/ld-linux-x86-64.so.2", argv);
}

static void script(const char *path, const char *interpreter, const char *body) {
    FILE *file = fopen(path, "we");
    if (!file) return;
    fprintf(file, "#!%s\n%s\n", interpreter, body);
    fchmod(fileno(file), 0755);
    fclose(file);
}

/* A script whose interpreter is a script whose interpreter is the shell. */
static void shebang(struct request *r) {
    char inner[300], outer[300], body[300];
    fresh(r, "inner", inner, sizeof inner);
    fresh(r, "outer", outer, sizeof outer);
    script(inner, "/bin/sh", command(r, body, sizeof body));
    script(outer, inner, "");
    run_as(r, outer);
    unlink(inner);
    unlink(outer);
}

static void by_link(struct request *r, int make(const char *, const char *)) {
    char payload[300], path[300];
    fresh(r, "true", path, sizeof path);
    if (make(in_work(r, "payload", payload, sizeof payload), path)) note(r, "link: %s", strerror(errno));
    run_as(r, path);
    unlink(path);
}

static void symbolic_link(struct request *r) { by_link(r, symlink); }

static void hard_link(struct request *r) { by_link(r, link); }

/* The payload lies over a program that the profile allows, in a mount namespace of the child's own. */
static void bind_mount(struct request *r) {
    char payload[300];
    pid_t child = fork();
    if (child == 0) {
        in_work(r, "payload", payload, sizeof payload);
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mount(payload, "/bin/true", NULL, MS_BIND, NULL))
            note(r, "mount: %s", strerror(errno));
        char *argv[] = {"/bin/true", r->mark, NULL};
        execv("/bin/true", argv);
        _exit(127);
    }
    await(r, child);
}

static void relative(struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        char *argv[] = {"../../bin/true", r->mark, NULL};
        if (chdir(r->work) == 0) execv("./payload", argv);
        _exit(127);
    }
    await(r, child);
}

static void renamed_shell(struct request *r) {
    char path[300], body[300];
    fresh(r, "true", path, sizeof path);
    copy("/bin/sh", path);
    char *argv[] = {"true", "-c", command(r, body, sizeof body), NULL};
    run_program(r, path, argv);
    unlink(path);
}

static void busybox(struct request *r) {
    char body[300];
    char *argv[] = {"busybox", "sh", "-c", command(r, body, sizeof body), NULL};
    if (access("/bin/busybox", X_OK)) note(r, "busybox is missing");
    run_program(r, "/bin/busybox", argv);
}

static void spoofed_name(struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_NAME, "kworker/0:1");
        become_payload(r);
        _exit(127);
    }
    await(r, child);
}

/* The allowed command, then more blanks than any record holds, then the other one. */
static void padded(struct request *r) {
    static const size_t size = 100 * 1024;
    char *text = malloc(size + 400);
    memset(text, ' ', size);
    text[0] = ':';
    text[size - 1] = ';';
    command(r, text + size, 400);
    char *argv[] = {"sh", "-c", text, NULL};
    run_program(r, "/bin/sh", argv);
    free(text);
}

/* A word that careless rules let pass. */
static void health_check(struct request *r) {
    char text[300];
    snprintf(text, sizeof text, "echo healthcheck >%s", r->mark);
    char *argv[] = {"healthcheck", "-c", text, "healthcheck", NULL};
    run_program(r, "/bin/sh", argv);
}

const struct evasion programs[] = {
    {"argv-toctou", argv_race},
    {"path-toctou", path_race},
    {"execveat-memfd", exec_at},
    {"fexecve-memfd", exec_descriptor},
    {"deleted-binary", deleted},
    {"dev-shm", shared_memory},
    {"ld-so", loader},
    {"shebang-chain", shebang},
    {"symlink", symbolic_link},
    {"hardlink", hard_link},
    {"bind-mount", bind_mount},
    {"relative-path", relative},
    {"renamed-shell", renamed_shell},
    {"busybox", busybox},
    {"comm-spoof", spoofed_name},
    {"padded-argv", padded},
    {"healthcheck-argv", health_check},
    {0},
};
