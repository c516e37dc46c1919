//! What is known of one socket of a backend.

/// Requests that may wait, unread, on one connection.
pub const QUEUE: usize = 8;

/// Most bytes of a token line that can be left over at the end of a segment.
pub const CARRY: usize = 48;

/// Value of the `SOCKETS` socket storage.
///
/// Two CPUs work on it: what has arrived is written where the packet comes in, what was read where
/// the backend runs. Neither writes to a cache line of the other's, so a request moves one line, once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketContext {
    /// Written by ingress alone.
    pub arrived: Arrived,
    /// Written by the reader of the socket alone.
    pub read: Read,
}

/// What has arrived at a socket.
///
/// What a request needs that comes in one segment lies in the first 56 bytes: the kernel keeps them
/// in one cache line with its own head of the storage.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// The request that arrived last.
    pub newest: Arrival,
    /// Sequence number (TCP) that the next unseen byte has.
    pub next_seq: u32,
    /// The service that the request which arrived last is for.
    pub service: u32,
    /// Requests that have arrived so far (wrapping).
    pub head: u32,
    /// Bytes in `carry`.
    pub carried: u32,
    /// 1 once a token was accepted: every byte is searched from then on.
    pub tagged: u8,
    /// One of the `LINE_*`: where in a head the search is, on a connection that is not searched whole.
    pub in_line: u8,
    /// 1 once a service's port was sent what did not come through Clew.
    pub stranger: u8,
    /// 1 where a service is entered by the socket's port.
    pub is_entry: u8,
    /// 1 where the last request had been accepted before, at another socket.
    pub hop: u8,
    /// One of the `SIDE_*`.
    pub side: u8,
    /// How the sender of the last request carried what it was sent for, one of the `STRENGTH_*` of
    /// [`crate::record`]; 0 where its own token says what request it is.
    pub handed: u8,
    /// Zero.
    pub pad: u8,
    /// Thread group id of the backend that sent it, where `handed` is not 0.
    pub from: u32,
    /// [`Sender::stranger`] of who sent it.
    pub stranger_at: u32,
    /// Zero.
    pub pad_sent: u32,
    /// `tcp_sock.snd_nxt` when that token came: what differs was sent after it.
    pub sent: u32,
    /// The last requests to arrive: the n-th at index n % [`QUEUE`].
    pub queue: [Arrival; QUEUE],
    /// The start of a token line that the last segment ended with.
    pub carry: [u8; CARRY],
    /// The request that the head which is arriving was sent for, if it has no token; 0: none, or not known.
    pub sent_for: u64,
    /// What `handed` is for it.
    pub sent_as: u8,
    /// Zero.
    pub end: [u8; 7],
}

impl Arrived {
    /// A head has arrived that carries no token of this proxy's. Only a service's own ports matter:
    /// elsewhere what looks like a head may be anything.
    #[inline(always)]
    pub fn estrange(&mut self) {
        if self.tagged == 0 && self.is_entry != 0 {
            self.stranger = 1;
        }
    }
}

/// Value of the `SENDERS` socket storage: for whom what a backend sends on a connection of its own is sent.
///
/// It is written by who holds the socket's lock, and read where the other end receives: on the same CPU
/// where both are on one host, as a rule. `turn` is odd while it is being written.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sender {
    /// Writings begun and ended, in all.
    pub turn: u32,
    /// TCP sequence number of the first byte that is sent for it.
    pub since: u32,
    /// The request that the sending task carries; 0: none.
    pub sequence: u64,
    /// The service that the request is for.
    pub service: u32,
    /// Thread group id of the backend.
    pub tgid: u32,
    /// When its process last read what did not come through Clew, where it may be for that; see
    /// [`crate::record::TaskContext::stranger`].
    pub stranger: u32,
    /// How it carries the request: one of the `STRENGTH_*` of [`crate::record`].
    pub strength: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Nobody has looked whether somebody listens on the socket's port.
pub const SIDE_UNKNOWN: u8 = 0;
/// Somebody does: requests come in here.
pub const SIDE_SERVER: u8 = 1;
/// Nobody does: what comes in here are responses, whatever they look like.
pub const SIDE_CLIENT: u8 = 2;
/// A service is entered here whose requests are announced: their bytes cannot be read.
pub const SIDE_OPAQUE: u8 = 3;

