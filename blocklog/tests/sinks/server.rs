//! An HTTP/1.1 server on a loopback port, for one sender: a thread a connection, each request answered by a function.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request, whole.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|it| it.0 == name);
        found.map_or("", |it| &it.1)
    }
}

type Answer = dyn Fn(&Request) -> (u16, String) + Send + Sync;

/// The server. It stops, connections and all, when it goes.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_at("127.0.0.1:0".parse()?, None, answer)
    }

    /// At `address`; over TLS, where that is configured.
    pub(crate) fn start_at(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (stopped, connections) = (Arc::clone(&stop), Arc::clone(&open));
        let answer: Arc<Answer> = Arc::new(answer);
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(clone) = socket.try_clone() else {
                    return;
                };
                connections.lock().expect("the lock").push(clone);
                let (answer, tls) = (Arc::clone(&answer), tls.clone());
                std::thread::spawn(move || match tls.map(ServerConnection::new) {
                    None => serve(socket, &*answer),
                    Some(connection) => {
                        let connection = connection.expect("a server");
                        serve(StreamOwned::new(connection, socket), &*answer);
                    }
                });
            }
        });
        Ok(Self {
            address,
            stop,
            open,
            thread: Some(thread),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for socket in self.open.lock().expect("the lock").drain(..) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(socket: impl Read + Write, answer: &Answer) {
    let mut reader = BufReader::new(socket);
    while let Ok(request) = read(&mut reader) {
        let (status, body) = answer(&request);
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let socket = reader.get_mut();
        let sent = socket.write_all((head + &body).as_bytes());
        if sent.and_then(|()| socket.flush()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Result<Request> {
    let mut request = Request::default();
    if reader.read_line(&mut request.line)? == 0 {
        bail!("the connection has ended");
    }
    request.line = request.line.trim_end().to_owned();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(':')
            .context("a header line without a colon")?;
        request
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request
        .header("content-length")
        .parse()
        .context("no content-length")?;
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    Ok(request)
}
