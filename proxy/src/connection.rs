//! One client connection: a total deadline and a bound on each request head, which pingora does
//! not give (its timeout is per read, its bound a megabyte), and on an HTTP/2 preface; and how long
//! the backend of its request may be silent.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use clew_protocol::Sequence;
use http::HeaderValue;
use pingora::http::ResponseHeader;
use pingora::protocols::ALPN;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::Limits;
use crate::counters::Tally;
use crate::request_line::{Intake, RequestLine};
use crate::upstream::written;

/// What the stream and the request on it tell one another.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    /// A request head has been read and its request is not over.
    in_request: AtomicBool,
    /// A request head has been read since the connection last waited for one.
    has_moved_on: AtomicBool,
    /// The request line that was read, where pingora got another one.
    line: Mutex<Option<RequestLine>>,
    /// Which attempt's response is being written; 0 for none, or for an answer of the edge's own.
    relayed: AtomicU64,
    /// The last attempt that a verdict has ended.
    cut: AtomicU64,
    /// Who waits for the client to take more of a response.
    writer: Mutex<Option<Waker>>,
    /// How long the backend may be silent, in nanoseconds; 0: nobody waits for it.
    patience: AtomicU64,
    /// How often that time began anew.
    words: AtomicU64,
    /// The backend was silent for longer.
    is_late: AtomicBool,
    /// The peer, as backends are told of it.
    peer: OnceLock<(IpAddr, HeaderValue)>,
    /// The connection itself, when its request failed but it can carry another.
    spared: Mutex<Option<Stream>>,
}

impl Phase {
    pub(crate) fn set_in_request(&self, in_request: bool) {
        if in_request {
            self.has_moved_on.store(true, Ordering::Relaxed);
        }
        self.in_request.store(in_request, Ordering::Relaxed);
        self.await_backend(None);
    }

    /// `peer`, whose connection this is, as a field's value; written out once.
    pub(crate) fn peer(&self, peer: IpAddr) -> pingora::Result<HeaderValue> {
        if let Some((known, value)) = self.peer.get()
            && *known == peer
        {
            return Ok(value.clone());
        }
        let value = written(peer)?;
        let _ = self.peer.set((peer, value.clone()));
        Ok(value)
    }

