//! What is known of one TCP socket of a backend.

/// Requests that may wait, unread, on one connection.
pub const QUEUE: usize = 8;

/// Most bytes of a token line that can be left over at the end of a segment.
pub const CARRY: usize = 48;

/// Value of the `SOCKETS` socket storage.
///
/// Ingress writes everything but `tail` and `current`, which the reader of the socket writes, and
/// `sent` and `sent_any`, which egress writes.
///
/// What a request needs that comes in one segment, is read and is answered lies in the first 56
/// bytes: the kernel keeps them in one cache line with its own head of the storage, and that line
/// is written on one CPU and read on another.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketContext {
    /// The request being worked on: the last one read. 0: none yet.
    pub current: u64,
    /// The request that arrived last.
    pub newest: Newest,
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

/// The arrival at the queue's end, in two words that are each written and read at once: a reader
/// that finds its own arrival's number in both has not read parts of two.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    /// The arrival's number modulo 65,536 above the 48 bits of the request's sequence.
    pub request: u64,
    /// The arrival's number above [`Arrival::end_seq`].
    pub end: u64,
}

impl Newest {
    /// `arrival`, the `nth` on its socket.
    #[inline(always)]
    pub fn of(arrival: &Arrival, nth: u32) -> Self {
        Self {
            request: u64::from(nth) << 48 | arrival.sequence,
            end: u64::from(nth) << 32 | u64::from(arrival.end_seq),
        }
    }

    /// The `nth` arrival, if this is it.
    ///
    /// ```
    /// # use clew_sensor_abi::socket::{Arrival, Newest};
    /// let fifth = Newest::of(&Arrival { sequence: 77, end_seq: 900, pad: 0 }, 5);
    /// assert_eq!(fifth.arrival(5).map(|it| (it.sequence, it.end_seq)), Some((77, 900)));
    /// assert!(fifth.arrival(4).is_none());
    /// let torn = Newest { end: Newest::of(&Arrival { sequence: 78, end_seq: 901, pad: 0 }, 6).end, ..fifth };
    /// assert!(torn.arrival(5).is_none() && torn.arrival(6).is_none());
    /// ```
    #[inline(always)]
    pub fn arrival(self, nth: u32) -> Option<Arrival> {
        let sequence = self.request & 0xffff_ffff_ffff;
        let whole = (self.request >> 48) as u16 == nth as u16 && (self.end >> 32) as u32 == nth;
        (whole && sequence != 0).then_some(Arrival {
            sequence,
            end_seq: self.end as u32,
            pad: 0,
        })
    }
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

const _: () = assert!(size_of::<SocketContext>() == 232);
const _: () = assert!(core::mem::offset_of!(SocketContext, queue) == 56);
const _: () = assert!(size_of::<Flow>() == 48);
const _: () = assert!(size_of::<Early>() == 240);
