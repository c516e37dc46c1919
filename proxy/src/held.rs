//! A client's session that is held back: its request body comes from memory first, its response
//! waits for a verdict of the rules, or at the gate.
//!
//! pingora replays a body that was read before its backend was known from a buffer of 64 KiB, and
//! hangs where that was too small; and it writes what has come of a response as soon as it has been
//! shown to the callbacks. Neither can be changed from a callback, but the session itself can be
//! replaced. It is, for those requests only, and put back before the connection is used again.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use crate::gate::Passage;
use crate::inspection::Share;

/// The request's end of a held session.
pub(crate) struct Held(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Whether the response waits.
    is_closed: AtomicBool,
    /// Once it has met a closed gate: how it gets through.
    passage: Mutex<Option<Arc<Passage>>>,
    /// The session itself, when it is held back no longer.
    released: Mutex<Option<Box<ServerSession>>>,
}

impl Shared {
    fn passage(&self) -> MutexGuard<'_, Option<Arc<Passage>>> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pieces of a body, and the memory they take.
pub(crate) struct Replay {
    pub(crate) pieces: VecDeque<Bytes>,
    pub(crate) share: Share,
}

impl Held {
    /// Replaces the session of `session` by one that reads `replay` before what is still to come.
    pub(crate) fn hold(session: &mut Session, replay: Option<Replay>) -> Self {
        let shared = Arc::new(Shared::default());
        let inner = std::mem::replace(&mut session.downstream_session, nothing());
        let held = HeldSession {
            inner: Some(inner),
            replay,
            tasks: Vec::new(),
            shared: shared.clone(),
        };
        *session.downstream_session = ServerSession::Custom(Box::new(held));
        Self(shared)
    }

    /// Whether what is written of a response waits from now on.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        self.0.is_closed.store(is_closed, Ordering::Relaxed);
    }

    /// What is written of a response from now on goes through the gate.
    pub(crate) fn lead_through(&self, passage: Passage) {
        *self.0.passage() = Some(Arc::new(passage));
    }

    /// Puts the session back as it was; a response that waits is forgotten.
    pub(crate) fn release(self, session: &mut Session) {
        // Dropping what stands in its place frees the session.
        session.downstream_session = nothing();
        let released = self.0.released.lock();
        if let Some(inner) = released.unwrap_or_else(PoisonError::into_inner).take() {
            session.downstream_session = inner;
        }
    }
}

/// A session that has no connection.
pub(crate) fn nothing() -> Box<ServerSession> {
    let stream = Box::new(Cursor::new(Vec::new()));
    Box::new(ServerSession::new_http1(stream))
}

struct HeldSession {
    /// None only while it is dropped.
    inner: Option<Box<ServerSession>>,
    replay: Option<Replay>,
    /// What was to be written while it was closed.
    tasks: Vec<HttpTask>,
    shared: Arc<Shared>,
}

impl HeldSession {
    fn inner(&self) -> &ServerSession {
        self.inner.as_ref().expect("present until it is dropped")
    }

    fn inner_mut(&mut self) -> &mut ServerSession {
        self.inner.as_mut().expect("present until it is dropped")
    }

    /// The next piece that was kept.
    fn next_kept(&mut self) -> Option<Bytes> {
        let replay = self.replay.as_mut()?;
        let piece = replay.pieces.pop_front()?;
        replay.share.shrink(piece.len());
        if replay.pieces.is_empty() {
            self.replay = None;
        }
        Some(piece)
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        let mut released = self.shared.released.lock();
        if let Ok(released) = &mut released {
            **released = self.inner.take();
        }
    }
}

#[async_trait]
impl CustomSession for HeldSession {
    fn req_header(&self) -> &RequestHeader {
        self.inner().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner_mut().req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        match self.next_kept() {
            Some(piece) => Ok(Some(piece)),
            None => self.inner_mut().read_request_body().await,
        }
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.replay = None;
        self.inner_mut().drain_request_body().await
    }

    async fn write_response_header(&mut self, header: Box<ResponseHeader>, _: bool) -> Result<()> {
        self.inner_mut().write_response_header(header).await
    }

    async fn write_response_header_ref(&mut self, header: &ResponseHeader, _: bool) -> Result<()> {
        self.inner_mut().write_response_header_ref(header).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner_mut().write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner_mut().write_response_trailers(trailers).await
    }

    /// Keeps what is to be written while the response is closed.
    async fn response_duplex_vec(&mut self, mut tasks: Vec<HttpTask>) -> Result<bool> {
        if !self.shared.is_closed.load(Ordering::Relaxed) {
            if !self.tasks.is_empty() {
                let later = std::mem::replace(&mut tasks, std::mem::take(&mut self.tasks));
                tasks.extend(later);
            }
            let passage = self.shared.passage().clone();
            if let Some(passage) = passage {
                passage
                    .pass(tasks.last().is_some_and(HttpTask::is_end))
                    .await?;
            }
            return self.inner_mut().response_duplex_vec(tasks).await;
        }
        for task in tasks {
            if let HttpTask::Failed(error) = task {
                return Err(error);
            }
            let is_end = task.is_end();
            self.tasks.push(task);
            if is_end {
                // The rules have been shown no end: nothing of it may leave.
                return Error::e_explain(ErrorType::InternalError, "response without a verdict");
            }
        }
        Ok(false)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.inner().get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner().response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.inner_mut().shutdown().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.replay.is_none() && self.inner_mut().is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner_mut().finish_body().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.replay.is_none() && self.inner_mut().is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && let Some(piece) = self.next_kept() {
            return Ok(Some(piece));
        }
        self.inner_mut().read_body_or_idle(no_body_expected).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner().to_h1_raw()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner_mut().enable_retry_buffering();
    }

    /// What was replayed once is gone.
    fn retry_buffer_truncated(&self) -> bool {
        self.inner().retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner().get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.inner().is_upgrade_req()
    }

    fn was_upgraded(&self) -> bool {
        self.inner().was_upgraded()
    }
}
