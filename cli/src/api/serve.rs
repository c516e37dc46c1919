//! The API's sockets, and what a connection to one may cost.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::access::{Remote, Tokens, subject_of};
use super::problem::Problem;
use super::{Caller, Desk, observing_router, router};
use crate::audit::Actor;
use crate::reload;

pub(crate) const SOCKET: &str = "admin.sock";

/// Most connections to a socket at a time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Most bytes of a request's head, and how long it may take; a connection may lie idle as long.
const HEAD_BYTES: usize = 16 * 1024;
const HEAD_FIELDS: usize = 64;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a request may take with its body and its answer, up to the head of that: longer than a reload, so that
/// nobody is told it took too long of one that then is in force.
pub(super) const ANSWER: Duration = reload::LONGEST.saturating_add(Duration::from_secs(10));
/// How long a connection may last.
const LIFE: Duration = Duration::from_secs(300);

/// The sockets, bound while there are rights to.
pub(crate) struct Sockets {
    local: UnixListener,
    path: PathBuf,
    remote: Option<(TcpListener, Arc<Gate>)>,
    observed: Option<TcpListener>,
}

/// Who is let in on TCP.
struct Gate {
    tokens: Option<Tokens>,
    tls: Option<TlsAcceptor>,
}

impl Sockets {
    /// Binds them; a Unix socket that nobody serves any more is replaced.
    pub(crate) fn bind(
        state: &Path,
        remote: Option<&Remote>,
        observe: Option<SocketAddr>,
    ) -> Result<Self> {
        let (local, path) = bind_local(state)?;
        let remote = remote.map(|it| {
            let gate = Gate {
                tokens: it.tokens()?,
                tls: it.acceptor()?,
            };
            Ok::<_, anyhow::Error>((bind_tcp(it.address, "admin.listen")?, Arc::new(gate)))
        });
        let observed = observe.map(|it| bind_tcp(it, "observe.listen"));
        Ok(Self {
            local,
            path,
            remote: remote.transpose()?,
            observed: observed.transpose()?,
        })
    }

    /// Those on TCP.
    pub(crate) fn tcp(&self) -> impl Iterator<Item = &TcpListener> {
        let remote = self.remote.as_ref().map(|it| &it.0);
        remote.into_iter().chain(&self.observed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers on a thread of its own until the process ends; the path of the socket, to be removed then.
    pub(crate) fn serve(self, desk: Arc<Desk>) -> Result<PathBuf> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .thread_name("clew-admin-disk")
            .build()?;
        let path = self.path.clone();
        let thread = std::thread::Builder::new().name("clew-admin".to_owned());
        thread.spawn(move || {
            // Started by a thread that has the priority of verdicts.
            if let Err(error) = rustix::process::setpriority_process(None, 0) {
                tracing::debug!(%error, "the admin API has the priority of verdicts");
            }
            if let Err(error) = runtime.block_on(self.accept(desk)) {
                tracing::error!(%error, "the admin API has ended");
            }
        })?;
        Ok(path)
    }

    async fn accept(self, desk: Arc<Desk>) -> io::Result<()> {
        let whole = router(desk.clone());
        let mut loops = tokio::task::JoinSet::new();
        self.local.set_nonblocking(true)?;
        let local = tokio::net::UnixListener::from_std(self.local)?;
        loops.spawn(accept_local(local, whole.clone()));
        if let Some((listener, gate)) = self.remote {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loops.spawn(accept_remote(listener, gate, whole));
        }
        if let Some(listener) = self.observed {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let gate = Gate {
                tokens: None,
                tls: None,
            };
            loops.spawn(accept_remote(
                listener,
                Arc::new(gate),
                observing_router(desk),
            ));
        }
        while loops.join_next().await.is_some() {}
        Ok(())
    }
}

fn bind_local(state: &Path) -> Result<(UnixListener, PathBuf)> {
    let path = state.join(SOCKET);
    if path.exists() {
        if UnixStream::connect(&path).is_ok() {
            bail!(
                "another clew serves {}; give each its own --state",
                path.display()
            );
        }
        std::fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot make the admin socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, path))
}

