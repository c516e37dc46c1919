//! A place on loopback, TCP and UDP on one port, that no profile allows.

use std::net::{TcpListener, UdpSocket};

use anyhow::{Result, bail};

/// It answers nobody; the kernel completes connections and keeps datagrams by itself.
pub(crate) struct Sink {
    pub(crate) port: u16,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Sink {
    pub(crate) fn open() -> Result<Self> {
        for _ in 0..16 {
            // Both families: an unspecified IPv6 address takes IPv4 too.
            let tcp = TcpListener::bind("[::]:0")?;
            let port = tcp.local_addr()?.port();
            let Ok(udp) = UdpSocket::bind(("::", port)) else {
                continue;
            };
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            return Ok(Self { port, tcp, udp });
        }
        bail!("no port is free for both TCP and UDP")
    }

    /// Whether a connection or a datagram got here.
    pub(crate) fn was_reached(&self) -> bool {
        self.tcp.accept().is_ok() || self.udp.recv(&mut [0; 16]).is_ok()
    }
}
