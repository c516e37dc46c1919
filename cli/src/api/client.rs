//! The API's client: `clew` commands ask the clew that serves a state directory.

use std::cell::Cell;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::problem::Problem;
use super::serve::{ANSWER, SOCKET};

/// Most bytes of an answer: of 256 incidents, some tens of kilobytes each.
const ANSWER_BYTES: usize = 64 << 20;
/// How long an answer may take: no less than it is given.
const PATIENCE: Duration = ANSWER.saturating_add(Duration::from_secs(5));

/// A client of one clew.
pub(crate) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
    patience: Duration,
    /// A connection that was made by whom this process was then, for the first question.
    early: Cell<Option<StdStream>>,
}

impl Client {
    /// Of the clew that serves `state`.
    pub(crate) fn of(state: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            socket: state.join(SOCKET),
            runtime,
            patience: PATIENCE,
            early: Cell::new(None),
        })
    }

    /// As [`Self::of`], of one that runs. Who asks it is who this process is now, whoever it becomes before it does.
    pub(crate) fn of_running(state: &Path) -> Result<Option<Self>> {
        let client = Self::of(state)?;
        let Ok(early) = StdStream::connect(&client.socket) else {
            return Ok(None);
        };
        early.set_nonblocking(true)?;
        client.early.set(Some(early));
        Ok(Some(client))
    }

    /// One that waits for rules to be compiled and tried.
    pub(crate) fn patient(self) -> Self {
        Self {
            patience: 5 * PATIENCE,
            ..self
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T> {
        self.ask(Method::GET, target, Bytes::new())
    }

    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body)?;
        self.ask(Method::POST, target, body.into())
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, target: &str) -> Result<T> {
        self.ask(Method::DELETE, target, Bytes::new())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, target: &str, body: Bytes) -> Result<T> {
        let answer = self.runtime.block_on(async {
            let answered = timeout(self.patience, self.exchange(method, target, body)).await;
            answered.context("clew does not answer in time")?
        });
        let (is_well, body) = answer?;
        if is_well {
            return serde_json::from_slice(&body).context("clew answers what is not understood");
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => bail!("{}", problem.error),
            Err(_) => bail!("clew answers what is not understood"),
        }
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<(bool, Bytes)> {
        // Nobody keeps one for long that nothing is asked on.
        let early = self.early.take().filter(is_open);
        let stream = match early {
            Some(early) => UnixStream::from_std(early)?,
            None => UnixStream::connect(&self.socket).await.with_context(|| {
                format!(
                    "no clew answers at {}; is it running, with this --state?",
                    self.socket.display()
                )
            })?,
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "clew")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = async move {
            // It goes with this, and the connection with it.
            let mut sender = sender;
            let response = sender.send_request(request).await?;
            let is_well = response.status().is_success();
            Ok::<_, anyhow::Error>((is_well, whole(response).await?))
        };
        // What goes wrong with the connection, the answer tells.
        let (_, answer) = tokio::join!(connection, answer);
        answer
    }
}

/// Whether the other end has not closed it.
fn is_open(stream: &StdStream) -> bool {
    let mut nothing = [0; 1];
    let looked = rustix::net::recv(stream, &mut nothing[..], RecvFlags::PEEK);
    looked.is_err_and(|error| error == rustix::io::Errno::AGAIN)
}

async fn whole(response: Response<hyper::body::Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES)
        .collect()
        .await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => bail!("the answer breaks off: {error}"),
    }
}

/// A value as it stands in a query (RFC 3986 §3.4).
pub(crate) fn encoded(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// All entries of a list that comes in pages: `page` is told where to go on, and says where it ends.
pub(crate) fn all_pages<T>(
    mut page: impl FnMut(Option<String>) -> Result<(Vec<T>, Option<String>)>,
) -> Result<Vec<T>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (entries, next) = page(after.take())?;
        ensure!(
            next.is_none() || !entries.is_empty(),
            "the list does not end"
        );
        all.extend(entries);
        match next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}