    fn set_line(&self, line: RequestLine) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    /// The request line as the client wrote it, where pingora got another one.
    pub(crate) fn take_line(&self) -> Option<RequestLine> {
        self.line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// From now on the backend may be silent for `patience` at a time; none: nobody waits for it.
    pub(crate) fn await_backend(&self, patience: Option<Duration>) {
        let nanos = |it: Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.patience
            .store(patience.map_or(0, nanos), Ordering::Relaxed);
        self.note_word();
    }

    /// The backend has said something, or could not have.
    pub(crate) fn note_word(&self) {
        self.words.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the backend was silent for too long.
    pub(crate) fn is_backend_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// From now on the response of `attempt` is what is written; none: an answer of the edge's own.
    pub(crate) fn set_relayed(&self, attempt: Option<Sequence>) {
        let number = attempt.map_or(0, |attempt| attempt.0);
        self.relayed.store(number, Ordering::Release);
    }

    /// No more is written of the response of `attempt`, also when its client does not read.
    pub(crate) fn cut(&self, attempt: Sequence) {
        self.cut.store(attempt.0, Ordering::SeqCst);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_ref() {
            writer.wake_by_ref();
        }
    }

    /// Fails once the response that is being written is cut.
    fn check_cut(&self) -> io::Result<()> {
        let relayed = self.relayed.load(Ordering::Acquire);
        if relayed != 0 && relayed == self.cut.load(Ordering::SeqCst) {
            return Err(io::Error::other("response cut by a verdict"));
        }
        Ok(())
    }

    /// Sees to it that a blocked writer learns of a cut.
    fn watch_cut<T>(&self, cx: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            // While its client does not read, nobody asks the backend.
            self.note_word();
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            *writer = Some(cx.waker().clone());
            drop(writer);
            self.check_cut()?;
        }
        polled
    }

    /// Hands the connection back: pingora closes it after any failed request.
    pub(crate) fn spare(&self, stream: Stream) {
        *self.spared.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// The connection that was handed back, if one was.
    pub(crate) fn take_spared(&self) -> Option<Stream> {
        self.spared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The phase of the connection that `digest` describes, if it is an HTTP/1 one of ours.
    pub(crate) fn of(digest: Option<&ProxyDigest>) -> Option<&Arc<Phase>> {
        digest?.user_data.as_ref()?.downcast_ref()
    }
}

/// Typical MSS; what pingora's own listeners buffer.
const WRITE_BUFFER_BYTES: usize = 1460;
/// Bytes of an HTTP/2 preface (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// A head of this many times the limit is read and answered 431; a longer one is cut off.
const COURTESY: usize = 4;

/// A stream whose request heads, or whose preface, must come in time, and the backend's words while
/// one of its requests waits for them.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    /// Collects what pingora writes until it flushes: unbuffered, a response's head and body are
    /// a system call and a packet each.
    inner: BufWriter<S>,
    phase: Arc<Phase>,
    /// None with HTTP/2, whose requests are no phases of the connection.
    digest: Option<Arc<ProxyDigest>>,
    tally: Arc<Tally>,
    deadline: Duration,
    /// How long the first byte of a head may take.
    keepalive: Duration,
    /// Bytes after which no more of a head is read.
    limit_bytes: usize,
    /// Bytes read of the head, or of the preface.
    read_bytes: usize,
    /// When what is waited for has to be there: a head's first byte, or its last, or the backend's
    /// next word.
    due: Option<Instant>,
    /// How often the backend's time had begun when `due` was set.
    words: u64,
    /// Wakes the reader at `due` or earlier, and is set anew only then: a timer for each request
    /// would cost more than all else here.
    alarm: Option<Pin<Box<Sleep>>>,
    intake: Intake,
}

impl<S: IO> Connection<S> {
    /// For HTTP/1: each head has `limits.head_deadline`, from its first byte.
    pub(crate) fn http1(inner: S, limits: &Limits, tally: Arc<Tally>) -> pingora::Result<Self> {
        let phase = Arc::new(Phase::default());
        // The digest is pingora's way to carry data of ours from the stream to its requests.
        let header = Box::new(ResponseHeader::build(200, None)?);
        let digest = Arc::new(ProxyDigest::new(header, Some(Box::new(phase.clone()))));
        Ok(Self {
            inner: BufWriter::with_capacity(WRITE_BUFFER_BYTES, inner),
            phase,
            digest: Some(digest),
            tally,
            deadline: limits.head_deadline,
            // Less would not leave a new connection time for its first byte.
            keepalive: limits.keepalive.max(Duration::from_secs(1)),
            limit_bytes: limits.head_bytes.saturating_mul(COURTESY),
            read_bytes: 0,
            due: None,
            words: 0,
            alarm: None,
            intake: Intake::default(),
        })
    }

    /// For HTTP/2: the preface has `limits.head_deadline`, from now; what follows has limits of
    /// its own.
    pub(crate) fn http2(inner: S, limits: &Limits, tally: Arc<Tally>) -> Self {
        Self {
            inner: BufWriter::with_capacity(WRITE_BUFFER_BYTES, inner),
            phase: Arc::default(),
            digest: None,
            tally,
            deadline: limits.head_deadline,
            keepalive: limits.keepalive,
            limit_bytes: usize::MAX,
            read_bytes: 0,
            due: Some(Instant::now() + limits.head_deadline),
            words: 0,
            alarm: None,
            intake: Intake::default(),
        }
    }

    /// Fails when what is waited for of the client is overdue.
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let has_begun = self.read_bytes > 0;
        let span = if has_begun {
            self.deadline
        } else {
            self.keepalive
        };
        let due = *self.due.get_or_insert_with(|| Instant::now() + span);
        if self.is_over(due, cx) {
            let is_slow = has_begun || self.digest.is_none();
            return Err(self.overdue(is_slow));
        }
        Ok(())
    }

    /// Fails when the backend's next word is overdue. It is the client's connection that says so
    /// because it has an alarm that is kept from request to request; pingora sets a timer for each.
    fn check_backend(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let patience = self.phase.patience.load(Ordering::Relaxed);
        if patience == 0 {
            return Ok(());
        }
        let words = self.phase.words.load(Ordering::Relaxed);
        let due = match self.due {
            Some(due) if words == self.words => due,
            _ => Instant::now() + Duration::from_nanos(patience),
        };
        (self.words, self.due) = (words, Some(due));
        if self.is_over(due, cx) {
            self.phase.is_late.store(true, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::TimedOut, "backend overdue"));
        }
        Ok(())
    }

