//! HTTP/2 request bodies that do not arrive in time.
//!
//! Over HTTP/1 the deadline is pingora's read timeout, set anew with what is left. Over HTTP/2
//! that timeout is ignored and no callback runs while nothing arrives, so the stream is ended
//! from outside: the upstream connection is reset, which its waiting task answers with 408. Where
//! the backend has answered already nobody waits for it any more, and the stream is dropped.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::time::{sleep, timeout};

use crate::callbacks::Callbacks;
use crate::exchange::Gateway;
use crate::flight::Upstream;

/// How long an overdue request may take to say so: enough for a page, whoever else is served.
const GRACE: Duration = Duration::from_secs(1);

/// What serves the streams of HTTP/2 connections.
pub(crate) struct Streams {
    pub(crate) proxy: Arc<HttpProxy<Callbacks>>,
    pub(crate) gateway: Arc<Gateway>,
}

#[async_trait]
impl HttpServerApp for Streams {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.is_body_done() {
            return self.proxy.process_new_http(session, shutdown).await;
        }
        let upload = Arc::new(Upload::new(self.gateway.clone()));
        let extensions = session.req_header_mut().extensions_mut();
        extensions.insert(upload.clone());
        let mut exchange = self.proxy.process_new_http(session, shutdown);
        tokio::select! {
            biased;
            ended = &mut exchange => return ended,
            () = upload.overdue() => {}
        }
        timeout(GRACE, exchange).await.ok().flatten()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }
}

/// One request body on its way in.
pub(crate) struct Upload {
    pub(crate) gateway: Arc<Gateway>,
    is_done: AtomicBool,
    is_overdue: AtomicBool,
    upstream: Mutex<Option<Upstream>>,
}

impl Upload {
    fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            is_done: AtomicBool::new(false),
            is_overdue: AtomicBool::new(false),
            upstream: Mutex::new(None),
        }
    }

    /// The connection that the body goes to from now on.
    pub(crate) fn connect(&self, upstream: Option<Upstream>) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// The body is complete: the connection may serve others.
    pub(crate) fn set_done(&self) {
        self.is_done.store(true, Ordering::Relaxed);
        self.connect(None);
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.is_overdue.load(Ordering::Relaxed)
    }

    /// Returns after the deadline, unless the body is complete then, with its upstream connection
    /// reset.
    async fn overdue(&self) {
        sleep(self.gateway.limits.body_deadline).await;
        if self.is_done.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        self.is_overdue.store(true, Ordering::Relaxed);
        let upstream = self.upstream.lock().map(|mut it| it.take());
        if let Ok(Some(upstream)) = upstream
            && let Err(error) = self.gateway.flights.reset(upstream)
        {
            tracing::debug!(%error, "upstream connection not reset");
        }
    }
}
