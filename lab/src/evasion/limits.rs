//! What Clew does not see, and why: the documented limits.

/// Why a case may have an effect that nobody reports.
pub(crate) fn limit(case: &str) -> Option<&'static str> {
    LIMITS.iter().find(|(name, _)| *name == case).map(|it| it.1)
}

/// Case, and the reason in plain words.
const LIMITS: [(&str, &str); 7] = [
    (
        "af-packet",
        "packet sockets pass no hook but that of every capability check on the host, for which every \
         process would pay; they need CAP_NET_RAW, which a service should not have",
    ),
    (
        "handoff-unix",
        "a process that ran before does the work on its own account: what passes between two processes \
         over a unix socket is not followed",
    ),
    (
        "handoff-pipe",
        "as with a unix socket: what passes through a pipe is not followed",
    ),
    (
        "handoff-database",
        "the service may talk to its database; what the database does with it is another service's deed",
    ),
    (
        "queue-file",
        "what is written to a file is not followed to whoever reads it",
    ),
    (
        "at-cron",
        "as with a queue file: a daemon that reads a job file works for nobody's request",
    ),
    (
        "dns-exfiltration",
        "a profile says where a service may connect, not what it may say there: the resolver that it needs \
         carries any name",
    ),
];
