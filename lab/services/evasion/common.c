/* What the evasions share. */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void note(const struct request *r, const char *format, ...) {
    char path[300], line[400];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2) length = sizeof line - 2;
    line[length++] = '\n';
    snprintf(path, sizeof path, "%s.note", r->mark);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, line, length) != length) perror(path);
    close(fd);
}

void await(const struct request *r, pid_t child) {
    int status;
    if (child < 0) {
        note(r, "no child: %s", strerror(errno));
    } else if (waitpid(child, &status, __WALL) < 0) {
        note(r, "wait: %s", strerror(errno));
    } else if (WIFSIGNALED(status)) {
        note(r, "the child was killed by signal %d", WTERMSIG(status));
    } else {
        note(r, "the child exited with %d", WEXITSTATUS(status));
    }
}

const char *in_work(const struct request *r, const char *name, char *buffer, size_t size) {
    snprintf(buffer, size, "%s/%s", r->work, name);
    return buffer;
}

void become_payload(const struct request *r) {
    char path[300];
    char *argv[] = {"payload", (char *)r->mark, NULL};
    execv(in_work(r, "payload", path, sizeof path), argv);
    note(r, "execve: %s", strerror(errno));
}

void run_payload(const struct request *r) {
    pid_t child = fork();
    if (child == 0) {
        become_payload(r);
        _exit(127);
    }
    await(r, child);
}

void run_program(const struct request *r, const char *path, char *const argv[]) {
    pid_t child = fork();
    if (child == 0) {
        execv(path, argv);
        note(r, "execve: %s", strerror(errno));
        _exit(127);
    }
    await(r, child);
}

int copy(const char *from, const char *to) {
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    struct stat stat;
    int done = in >= 0 && out >= 0 && fstat(in, &stat) == 0 &&
               sendfile(out, in, NULL, stat.st_size) == stat.st_size;
    close(in);
    close(out);
    return done ? 0 : -1;
}

struct sockaddr_in sink(const struct request *r) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(r->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

void call_sink(const struct request *r) {
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int done = connect(fd, (struct sockaddr *)&to, sizeof to);
    note(r, "connect: %s", done ? strerror(errno) : "done");
    if (done == 0 && write(fd, "secret", 6) < 0) note(r, "write: %s", strerror(errno));
    close(fd);
}
