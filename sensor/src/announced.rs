//! Requests announced: which is next on a connection whose bytes the programs cannot read.

use std::collections::{HashMap as Latest, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{HashMap, MapData};
use clew_protocol::{Sequence, ServiceId};
use clew_sensor_abi::socket::{ANNOUNCED, Announced, Ends};

use crate::maps::Raw;

/// Tells the programs; any number may be held.
#[derive(Clone)]
pub struct Announcer(Arc<Mutex<Announcements>>);

struct Announcements {
    map: HashMap<MapData, Raw<Ends>, Raw<Announced>>,
    /// What was said, oldest first. Connections are not told of when they end: what was said longest ago is
    /// taken back, for it has long been heard.
    said: VecDeque<(Ends, u64)>,
    /// What holds for each connection.
    latest: Latest<Ends, u64>,
}

impl Announcer {
    pub(crate) fn new(map: HashMap<MapData, Raw<Ends>, Raw<Announced>>) -> Self {
        Self(Arc::new(Mutex::new(Announcements {
            map,
            said: VecDeque::new(),
            latest: Latest::new(),
        })))
    }

    /// The next request on the connection from `local` to `peer` is `sequence`, for `service`. To be said before
    /// a byte of it is sent; false when the programs could not be told.
    pub fn announce(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        service: ServiceId,
        sequence: Sequence,
    ) -> bool {
        let ends = Ends {
            peer: words(local.ip()),
            local: words(peer.ip()),
            peer_port: local.port().to_be(),
            local_port: peer.port().to_be(),
        };
        let announced = Announced {
            sequence: sequence.0,
            service: service.0.into(),
            pad: 0,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.make_room();
        let told = all.map.insert(Raw(ends), Raw(announced), 0);
        if let Err(error) = &told {
            tracing::error!(%error, "a request could not be announced to the programs");
            return false;
        }
        all.said.push_back((ends, sequence.0));
        all.latest.insert(ends, sequence.0);
        true
    }
}

impl Announcements {
    fn make_room(&mut self) {
        while self.said.len() >= ANNOUNCED as usize
            && let Some((ends, sequence)) = self.said.pop_front()
        {
            if self.latest.get(&ends) == Some(&sequence) {
                self.latest.remove(&ends);
                if let Err(error) = self.map.remove(&Raw(ends)) {
                    tracing::debug!(%error, "an announcement was not there any more");
                }
            }
        }
    }
}

/// As the programs have addresses: IPv4 mapped, in network order.
fn words(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}
