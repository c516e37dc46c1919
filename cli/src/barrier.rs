//! The edge's bans at the kernel's barrier.

use clew_protocol::Moment;
use clew_proxy::{Dropped, Handle};
use clew_sensor::Barrier;
use ipnet::IpNet;

/// Has the edge's bans refused at the barrier too.
pub(crate) fn raise(handle: &Handle, barrier: Barrier) {
    handle.stand_behind(Outer(barrier));
}

#[derive(Debug)]
struct Outer(Barrier);

impl clew_proxy::Barrier for Outer {
    fn put(&self, source: IpNet, until: Moment) {
        if let Err(error) = self.0.put(source, until) {
            tracing::error!(%source, %error, "banned at the edge alone");
        }
    }

    fn lift(&self, source: IpNet) {
        if let Err(error) = self.0.lift(source) {
            tracing::error!(%source, %error, "the ban is lifted at the edge alone");
        }
    }

    fn dropped(&self, source: IpNet) -> Option<Dropped> {
        let dropped = self.0.dropped(source).ok()??;
        Some(Dropped {
            first: dropped.first,
            packets: dropped.packets,
        })
    }
}