    /// Whether it is `due`; if not, sees to it that the task wakes when it is.
    fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() > due {
            alarm.as_mut().reset(due);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            alarm.as_mut().reset(due);
        }
        false
    }

    fn overdue(&self, is_slow: bool) -> io::Error {
        if is_slow {
            self.tally.slow_heads.add_one();
        }
        io::Error::new(io::ErrorKind::TimedOut, "request head overdue")
    }

    pub(crate) fn phase(&self) -> Arc<Phase> {
        self.phase.clone()
    }

    /// Fails when the head is longer than anybody needs.
    fn check_length(&self) -> io::Result<()> {
        if self.read_bytes < self.limit_bytes {
            return Ok(());
        }
        self.tally.bad_requests.add_one();
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "endless request head",
        ))
    }

    /// Counts what was read of a head, whose clock starts with its first byte.
    fn note(&mut self, bytes: usize) {
        let is_first = self.read_bytes == 0 && bytes > 0;
        self.read_bytes += bytes;
        if self.digest.is_some() {
            if is_first {
                self.due = None;
            }
        } else if self.read_bytes >= PREFACE_BYTES {
            self.phase.set_in_request(true);
        }
    }

    fn rest(&mut self) {
        self.read_bytes = 0;
        self.due = None;
        self.intake.rest();
    }

    /// Reads what the client sends of a head.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            self.check_length()?;
            let before = buf.filled().len();
            let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, buf) else {
                self.check_deadline(cx)?;
                return Poll::Pending;
            };
            read?;
            self.note(buf.filled().len() - before);
            // HTTP/2 has no lines.
            if self.digest.is_none() {
                return Poll::Ready(Ok(()));
            }
            if let Some(line) = self.intake.pass(buf, before) {
                if let Some(line) = line {
                    self.phase.set_line(line);
                }
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: IO> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.intake.give(buf) {
            return Poll::Ready(Ok(()));
        }
        if self.phase.in_request.load(Ordering::Relaxed) {
            let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
            if polled.is_pending() {
                self.check_backend(cx)?;
            }
            return polled;
        }
        if self.phase.has_moved_on.load(Ordering::Relaxed) {
            self.phase.has_moved_on.store(false, Ordering::Relaxed);
            self.rest();
        }
        self.poll_head(cx, buf)
    }
}

impl<S: IO> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.phase.check_cut()?;
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.phase.watch_cut(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.check_cut()?;
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.phase.watch_cut(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.phase.check_cut()?;
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.phase.watch_cut(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<S: IO> Shutdown for Connection<S> {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(self.inner.get_mut()).await;
    }
}

impl<S: IO> UniqueID for Connection<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.get_ref().id()
    }
}

impl<S: IO> Ssl for Connection<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ref().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.get_ref().selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Connection<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_ref().get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for Connection<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl<S: IO> GetSocketDigest for Connection<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_ref().get_socket_digest()
    }
}

#[async_trait]
impl<S: IO> Peek for Connection<S> {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.get_mut().try_peek(buf).await
    }
}
