/* A small HTTP/1.1 service, a thread for each connection, whose handlers attack from within.
 *
 * evasion MODE WORK DATABASE    serves; MODE says how it reads requests: plain, prefork, io-uring,
 *                               splice or zero-copy. Prints its port.
 * evasion helper WORK           the process beside it. Prints the port of its database.
 * evasion knock FROM PORT TARGET   a client that comes from a port of its choice.
 *
 * GET /run?case=NAME&mark=NAME&port=N   carries out an evasion; the mark is WORK/marks/NAME
 * GET /benign                           what the profile allows, which must work; `?id=1`: leaves the
 *                                       thread's id in WORK/tid
 * GET /echo                             the request's head, as it came
 * GET /peer                             the port that the connection came from
 * GET /wait?ms=N                        the same as /echo, but the end of it only after a while
 */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *mode, *work;
static int database;

/* Reads what is there to read, in this backend's way; 0 at the end, negative on failure. */
static ssize_t take(int fd, char *to, size_t size) {
    if (!strcmp(mode, "io-uring")) {
        struct ring *ring = ring_open(0);
        if (!ring) return -1;
        int got = ring_recv(ring, fd, to, size);
        ring_close(ring);
        return got;
    }
    if (!strcmp(mode, "splice")) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC)) return -1;
        ssize_t got = splice(fd, NULL, ends[1], NULL, size, 0);
        if (got > 0) got = read(ends[0], to, got);
        close(ends[0]);
        close(ends[1]);
        return got;
    }
    if (!strcmp(mode, "zero-copy")) {
        /* Less than a page is copied, but by this call, not by recv (net/ipv4/tcp.c). */
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        poll(&ready, 1, 5000);
        void *pages = mmap(NULL, 4096 * 4, PROT_READ, MAP_SHARED, fd, 0);
        struct tcp_zerocopy_receive zc = {.address = (unsigned long)pages, .length = 4096 * 4,
                                          .copybuf_address = (unsigned long)to, .copybuf_len = size};
        socklen_t length = sizeof zc;
        int done = getsockopt(fd, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &zc, &length);
        if (done == 0 && zc.length) memcpy(to, pages, zc.length);
        if (pages != MAP_FAILED) munmap(pages, 4096 * 4);
        return done ? -1 : zc.length ? (ssize_t)zc.length : zc.copybuf_len;
    }
    return recv(fd, to, size, 0);
}

/* The value of a parameter of the query; whether it is there. */
static int parameter(const char *target, const char *name, char *to, size_t size) {
    for (const char *at = strpbrk(target, "?&"); at; at = strpbrk(at + 1, "?& ")) {
        size_t length = strlen(name);
        if (*at == ' ') break;
        if (strncmp(at + 1, name, length) || at[1 + length] != '=') continue;
        snprintf(to, size, "%.*s", (int)strcspn(at + 2 + length, "& "), at + 2 + length);
        return 1;
    }
    return 0;
}

static int number(const char *target, const char *name) {
    char text[16] = "";
    return parameter(target, name, text, sizeof text) ? atoi(text) : 0;
}

static const char *run(const char *target) {
    struct request r = {.database = database};
    char mark[64] = "";
    const struct evasion *tables[] = {flows, rings, programs, lineages, handoffs};
    snprintf(r.work, sizeof r.work, "%s", work);
    parameter(target, "case", r.name, sizeof r.name);
    parameter(target, "mark", mark, sizeof mark);
    snprintf(r.mark, sizeof r.mark, "%s/marks/%s", work, mark);
    r.port = number(target, "port");
    for (size_t table = 0; table < sizeof tables / sizeof *tables; table++)
        for (const struct evasion *it = tables[table]; it->name; it++)
            if (!strcmp(it->name, r.name)) {
                it->run(&r);
                return "done\n";
            }
    return "no such case\n";
}

static int child_status(const char *path, char *const argv[]) {
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execv(path, argv);
        _exit(127);
    }
    waitpid(child, &status, 0);
    return status;
}

