/* Evasions that hand the work to a process that was running before: a request never reaches it, only
 * what a request left behind. And that process, the helper: it runs what it is handed. */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static struct sockaddr_un door(const char *work) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s/door", work);
    return at;
}

static void by_unix(struct request *r) {
    struct sockaddr_un at = door(r->work);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int done = connect(fd, (struct sockaddr *)&at, sizeof at);
    note(r, "unix socket: %s", done ? strerror(errno) : "done");
    dprintf(fd, "%s\n", r->mark);
    close(fd);
}

static void by_pipe(struct request *r) {
    char path[300];
    int fd = open(in_work(r, "pipe", path, sizeof path), O_WRONLY | O_CLOEXEC);
    dprintf(fd, "%s\n", r->mark);
    close(fd);
}

/* As `COPY ... TO PROGRAM` does it: over a connection that the profile allows. */
static void by_database(struct request *r) {
    struct sockaddr_in at = sink(r);
    at.sin_port = htons(r->database);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int done = connect(fd, (struct sockaddr *)&at, sizeof at);
    note(r, "database: %s", done ? strerror(errno) : "done");
    dprintf(fd, "%s\n", r->mark);
    close(fd);
}

static void leave(struct request *r, const char *folder) {
    char path[300], made[400];
    snprintf(path, sizeof path, "%s/%s/.new", r->work, folder);
    snprintf(made, sizeof made, "%s/%s/job", r->work, folder);
    FILE *file = fopen(path, "we");
    if (!file) return;
    fprintf(file, "%s\n", r->mark);
    fclose(file);
    rename(path, made);
}

static void by_queue(struct request *r) { leave(r, "queue"); }
static void by_cron(struct request *r) { leave(r, "cron"); }

const struct evasion handoffs[] = {
    {"handoff-unix", by_unix},   {"handoff-pipe", by_pipe}, {"handoff-database", by_database},
    {"queue-file", by_queue},    {"at-cron", by_cron},      {0},
};

/* Runs the payload for the mark that a line names. */
static void obey(const char *work, FILE *from) {
    char mark[256], path[300];
    if (!from || !fgets(mark, sizeof mark, from)) return;
    mark[strcspn(mark, "\n")] = 0;
    if (mark[0] != '/') return;
    snprintf(path, sizeof path, "%s/payload", work);
    char *argv[] = {"payload", mark, NULL};
    pid_t child;
    if (posix_spawn(&child, path, NULL, NULL, argv, environ) == 0) waitpid(child, NULL, 0);
}

static void *serve(void *given) {
    int listener = *(int *)given;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        FILE *stream = fdopen(fd, "re");
        obey(getenv("WORK"), stream);
        if (stream) fclose(stream);
    }
    return NULL;
}

static void *read_pipe(void *given) {
    char path[300];
    snprintf(path, sizeof path, "%s/pipe", getenv("WORK"));
    mkfifo(path, 0600);
    for (;;) {
        FILE *stream = fopen(path, "re");
        obey(getenv("WORK"), stream);
        if (stream) fclose(stream);
    }
    return given;
}

/* The resolver: who looks up a name in `evil.example` has told it a secret. */
static void *resolve(void *given) {
    int fd = *(int *)given;
    unsigned char query[512];
    char path[1024];
    for (;;) {
        ssize_t length = recv(fd, query, sizeof query - 1, 0);
        if (length < 20 || query[12] > 60 || 13 + query[12] >= length) continue;
        query[13 + query[12]] = 0;
        snprintf(path, sizeof path, "%s/marks/%s", getenv("WORK"), (char *)query + 13);
        if (!strchr((char *)query + 13, '/')) close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    }
    return NULL;
}

static void poll_folder(const char *folder) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s/job", getenv("WORK"), folder);
    FILE *job = fopen(path, "re");
    if (!job) return;
    obey(getenv("WORK"), job);
    fclose(job);
    unlink(path);
}

int helper(const char *work) {
    static int listener, resolver, local;
    char path[300];
    setenv("WORK", work, 1);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", work, i ? "queue" : "cron");
        mkdir(path, 0755);
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    resolver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un unix_at = door(work);
    unlink(unix_at.sun_path);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || getsockname(listener, (struct sockaddr *)&at, &size) ||
        bind(resolver, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024) ||
        bind(local, (struct sockaddr *)&unix_at, sizeof unix_at) || listen(local, 16)) {
        perror("helper");
        return 1;
    }
    pthread_t thread;
    pthread_create(&thread, NULL, serve, &listener);
    pthread_create(&thread, NULL, serve, &local);
    pthread_create(&thread, NULL, resolve, &resolver);
    pthread_create(&thread, NULL, read_pipe, NULL);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    for (;;) {
        usleep(50 * 1000);
        poll_folder("queue");
        poll_folder("cron");
    }
}
