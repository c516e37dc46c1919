/* Evasions carried out from inside a request handler: what an attacker who has got in would try. */
#ifndef EVASION_H
#define EVASION_H

#include <netinet/in.h>
#include <sys/types.h>

/* One request for an evasion. */
struct request {
    char name[64];   /* which */
    char mark[256];  /* file whose existence proves that a program ran */
    char work[256];  /* directory with `payload`, `decoy` and the helper's doors */
    int port;        /* of a sink on loopback, TCP and UDP, that nothing may reach */
    int database;    /* of the helper, TCP and UDP, which the profile allows */
};

struct evasion {
    const char *name;
    void (*run)(struct request *);
};

/* Tables that end with a null name. */
extern const struct evasion flows[], rings[], programs[], lineages[], handoffs[];

/* Appends a line to MARK.note: what the handler saw, for people. */
void note(const struct request *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Notes how a child ended. */
void await(const struct request *r, pid_t child);
/* WORK/NAME, in a buffer of the caller. */
const char *in_work(const struct request *r, const char *name, char *buffer, size_t size);
/* Becomes the payload, which makes the mark. Returns only when it could not. */
void become_payload(const struct request *r);
/* Forks, becomes the payload, waits. */
void run_payload(const struct request *r);
/* Runs `path` with the arguments in a child, waits. */
void run_program(const struct request *r, const char *path, char *const argv[]);
/* Copies a file, executable for all. */
int copy(const char *from, const char *to);
struct sockaddr_in sink(const struct request *r);
/* Connects to the sink, sends a secret, closes. */
void call_sink(const struct request *r);

/* io_uring, just what the evasions need. */
struct ring;
struct ring *ring_open(unsigned flags);
void ring_close(struct ring *ring);
/* Each returns the completion's result. */
int ring_recv(struct ring *ring, int fd, void *buffer, unsigned size);

/* What the backend runs beside itself before Clew starts. */
int helper(const char *work);
/* Sends a request for `target` to a port on loopback, from the port `from`; 0 when it was answered. */
int knock(int from, int port, const char *target);

#endif