fn bind_tcp(address: SocketAddr, key: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} ({key})"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept_local(listener: tokio::net::UnixListener, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Some((stream, _)) = accepted(listener.accept().await).await else {
            continue;
        };
        let caller = local_caller(&stream);
        let router = router.clone();
        tokio::spawn(async move {
            let _permit = permit;
            converse(stream, router, move |_| caller.clone().map(Some)).await;
        });
    }
}

async fn accept_remote(listener: tokio::net::TcpListener, gate: Arc<Gate>, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Some((stream, peer)) = accepted(listener.accept().await).await else {
            continue;
        };
        let (router, gate) = (router.clone(), gate.clone());
        tokio::spawn(async move {
            let _permit = permit;
            gate.let_in(stream, peer, router).await;
        });
    }
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to come back.
            tracing::error!(%error, "the admin API cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// The file's mode has kept others out; this is who it is.
fn local_caller(stream: &tokio::net::UnixStream) -> Result<Caller, Problem> {
    let Ok(credentials) = stream.peer_cred() else {
        return Err(Problem::broken());
    };
    let uid = credentials.uid();
    let own = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != own {
        let error = "only root and the user that clew runs as may ask here";
        return Err(Problem::new(StatusCode::FORBIDDEN, error));
    }
    Ok(Caller {
        actor: Actor::Process {
            uid,
            pid: credentials.pid(),
        },
        from: "unix".to_owned(),
    })
}

impl Gate {
    async fn let_in(&self, stream: tokio::net::TcpStream, peer: SocketAddr, router: Router) {
        let Some(tls) = &self.tls else {
            let caller = |headers: &HeaderMap| self.caller(None, headers, peer);
            return converse(stream, router, caller).await;
        };
        let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::info!(%peer, %error, "admin connection refused"),
            Err(_) => return tracing::info!(%peer, "admin handshake overdue"),
        };
        let shown = stream.get_ref().1.peer_certificates();
        let subject = shown.and_then(|chain| chain.first()).map(subject_of);
        let caller = |headers: &HeaderMap| self.caller(subject.clone(), headers, peer);
        converse(stream, router, caller).await;
    }

    /// Whoever shows a certificate is named by that, and shows a token too where there are any. Nobody where neither is
    /// asked for: what can be changed needs somebody.
    fn caller(
        &self,
        subject: Option<String>,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Result<Option<Caller>, Problem> {
        let holder = self.tokens.as_ref().map(|it| it.holder(headers));
        let holder = holder.transpose()?;
        let certificate = subject.map(|subject| Actor::Certificate { subject });
        let actor = certificate.or(holder);
        Ok(actor.map(|actor| Caller {
            actor,
            from: peer.to_string(),
        }))
    }
}

/// Serves the requests of one connection, each by whom `caller` makes of its head.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    caller: impl Fn(&HeaderMap) -> Result<Option<Caller>, Problem>,
) {
    let service = TowerToHyperService::new(router);
    let answer = service_fn(|mut request: Request<Incoming>| {
        let (service, caller) = (service.clone(), caller(request.headers()));
        async move {
            match caller {
                Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
                Ok(None) => {}
                Err(problem) => return Ok(problem.into_response()),
            }
            let answered: Result<Response, std::convert::Infallible> =
                match timeout(ANSWER, service.call(request)).await {
                    Ok(answered) => answered,
                    Err(_) => {
                        let late = Problem::new(StatusCode::REQUEST_TIMEOUT, "it took too long");
                        Ok(late.into_response())
                    }
                };
            answered
        }
    });
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS);
    let connection = connection.serve_connection(TokioIo::new(stream), answer);
    match timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_) => tracing::debug!("an admin connection has lasted long enough"),
    }
}

#[cfg(test)]
mod tests;
