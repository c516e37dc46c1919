//! IP and TCP headers of a packet at a cgroup hook, where data starts at the network header.

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::SkBuffContext;

/// Where the TCP payload lies.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Offset of the payload in the packet.
    pub offset: u32,
    /// Bytes of payload; at most 65,535.
    pub len: u32,
    /// TCP sequence number of the first payload byte.
    pub seq: u32,
}

/// `TCP_LISTEN` of `include/net/tcp_states.h`.
pub const LISTEN: u32 = 10;

const IPPROTO_TCP: u8 = 6;
const SYN: u8 = 2;
const RST: u8 = 4;

impl Segment {
    /// Reads the headers (RFC 791, RFC 8200, RFC 9293); `None` for what is not TCP, or RST.
    ///
    /// IPv6 extension headers before TCP do not occur on the sockets followed here.
    #[inline(always)]
    pub fn of(ctx: &SkBuffContext) -> Option<Self> {
        // SAFETY: the program's own context.
        let (start, end) = unsafe {
            (
                (*ctx.skb.skb).data as usize,
                (*ctx.skb.skb).data_end as usize,
            )
        };
        if start + 40 > end {
            return None;
        }
        // SAFETY (here and below): each read lies below `end`, as checked just before it.
        let first = unsafe { *(start as *const u8) };
        let tcp = match first >> 4 {
            4 => {
                let protocol = unsafe { *((start + 9) as *const u8) };
                if protocol != IPPROTO_TCP {
                    return None;
                }
                usize::from(first & 15) * 4
            }
            6 => {
                let protocol = unsafe { *((start + 6) as *const u8) };
                if protocol != IPPROTO_TCP {
                    return None;
                }
                40
            }
            _ => return None,
        };
        let header = start + tcp;
        if header + 20 > end {
            return None;
        }
        let flags = unsafe { *((header + 13) as *const u8) };
        let seq = u32::from_be(unsafe { *((header + 4) as *const u32) });
        // SYN takes a number of its own (RFC 9293, 3.4); TCP Fast Open puts data behind it.
        let seq = seq.wrapping_add(u32::from(flags & SYN != 0));
        if flags & RST != 0 {
            return None;
        }
        let offset = tcp as u32 + u32::from(unsafe { *((header + 12) as *const u8) } >> 4) * 4;
        let len = ctx.len().checked_sub(offset)?;
        Some(Self { offset, len, seq })
    }
}

/// Whether somebody listens on the port that the packet is for.
#[inline(always)]
pub fn is_for_listener(ctx: &SkBuffContext) -> bool {
    let Some((source, destination, ports)) = addresses(ctx) else {
        return false;
    };
    // No connection comes from port 0: what is found is a listener.
    // SAFETY: a socket's state may be read.
    lookup(ctx, (source, 0), (destination, ports.1), |sk| unsafe {
        (*sk).state == LISTEN
    })
    .unwrap_or(false)
}

/// Hands the socket that the packet comes from to `look`, where it is of this host and network namespace.
#[inline(always)]
pub fn at_sender<T>(ctx: &SkBuffContext, look: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    let (source, destination, ports) = addresses(ctx)?;
    lookup(ctx, (destination, ports.1), (source, ports.0), look)
}

/// Hands the socket to `look` that receives what is sent `from` there `to` there, if there is one.
#[inline(always)]
fn lookup<T>(
    ctx: &SkBuffContext,
    from: ([u32; 4], u16),
    to: ([u32; 4], u16),
    look: impl FnOnce(*mut bpf_sock) -> T,
) -> Option<T> {
    // SAFETY: plain integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if from.0[2] == 0xffff_u32.to_be() && from.0[0] | from.0[1] == 0 {
        tuple.__bindgen_anon_1.ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: from.0[3],
            daddr: to.0[3],
            sport: from.1,
            dport: to.1,
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>()
    } else {
        tuple.__bindgen_anon_1.ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: from.0,
            daddr: to.0,
            sport: from.1,
            dport: to.1,
        };
        size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2>()
    };
    // SAFETY: the program's own context, a tuple of that size, and the packet's own network namespace; what is
    // found is given back.
    unsafe {
        let found = bpf_skc_lookup_tcp(
            ctx.skb.skb.cast(),
            &raw mut tuple,
            size as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        );
        if found.is_null() {
            return None;
        }
        let seen = look(found);
        bpf_sk_release(found.cast());
        Some(seen)
    }
}

/// Source and destination address (IPv4 mapped) and ports, all in network order.
#[inline(always)]
pub fn addresses(ctx: &SkBuffContext) -> Option<([u32; 4], [u32; 4], (u16, u16))> {
    // SAFETY: the program's own context.
    let (start, end) = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    if start + 40 > end {
        return None;
    }
    // SAFETY (here and below): each read lies below `end`, as checked just before it.
    let word = |offset: usize| unsafe { *((start + offset) as *const u32) };
    let first = unsafe { *(start as *const u8) };
    let (source, destination, header) = if first >> 4 == 4 {
        let mapped = |ip4| [0, 0, 0xffff_u32.to_be(), ip4];
        (
            mapped(word(12)),
            mapped(word(16)),
            usize::from(first & 15) * 4,
        )
    } else {
        (
            [word(8), word(12), word(16), word(20)],
            [word(24), word(28), word(32), word(36)],
            40,
        )
    };
    let ports = start + header;
    if ports + 4 > end {
        return None;
    }
    let port = |offset: usize| unsafe { *((ports + offset) as *const u16) };
    Some((source, destination, (port(0), port(2))))
}
