//! A connection for each group of messages, closed in good order.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clew_outbound::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::StartError;

/// A receiver.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    timeout: Duration,
    secure: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Endpoint {
    pub(super) fn plain(address: SocketAddr, timeout: Duration) -> Self {
        Self {
            address,
            timeout,
            secure: None,
        }
    }

    pub(super) fn secure(
        address: SocketAddr,
        timeout: Duration,
        name: &str,
        authorities: Option<&Path>,
    ) -> Result<Self, StartError> {
        let client = tls::client(tls::authorities(authorities)?)?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| StartError::ServerName(name.to_owned()))?;
        Ok(Self {
            address,
            timeout,
            secure: Some((client, name)),
        })
    }

    /// Sends `bytes`; returns when the receiver has read them, as far as TCP can tell.
    pub(super) fn deliver(&self, bytes: &[u8]) -> io::Result<()> {
        let mut socket = TcpStream::connect_timeout(&self.address, self.timeout)?;
        socket.set_write_timeout(Some(self.timeout))?;
        socket.set_read_timeout(Some(self.timeout))?;
        let Some((client, name)) = &self.secure else {
            socket.write_all(bytes)?;
            socket.shutdown(Shutdown::Write)?;
            return self.wait_for_end(|rest| socket.read(rest));
        };
        let connection = ClientConnection::new(Arc::clone(client), name.clone());
        let connection = connection.map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(connection, socket);
        stream.write_all(bytes)?;
        stream.flush()?;
        stream.conn.send_close_notify();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut stream.sock)?;
        }
        stream.sock.shutdown(Shutdown::Write)?;
        self.wait_for_end(|rest| stream.read(rest))
    }

    /// A receiver that closes its side has read all there was. One that does not within the timeout has been
    /// handed all, and its kernel has not refused it: to send that again for ever would be worse.
    fn wait_for_end(&self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        let start = Instant::now();
        let mut rest = [0; 512];
        while start.elapsed() < self.timeout {
            match read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    // TLS that ends without saying so: the end of TCP says it.
                    ErrorKind::UnexpectedEof | ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Ok(());
                    }
                    ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}
