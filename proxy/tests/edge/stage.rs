//! An edge over a backend of a few lines, and a client that writes raw bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clew_protocol::request::{ProxyRecord, RequestEnded, RequestStarted};
use clew_protocol::{IncidentId, ProxyId, Sequence, TokenKey};
use clew_proxy::{
    Announcer, Config, Edge, Handle, ListenerConfig, OnFailure, ServiceConfig, StopCount, Tagging,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What a backend does with one connection.
pub(crate) type Script = fn(&mut Connection) -> Result<()>;

pub(crate) struct Stage {
    pub(crate) handle: Handle,
    pub(crate) address: SocketAddr,
    /// The backend's own address.
    pub(crate) upstream: SocketAddr,
    records: Receiver<ProxyRecord>,
    heads: Receiver<String>,
    edge: Option<JoinHandle<std::io::Result<()>>>,
}

/// The backend's end of a connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    heads: SyncSender<String>,
}

impl Connection {
    /// Reads a request head and shows it to the test; none at the end of the connection.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return None,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let _ = self.heads.send(head.clone());
        Some(head)
    }

    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes())?)
    }

    /// Reads the body that `head` announces.
    pub(crate) fn body(&mut self, head: &str) -> Result<Vec<u8>> {
        let head = head.to_ascii_lowercase();
        if let Some(length) = head
            .lines()
            .find_map(|it| it.strip_prefix("content-length: "))
        {
            let mut body = vec![0; length.parse()?];
            self.stream.read_exact(&mut body)?;
            return Ok(body);
        }
        let mut body = Vec::new();
        while head.contains("\r\ntransfer-encoding: chunked\r\n") {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            let start = body.len();
            body.resize(start + size, 0);
            self.stream.read_exact(&mut body[start..])?;
            self.line()?;
            if size == 0 {
                break;
            }
        }
        Ok(body)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8(line)?.trim_end().to_owned())
    }

    /// Shows something to the test, which gets it as it gets heads.
    pub(crate) fn show(&mut self, text: String) {
        let _ = self.heads.send(text);
    }
}

/// Answers every request with "ok".
pub(crate) fn ok(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        connection.stream.read_exact(&mut vec![0; length])?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// Answers `GET /fine` and nothing else.
pub(crate) fn hang(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        if head.starts_with("GET /fine") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }
    Ok(())
}

/// Takes an upgrade and sends back what comes.
pub(crate) fn echo(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    let mut stream = connection.stream.try_clone()?;
    std::io::copy(&mut stream, &mut connection.stream)?;
    Ok(())
}

/// Answers with 100 MB.
pub(crate) fn flood(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
    let piece = "x".repeat(100_000);
    for _ in 0..1000 {
        connection.send(&piece)?;
    }
    Ok(())
}

impl Stage {
    pub(crate) fn new(script: Script) -> Result<Self> {
        Self::with(script, |_| {})
    }

    pub(crate) fn with(script: Script, adjust: impl FnOnce(&mut Config)) -> Result<Self> {
        let (heads_in, heads) = sync_channel(1024);
        let backend = TcpListener::bind("127.0.0.1:0")?;
        let upstream = backend.local_addr()?;
        // Ends with the test process; it holds nothing but its port.
        std::thread::spawn(move || {
            for stream in backend.incoming().flatten() {
                let mut connection = Connection {
                    stream,
                    heads: heads_in.clone(),
                };
                std::thread::spawn(move || script(&mut connection));
            }
        });
        let (records_in, records) = sync_channel(4096);
        let listener = ListenerConfig {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
            proxy_protocol: false,
        };
        let services = vec![ServiceConfig::new("test", vec![upstream])];
        let mut config = Config::new(vec![listener], services);
        config.shutdown_grace = Duration::from_secs(2);
        config.tagging = Some(Tagging {
            first: Sequence(1),
            key: TokenKey::new([7; 16]),
            proxy: ProxyId(1),
            records: records_in,
            announcer: Announcer::new(|_| true),
            stops: StopCount::new(|| 0),
            hold_span: Duration::from_secs(1),
            overdue: OnFailure::Open,
            unrecorded: OnFailure::Open,
        });
        adjust(&mut config);
        let edge = Edge::bind(config)?;
        let handle = edge.handle();
        let address = *handle.addresses().first().context("no listener")?;
        let edge = Some(std::thread::spawn(move || edge.serve()));
        Ok(Self {
            handle,
            address,
            upstream,
            records,
            heads,
            edge,
        })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Client::of(self.address)
    }

    /// The next request head the backend has read.
    pub(crate) fn upstream_head(&self) -> Result<String> {
        Ok(self.heads.recv_timeout(PATIENCE)?)
    }

    /// A request head the backend has read by now, if there is one.
    pub(crate) fn try_upstream_head(&self) -> Option<String> {
        self.heads.recv_timeout(Duration::from_millis(50)).ok()
    }

    /// All body inputs up to the end of the request, joined as the correlator joins them.
    pub(crate) fn body_inputs(&self) -> Result<String> {
        let mut joined = Vec::new();
        loop {
            match self.records.recv_timeout(PATIENCE)? {
                ProxyRecord::Started(_)
                | ProxyRecord::Answered { .. }
                | ProxyRecord::InFlight(_) => {}
                ProxyRecord::Input { bytes, .. } => joined.extend_from_slice(&bytes),
                ProxyRecord::Ended(_) => return Ok(String::from_utf8_lossy(&joined).into_owned()),
            }
        }
    }

    pub(crate) fn started(&self) -> Result<RequestStarted> {
        loop {
            if let ProxyRecord::Started(started) = self.records.recv_timeout(PATIENCE)? {
                return Ok(*started);
            }
        }
    }

    /// The next start of an attempt, if one has been reported. Forgets what heads came.
    pub(crate) fn try_started(&self) -> Option<RequestStarted> {
        while self.heads.try_recv().is_ok() {}
        let record = self.records.recv_timeout(Duration::from_millis(1)).ok()?;
        match record {
            ProxyRecord::Started(started) => Some(*started),
            _ => None,
        }
    }

    pub(crate) fn ended(&self) -> Result<RequestEnded> {
        loop {
            if let ProxyRecord::Ended(ended) = self.records.recv_timeout(PATIENCE)? {
                return Ok(ended);
            }
        }
    }

    /// The next response that waits whole.
    pub(crate) fn answered(&self) -> Result<Sequence> {
        loop {
            if let ProxyRecord::Answered { sequence, .. } = self.records.recv_timeout(PATIENCE)? {
                return Ok(sequence);
            }
        }
    }

    pub(crate) fn cancel(&self, sequence: Sequence) -> bool {
        self.handle
            .cancel(sequence, IncidentId(clew_protocol::RequestId::fresh().0))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.handle.shutdown();
        if let Some(edge) = self.edge.take() {
            let _ = edge.join();
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn of(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// The status of the answer to an empty `POST`, which is never sent to a backend twice.
    pub(crate) fn post(&mut self, target: &str) -> Result<u16> {
        self.send(&format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        ))?;
        Ok(self.response()?.status)
    }

    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes())?)
    }

    pub(crate) fn get(&mut self, target: &str) -> Result<Response> {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        self.response()
    }

    /// The next response whose length is declared.
    pub(crate) fn response(&mut self) -> Result<Response> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Response {
            status,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    pub(crate) fn head(&mut self) -> Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(
                self.stream.read(&mut byte)? == 1,
                "closed after {:?}",
                String::from_utf8_lossy(&head)
            );
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    /// Everything until the connection closes, however it does.
    pub(crate) fn rest(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => bail!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

pub(crate) fn localhost() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// Waits until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
