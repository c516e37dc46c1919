//! Backends that fail, hang, die and come back.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketType};

use crate::stage::{Connection, Stage, hang, ok, wait_until};
use crate::tls_stage::{Secure, on_runtime, request};

fn stops_short(connection: &mut Connection) -> Result<()> {
    let head = connection.head().unwrap_or_default();
    if head.starts_with("GET /chunked") {
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
    } else {
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")?;
    }
    std::thread::sleep(Duration::from_millis(50));
    Ok(())
}

/// A response that its backend did not finish must not look finished.
#[test]
fn half_a_response_has_no_clean_end() -> Result<()> {
    let stage = Stage::new(stops_short)?;
    for target in ["/length", "/chunked"] {
        let mut client = stage.client()?;
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        // Perhaps nothing: what does not fill a packet is not sent before it has to be.
        let rest = client.rest()?;
        ensure!(!rest.ends_with("0\r\n\r\n"), "{rest:?}");
        ensure!(
            rest.is_empty() || rest.ends_with("first") || rest.ends_with("first\r\n"),
            "{rest:?}"
        );
    }
    Ok(())
}

#[test]
fn half_a_response_resets_an_http2_stream() -> Result<()> {
    let secure = Secure::new(stops_short)?;
    on_runtime(async {
        for target in ["/length", "/chunked"] {
            let mut client = secure.http2().await?;
            let (response, _) = client.send_request(request(target)?, true)?;
            let mut body = response.await?.into_body();
            ensure!(body.data().await.context("no data")?? == "first");
            let end = body.data().await;
            ensure!(matches!(end, Some(Err(_))), "{target}: {end:?}");
        }
        Ok(())
    })
}

#[test]
fn a_backend_that_does_not_answer_is_a_504() -> Result<()> {
    let stage = Stage::with(hang, |config| {
        config.services[0].read_timeout = Duration::from_millis(200);
    })?;
    ensure!(stage.client()?.get("/hang")?.status == 504);
    ensure!(stage.client()?.post("/hang")? == 504);
    ensure!(stage.client()?.get("/fine")?.status == 200);
    Ok(())
}

fn takes_nothing(connection: &mut Connection) -> Result<()> {
    connection.head();
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

#[test]
fn a_backend_that_takes_no_body_is_a_504() -> Result<()> {
    let stage = Stage::with(takes_nothing, |config| {
        config.services[0].write_timeout = Duration::from_millis(200);
        config.services[0].read_timeout = Duration::from_millis(400);
        config.limits.body_bytes = 100_000_000;
    })?;
    let mut client = stage.client()?;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n")?;
    let mut writer = client.stream.try_clone()?;
    let body = std::thread::spawn(move || {
        let piece = vec![b'x'; 1_000_000];
        (0..90).all(|_| std::io::Write::write_all(&mut writer, &piece).is_ok())
    });
    let status = client.response().map(|response| response.status);
    drop(client);
    ensure!(!body.join().unwrap_or(true), "all of it was taken");
    ensure!(matches!(status, Ok(504)), "{status:?}");
    Ok(())
}

/// A listener whose queue is full drops what connects next.
fn unreachable() -> Result<(rustix::fd::OwnedFd, Vec<std::net::TcpStream>, SocketAddr)> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    rustix::net::listen(&socket, 0)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    let span = Duration::from_millis(100);
    let mut queued = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, span) {
        queued.push(stream);
    }
    Ok((socket, queued, address))
}

#[test]
fn a_backend_that_cannot_be_reached_is_a_504() -> Result<()> {
    let (_socket, _queued, address) = unreachable()?;
    let stage = Stage::with(ok, |config| {
        config.services[0].upstreams = vec![address];
        config.services[0].connect_timeout = Duration::from_millis(200);
    })?;
    ensure!(stage.client()?.get("/")?.status == 504);
    Ok(())
}

/// How many of `count` requests each stage's backend has got.
fn shares(edge: &Stage, stages: [&Stage; 2], count: usize) -> Result<[usize; 2]> {
    for _ in 0..count {
        ensure!(edge.client()?.get("/")?.status == 200);
    }
    Ok(stages.map(|stage| std::iter::from_fn(|| stage.try_upstream_head()).count()))
}

#[test]
fn live_backends_share_the_requests() -> Result<()> {
    let other = Stage::new(ok)?;
    let stage = Stage::with(ok, |config| {
        config.services[0].upstreams.push(other.upstream);
    })?;
    ensure!(shares(&stage, [&stage, &other], 10)? == [5, 5]);
    Ok(())
}

/// A backend that can be stopped and started again at one address.
struct Stoppable {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<usize>,
}

impl Stoppable {
    fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            let mut served = 0;
            for mut stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A health check says nothing.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                if stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                    served += 1;
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = std::io::Write::write_all(&mut stream, answer);
                }
            }
            served
        };
        let thread = std::thread::spawn(serve);
        Ok(Self {
            address,
            stop,
            thread,
        })
    }

    /// Requests served until the end.
    fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect(self.address);
        self.thread.join().map_err(|_| anyhow::anyhow!("panicked"))
    }
}

#[test]
fn the_health_check_takes_a_dead_backend_out_and_back() -> Result<()> {
    let mut other = Stoppable::start(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = other.address;
    let stage = Stage::with(ok, |config| {
        config.services[0].upstreams.push(address);
        config.services[0].health_check = Some(clew_proxy::HealthCheck {
            interval: Duration::from_millis(30),
        });
    })?;
    let settle = || std::thread::sleep(Duration::from_millis(500));
    let own = |count| -> Result<usize> {
        for _ in 0..count {
            ensure!(stage.client()?.post("/")? == 200);
        }
        Ok(std::iter::from_fn(|| stage.try_upstream_head()).count())
    };
    settle();
    ensure!(own(10)? == 5, "two live backends");
    ensure!(other.stop()? == 5);
    settle();
    ensure!(own(10)? == 10, "one dead backend");
    other = Stoppable::start(address)?;
    settle();
    ensure!(own(10)? == 5, "back again");
    ensure!(other.stop()? == 5);
    wait_until("over", || stage.handle.in_flight() == 0)
}
