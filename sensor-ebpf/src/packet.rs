//! IP and TCP headers of a packet at a cgroup hook, where data starts at the network header.

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
    /// The FIN flag.
    pub fin: bool,
}

const IPPROTO_TCP: u8 = 6;
const FIN: u8 = 1;
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
        let seq = u32::from_be(unsafe { *((header + 4) as *const u32) });
        let flags = unsafe { *((header + 13) as *const u8) };
        if flags & RST != 0 {
            return None;
        }
        let offset = tcp as u32 + u32::from(unsafe { *((header + 12) as *const u8) } >> 4) * 4;
        let len = ctx.len().checked_sub(offset)?;
        Some(Self {
            offset,
            len,
            seq,
            fin: flags & FIN != 0,
        })
    }
}
