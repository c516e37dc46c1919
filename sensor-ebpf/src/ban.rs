//! Ban: what comes from a banned source for the proxy's own ports is dropped before the network stack sees it.
//!
//! Nothing else of that source is: who is banned by mistake can still be helped. A packet whose headers are not
//! where they mostly are (fragments, IPv6 extension headers) passes, and is refused by the proxy.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use clew_sensor_abi::ban::Ban;

use crate::maps::{BAN_PREFIXES, BANS, FRONT_PORTS};
use crate::report::now;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
/// EtherTypes: IEEE 802.1Q, 802.1ad, IPv4 and IPv6.
const TAGGED: u16 = 0x8100;
const TAGGED_TWICE: u16 = 0x88a8;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPPROTO_TCP: u8 = 6;
/// An IPv4 fragment's offset (RFC 791, 3.1).
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Where a packet comes from, and the port that it is for.
struct Origin {
    source: [u32; 4],
    port: u16,
}

/// `xdp`.
#[xdp]
pub fn refuse(ctx: XdpContext) -> u32 {
    match origin(&ctx) {
        Some(origin) if is_refused(&origin) => XDP_DROP,
        _ => XDP_PASS,
    }
}

/// Of a TCP segment.
#[inline(always)]
fn origin(ctx: &XdpContext) -> Option<Origin> {
    let packet = Packet {
        start: ctx.data(),
        end: ctx.data_end(),
    };
    let mut network = ETHERNET;
    let mut kind = packet.short(12)?;
    let mut tags = 0;
    while tags < 2 {
        if kind != TAGGED && kind != TAGGED_TWICE {
            break;
        }
        kind = packet.short(network + 2)?;
        network += VLAN;
        tags += 1;
    }
    match kind {
        IPV4 => {
            let is_later_fragment = packet.short(network + 6)? & FRAGMENT_OFFSET != 0;
            if packet.byte(network + 9)? != IPPROTO_TCP || is_later_fragment {
                return None;
            }
            let source = packet.word(network + 12)?;
            let header = usize::from(packet.byte(network)? & 15) * 4;
            Some(Origin {
                source: [0, 0, 0xffff_u32.to_be(), source],
                port: packet.short(network + header + 2)?,
            })
        }
        IPV6 => {
            if packet.byte(network + 6)? != IPPROTO_TCP {
                return None;
            }
            let word = |nth: usize| packet.word(network + 8 + nth * 4);
            Some(Origin {
                source: [word(0)?, word(1)?, word(2)?, word(3)?],
                port: packet.short(network + 40 + 2)?,
            })
        }
        _ => None,
    }
}

struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> Option<T> {
        let from = self.start + at;
        if from + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: inside the packet, as was just checked.
        Some(unsafe { core::ptr::read_volatile(from as *const T) })
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        self.read(at)
    }

    /// In host order.
    #[inline(always)]
    fn short(&self, at: usize) -> Option<u16> {
        self.read(at).map(u16::from_be)
    }

    /// In network order.
    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        self.read(at)
    }
}

#[inline(always)]
fn is_refused(origin: &Origin) -> bool {
    // SAFETY: presence alone is read.
    if unsafe { FRONT_PORTS.get(u32::from(origin.port)) }.is_none() {
        return false;
    }
    // SAFETY: same size, no padding.
    let source = unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(origin.source) };
    if let Some(ban) = BANS.get_ptr_mut(source)
        && holds(ban)
    {
        return true;
    }
    BAN_PREFIXES
        .get(&Key::new(128, source))
        .is_some_and(|ban| holds((&raw const *ban).cast_mut()))
}

/// Whether the ban is in force; the packet is counted then.
#[inline(always)]
fn holds(ban: *mut Ban) -> bool {
    let now = now();
    // SAFETY: a map's value; other CPUs count too.
    unsafe {
        if (&raw const (*ban).until).read_volatile() <= now {
            return false;
        }
        if atomic_xadd::<u64, u64, { SeqCst }>(&raw mut (*ban).packets, 1) == 0 {
            (&raw mut (*ban).first).write_volatile(now);
        }
    }
    true
}
