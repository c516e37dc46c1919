//! What is known of one TCP socket of a backend.

/// Requests that may wait, unread, on one connection.
pub const QUEUE: usize = 8;

/// Most bytes of a token line that can be left over at the end of a segment.
pub const CARRY: usize = 48;

/// Value of the `SOCKETS` socket storage.
///
/// Ingress writes everything but `tail` and `current`, which the reader of the socket writes, and
/// `sent` and `sent_any`, which egress writes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SocketContext {
    /// The request being worked on: the last one read. 0: none yet.
    pub current: u64,
    /// Sequence number (TCP) that the next unseen byte has.
    pub next_seq: u32,
    /// The service, by entry port.
    pub service: u32,
    /// Requests queued so far (wrapping).
    pub head: u32,
    /// Requests read so far (wrapping).
    pub tail: u32,
    /// Bytes in `carry`.
    pub carried: u32,
    /// 1 once a token was accepted: every byte is searched from then on.
    pub tagged: u8,
    /// 1 while an untagged connection's request line is being searched.
    pub in_line: u8,
    /// 1: a request could not be queued.
    pub overflowed: u8,
    /// 1 once payload has been sent.
    pub sent_any: u8,
    /// Sequence number (TCP) behind the payload sent so far.
    pub sent: u32,
    pub pad: u32,
    /// Requests that have arrived.
    pub queue: [Arrival; QUEUE],
    /// The start of a token line that the last segment ended with.
    pub carry: [u8; CARRY],
}

/// A request that has arrived and may not have been read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Arrival {
    pub sequence: u64,
    /// TCP sequence number behind the token.
    pub end_seq: u32,
    pub pad: u32,
}
