/* Evasions about whose child it is, and about what is left of a request when others press. */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void by_vfork(struct request *r) {
    char path[300];
    char *argv[] = {"payload", r->mark, NULL};
    in_work(r, "payload", path, sizeof path);
    pid_t child = vfork();
    if (child == 0) {
        execv(path, argv);
        _exit(127);
    }
    await(r, child);
}

static void by_spawn(struct request *r) {
    char path[300];
    char *argv[] = {"payload", r->mark, NULL};
    pid_t child = -1;
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    errno = posix_spawn(&child, in_work(r, "payload", path, sizeof path), NULL, &attributes, argv, environ);
    await(r, child);
}

static void by_clone3(struct request *r) {
    struct clone_args how = {.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    pid_t child = syscall(SYS_clone3, &how, sizeof how);
    if (child == 0) {
        become_payload(r);
        _exit(127);
    }
    await(r, child);
}

/* A sibling, not a child: its parent is whoever started the backend. */
static void sibling(struct request *r) {
    struct clone_args how = {.flags = CLONE_PARENT};
    pid_t child = syscall(SYS_clone3, &how, sizeof how);
    if (child == 0) {
        become_payload(r);
        _exit(127);
    }
    note(r, "a sibling was made: %s", child < 0 ? strerror(errno) : "yes");
}

static void daemon_like(struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        setsid();
        if (fork() == 0) {
            usleep(50 * 1000);
            become_payload(r);
        }
        _exit(0);
    }
    await(r, child);
}

static void deep(struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        for (int depth = 1; depth < 20; depth++) {
            pid_t next = fork();
            if (next != 0) {
                waitpid(next, NULL, 0);
                _exit(0);
            }
        }
        become_payload(r);
        _exit(127);
    }
    await(r, child);
}

/* Other namespaces, and back into those of init. */
static void namespaces(struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID))
            note(r, "unshare: %s", strerror(errno));
        pid_t inner = fork();
        if (inner == 0) {
            become_payload(r);
            _exit(127);
        }
        await(r, inner);
        _exit(0);
    }
    await(r, child);
    child = fork();
    if (child == 0) {
        const char *doors[] = {"/proc/1/ns/net", "/proc/1/ns/mnt", "/proc/1/ns/uts"};
        for (int i = 0; i < 3; i++) {
            int fd = open(doors[i], O_RDONLY | O_CLOEXEC);
            if (setns(fd, 0)) note(r, "setns: %s", strerror(errno));
        }
        call_sink(r);
        become_payload(r);
        _exit(127);
    }
    await(r, child);
}