/// Value of the `PORTS` map: a service is entered there, with tokens in its requests.
pub const PORT_PLAIN: u32 = 1;
/// As above, with requests that are announced.
pub const PORT_OPAQUE: u32 = 2;

/// No head is being searched.
pub const LINE_NONE: u8 = 0;
/// The request line is; only behind it can a token be.
pub const LINE_FIRST: u8 = 1;
/// The request line is; a token may be in any line behind it.
pub const LINE_HEAD: u8 = 2;
/// A line behind it is.
pub const LINE_LATER: u8 = 3;

/// What was read from a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The request being worked on: the last one read. 0: none yet.
    pub current: u64,
    /// Requests read so far (wrapping).
    pub tail: u32,
    /// What the last read took: twice the number of requests, and 1 when some had got lost.
    pub taken: u32,
}

/// A request that has arrived, in two words that are each written and read at once: who finds its
/// number in both has neither read parts of two nor one that came later.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// The arrival's number modulo 65,536 above the 48 bits of the request's sequence.
    pub request: u64,
    /// The arrival's number above the TCP sequence number behind the token.
    pub end: u64,
}

/// The bits of a request's sequence.
pub const SEQUENCE: u64 = 0xffff_ffff_ffff;

impl Arrival {
    /// The `nth` request on its socket (wrapping), whose token ends before `end_seq`.
    #[inline(always)]
    pub fn new(nth: u32, sequence: u64, end_seq: u32) -> Self {
        Self {
            request: u64::from(nth) << 48 | sequence,
            end: u64::from(nth) << 32 | u64::from(end_seq),
        }
    }

    /// Sequence and `end_seq` of the `nth` request, if this is it.
    ///
    /// ```
    /// # use clew_sensor_abi::socket::Arrival;
    /// let fifth = Arrival::new(5, 77, 900);
    /// assert_eq!(fifth.of(5), Some((77, 900)));
    /// assert_eq!(fifth.of(4), None);
    /// let torn = Arrival { end: Arrival::new(6, 78, 901).end, ..fifth };
    /// assert!(torn.of(5).is_none() && torn.of(6).is_none());
    /// ```
    #[inline(always)]
    pub fn of(self, nth: u32) -> Option<(u64, u32)> {
        let sequence = self.request & SEQUENCE;
        let whole = (self.request >> 48) as u16 == nth as u16 && (self.end >> 32) as u32 == nth;
        (whole && sequence != 0).then_some((sequence, self.end as u32))
    }
}

/// Value of the `HOPS` socket storage: what is known of a unix socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HopContext {
    /// The request that was read last. 0: none yet.
    pub sequence: u64,
    /// The service that it is for.
    pub service: u32,
    /// One of the `HOP_*`.
    pub stage: u8,
    /// 1 once anything was written to the socket after that request.
    pub answered: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// Whatever comes next tells by itself what it is.
pub const HOP_IDLE: u8 = 0;
/// A FastCGI request has begun; its parameters are next.
pub const HOP_BEGUN: u8 = 1;
/// The head of the record that holds them was read; they are next.
pub const HOP_PARAMETERS: u8 = 2;

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

/// The two ends of a connection as the backend sees them; key of `ANNOUNCED`. IPv4 addresses are mapped, all is
/// in network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The proxy's address.
    pub peer: [u32; 4],
    /// The backend's address.
    pub local: [u32; 4],
    /// The proxy's port.
    pub peer_port: u16,
    /// The backend's port.
    pub local_port: u16,
}

/// Which request is next on a connection; value of `ANNOUNCED`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// The request.
    pub sequence: u64,
    /// The service that it is for.
    pub service: u32,
    /// Zero.
    pub pad: u32,
}

/// Most connections with a request announced.
pub const ANNOUNCED: u32 = 65_536;
/// Segments that a connection may bring before a request is announced: those of a TLS handshake.
pub const UNANNOUNCED: u32 = 8;

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

const _: () = assert!(core::mem::offset_of!(Arrived, queue) == 56);
// With the 8 bytes of the kernel's head before it, a line's start.
const _: () = assert!((core::mem::offset_of!(SocketContext, read) + 8).is_multiple_of(64));
const _: () = assert!(size_of::<SocketContext>() == 264);
const _: () = assert!(size_of::<HopContext>() == 16);
const _: () = assert!(size_of::<Ends>() == 36);
const _: () = assert!(size_of::<Flow>() == 48);
const _: () = assert!(size_of::<Early>() == 272);
