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
#[derive(Clone, Copy, Debug)]
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
    /// Zero.
    pub pad: u32,
    /// Requests that have arrived.
    pub queue: [Arrival; QUEUE],
    /// The start of a token line that the last segment ended with.
    pub carry: [u8; CARRY],
}

/// A request that has arrived and may not have been read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The request.
    pub sequence: u64,
    /// TCP sequence number behind the token.
    pub end_seq: u32,
    /// Zero.
    pub pad: u32,
}

/// One TCP connection of this host; key of `EARLY`. IPv4 addresses are mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Address of its `struct net`: containers have the same addresses.
    pub net: u64,
    /// The other end's address, network order.
    pub peer: [u32; 4],
    /// This end's address, network order.
    pub local: [u32; 4],
    /// The other end's port, network order.
    pub peer_port: u16,
    /// This end's port, host order.
    pub local_port: u16,
    /// Zero.
    pub pad: u32,
}

/// What arrived on a connection that had no socket yet; value of `EARLY`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Early {
    /// When, `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    /// What will be known of the socket.
    pub socket: SocketContext,
}

/// Capacity of `EARLY`.
pub const EARLY: u32 = 16_384;

const _: () = assert!(size_of::<SocketContext>() == 216);
const _: () = assert!(size_of::<Flow>() == 48);
const _: () = assert!(size_of::<Early>() == 224);