/* What any visitor causes: a program, a fixed shell command, the database, a name looked up. */
static const char *benign(int leave_id) {
    char *plain[] = {"true", NULL}, *shell[] = {"sh", "-c", ":", NULL}, path[300];
    struct request r = {.port = database};
    struct sockaddr_in to = sink(&r);
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int bad = child_status("/bin/true", plain) || child_status("/bin/sh", shell) ||
              connect(tcp, (struct sockaddr *)&to, sizeof to) || connect(udp, (struct sockaddr *)&to, sizeof to) ||
              send(udp, "\0\0\0\0\0\0\0\0", 8, 0) != 8;
    close(tcp);
    close(udp);
    snprintf(path, sizeof path, "%s/tid", work);
    FILE *file = leave_id ? fopen(path, "we") : NULL;
    if (file) fprintf(file, "%d\n", gettid()), fclose(file);
    return bad ? "stopped\n" : "fine\n";
}

static void answer(int fd, const char *status, const char *body) {
    char text[8192];
    int length = snprintf(text, sizeof text,
                          "HTTP/1.1 %s\r\nContent-Length: %zu\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n%s",
                          status, strlen(body), body);
    if (send(fd, text, length, MSG_NOSIGNAL) < 0) return;
}

static void handle(int fd, char *head) {
    const char *target = strchr(head, ' ');
    char *end = target ? strpbrk(target + 1, " \r") : NULL;
    if (!end) return;
    if (!strncmp(target, " /echo", 6)) {
        answer(fd, "200 OK", head);
        return;
    }
    char *line = strndup(target + 1, end - target - 1);
    if (!strncmp(line, "/run?", 5)) {
        answer(fd, "200 OK", run(line));
    } else if (!strncmp(line, "/benign", 7)) {
        const char *body = benign(strstr(line, "id=") != NULL);
        answer(fd, *body == 'f' ? "200 OK" : "500 Failed", body);
    } else if (!strncmp(line, "/peer", 5)) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        char port[8] = "";
        if (getpeername(fd, (struct sockaddr *)&peer, &size) == 0) snprintf(port, sizeof port, "%d", ntohs(peer.sin_port));
        answer(fd, "200 OK", port);
    } else if (!strncmp(line, "/wait", 5)) {
        /* The head at once, so that a client may know it while its request lives. */
        dprintf(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", head);
        usleep(number(line, "ms") * 1000);
        if (send(fd, "end\n", 4, MSG_NOSIGNAL) < 0) shutdown(fd, SHUT_RDWR);
    } else {
        answer(fd, "404 Not Found", "");
    }
    free(line);
}

static void *converse(void *given) {
    int fd = (int)(long)given;
    char head[8192];
    size_t length = 0;
    while (length < sizeof head - 1) {
        ssize_t got = take(fd, head + length, sizeof head - 1 - length);
        if (got <= 0) break;
        length += got;
        head[length] = 0;
        if (strstr(head, "\r\n\r\n")) {
            handle(fd, head);
            break;
        }
    }
    /* What is left of a body is read, or the answer would be lost in a reset. */
    shutdown(fd, SHUT_WR);
    struct timeval patience = {.tv_usec = 200 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (recv(fd, head, sizeof head, 0) > 0) {}
    close(fd);
    return NULL;
}

static void serve(int listener) {
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (fd >= 0 && pthread_create(&thread, &detached, converse, (void *)(long)fd)) close(fd);
    }
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && !strcmp(argv[1], "helper")) return helper(argv[2]);
    if (argc == 5 && !strcmp(argv[1], "knock")) return knock(atoi(argv[2]), atoi(argv[3]), argv[4]);
    if (argc != 4) return 2;
    mode = argv[1];
    work = argv[2];
    database = atoi(argv[3]);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 512) ||
        getsockname(listener, (struct sockaddr *)&at, &size)) {
        perror("evasion");
        return 1;
    }
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    if (!strcmp(mode, "prefork")) {
        /* The child serves and dies with its parent. */
        if (fork()) {
            while (wait(NULL) > 0) {}
            return 0;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    serve(listener);
}