/* Out of the cgroup that the backend was started in, to one of its own. */
static void cgroup(struct request *r) {
    const char *roots[] = {"/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
    char path[128], door[160] = "";
    for (int i = 0; i < 2 && !*door; i++) {
        snprintf(path, sizeof path, "%s/clew-lab-%d", roots[i], gettid());
        if (mkdir(path, 0755) == 0) snprintf(door, sizeof door, "%s/cgroup.procs", path);
        if (*door && access(door, W_OK)) *door = 0;
    }
    pid_t child = fork();
    if (child == 0) {
        int fd = open(door, O_WRONLY | O_CLOEXEC);
        if (write(fd, "0", 1) != 1) note(r, "cgroup: %s", strerror(errno));
        call_sink(r);
        become_payload(r);
        _exit(127);
    }
    await(r, child);
    rmdir(path);
}

static void *late(void *given) {
    struct request *r = given;
    sleep(2);
    call_sink(r);
    run_payload(r);
    free(r);
    return NULL;
}

/* The response has long left when this begins. */
static void delayed(struct request *r) {
    struct request *own = malloc(sizeof *own);
    *own = *r;
    pthread_t thread;
    pthread_create(&thread, NULL, late, own);
    pthread_detach(thread);
    note(r, "a thread was left behind");
}

/* Allowed programs by the hundred, each an event, and the attack among them. */
static void flood(struct request *r) {
    pid_t children[8];
    for (int i = 0; i < 8; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        for (int round = 0; round < 200; round++) {
            pid_t child = vfork();
            if (child == 0) {
                execl("/bin/true", "true", (char *)NULL);
                _exit(127);
            }
            waitpid(child, NULL, 0);
            struct sockaddr_in to = sink(r);
            for (int call = 0; call < 50; call++) {
                int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
                connect(fd, (struct sockaddr *)&to, sizeof to);
                close(fd);
            }
        }
        _exit(0);
    }
    usleep(300 * 1000);
    run_payload(r);
    for (int i = 0; i < 8; i++) waitpid(children[i], NULL, 0);
    run_payload(r);
}

static int is_over(struct request *r) {
    char path[300];
    return access(in_work(r, "storm-over", path, sizeof path), F_OK) == 0;
}

/* Flows as fast as they can be asked for, each an event, and forks, until WORK/storm-over is there. The response
 * does not wait for them. */
static void storm(struct request *r) {
    for (int i = 0; i < 3; i++) {
        if (fork() != 0) continue;
        long done = 0;
        struct timespec begun, now;
        struct sockaddr_in to = sink(r);
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        clock_gettime(CLOCK_MONOTONIC, &begun);
        do {
            for (int n = 0; n < 512; n++, done++) {
                if (i < 2) {
                    connect(fd, (struct sockaddr *)&to, sizeof to);
                } else {
                    pid_t child = fork();
                    if (child == 0) _exit(0);
                    waitpid(child, NULL, 0);
                }
            }
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while (!is_over(r) && now.tv_sec - begun.tv_sec < 120);
        long ms = (now.tv_sec - begun.tv_sec) * 1000 + (now.tv_nsec - begun.tv_nsec) / 1000000;
        note(r, "%s %ld in %ld ms", i < 2 ? "connects" : "forks", done, ms);
        _exit(0);
    }
}

/* A hundred attempts, each of which would make a mark of its own. */
static void attempts(struct request *r) {
    char path[300], mark[300];
    int killed = 0;
    in_work(r, "payload", path, sizeof path);
    for (int n = 0; n < 100; n++) {
        int status;
        snprintf(mark, sizeof mark, "%s-%d", r->mark, n);
        char *argv[] = {"payload", mark, NULL};
        pid_t child = vfork();
        if (child == 0) {
            execv(path, argv);
            _exit(127);
        }
        if (waitpid(child, &status, 0) == child && WIFSIGNALED(status)) killed++;
    }
    note(r, "killed %d", killed);
}

static void *linger(void *given) {
    sleep(*(int *)given);
    return NULL;
}

/* As many sockets, threads and processes as one may have, all alive, then the attack. */
static void crowd(struct request *r) {
    int sockets[400], pause = 2;
    pid_t children[400];
    pthread_t threads[200];
    struct sockaddr_in to = sink(r);
    to.sin_port = htons(r->database);
    for (int i = 0; i < 400; i++) {
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        connect(sockets[i], (struct sockaddr *)&to, sizeof to);
    }
    for (int i = 0; i < 400; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            sleep(pause);
            _exit(0);
        }
    }
    for (int i = 0; i < 200; i++) pthread_create(&threads[i], NULL, linger, &pause);
    run_payload(r);
    for (int i = 0; i < 400; i++) kill(children[i], SIGKILL), waitpid(children[i], NULL, 0), close(sockets[i]);
    for (int i = 0; i < 200; i++) pthread_join(threads[i], NULL);
}

/* Whether the next process or thread gets the id `wanted`. */
static int ask_for_id(pid_t wanted) {
    FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "we");
    if (!last) return 0;
    fprintf(last, "%d", wanted - 1);
    return fclose(last) == 0;
}

/* A child with the id of one that has ended. */
static void pid_again(struct request *r) {
    pid_t first = fork();
    if (first == 0) _exit(0);
    waitpid(first, NULL, 0);
    for (int attempt = 0; attempt < 50; attempt++) {
        ask_for_id(first);
        pid_t child = fork();
        if (child == 0) {
            if (getpid() == first) become_payload(r);
            _exit(9);
        }
        int status;
        waitpid(child, &status, 0);
        if (child == first) {
            note(r, "the id came again: killed by signal %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            return;
        }
    }
    note(r, "the id did not come again");
}

static void *same_thread(void *given) {
    struct request *r = given;
    FILE *file;
    char path[300];
    int wanted = 0;
    /* The thread that served the last benign request left its id here. */
    if ((file = fopen(in_work(r, "tid", path, sizeof path), "re"))) {
        if (fscanf(file, "%d", &wanted) != 1) wanted = 0;
        fclose(file);
    }
    if (gettid() != wanted) return NULL;
    note(r, "the thread id of another request came again");
    run_payload(r);
    return r;
}

static void tid_again(struct request *r) {
    char path[300];
    int wanted = 0;
    FILE *file = fopen(in_work(r, "tid", path, sizeof path), "re");
    if (!file || fscanf(file, "%d", &wanted) != 1) note(r, "no thread id to use again");
    if (file) fclose(file);
    for (int attempt = 0; attempt < 50; attempt++) {
        pthread_t thread;
        void *done = NULL;
        ask_for_id(wanted);
        pthread_create(&thread, NULL, same_thread, r);
        pthread_join(thread, &done);
        if (done) return;
    }
    note(r, "the thread id did not come again");
}

const struct evasion lineages[] = {
    {"vfork", by_vfork},
    {"posix-spawn", by_spawn},
    {"clone3", by_clone3},
    {"clone-parent", sibling},
    {"double-fork-setsid", daemon_like},
    {"ancestry-20", deep},
    {"setns-unshare", namespaces},
    {"cgroup-move", cgroup},
    {"delayed-thread", delayed},
    {"event-flood", flood},
    {"storm", storm},
    {"attempts", attempts},
    {"map-eviction", crowd},
    {"pid-reuse", pid_again},
    {"tid-reuse", tid_again},
    {"started-before-sensor", (void (*)(struct request *))run_payload}, /* served by a child of the backend */
    /* Requests that come in a way of their own, and simply start a program. */
    {"exec", (void (*)(struct request *))run_payload},
    {0},
};
