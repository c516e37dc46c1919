//! The access log: a line for every request, in the combined form of web servers, with the request's id, service,
//! backend and time behind it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use clew_proxy::{Access, Accesses};
use time::OffsetDateTime;
use time::macros::format_description;

/// Lines that may wait for the disk; more are lost, and counted.
const LINES: usize = 16_384;
/// Bytes of a client's text in a line.
const TEXT_BYTES: usize = 2048;
/// How often it is looked whether the file has been moved away.
const LOOK: Duration = Duration::from_secs(1);

/// The file, open, and the lines on their way to it.
pub(crate) struct AccessLog {
    path: PathBuf,
    file: File,
    queue: SyncSender<String>,
    lines: Receiver<String>,
    lost: Lost,
}

/// The thread that writes.
pub(crate) struct Scribe {
    queue: SyncSender<String>,
    thread: JoinHandle<()>,
}

impl Scribe {
    /// Waits until all is written that is told by now.
    pub(crate) fn finish(self) {
        // A line of nothing is the last one.
        if self.queue.send(String::new()).is_ok() {
            let _ = self.thread.join();
        }
    }
}

/// Lines that found no room.
#[derive(Debug, Clone, Default)]
struct Lost(Arc<AtomicU64>);

impl AccessLog {
    /// Opens the file, and says who is to be told of requests.
    pub(crate) fn open(path: &Path) -> Result<(Self, Accesses)> {
        let file = append(path)?;
        let (queue, lines) = sync_channel(LINES);
        let lost = Lost::default();
        let log = Self {
            path: path.to_owned(),
            file,
            queue: queue.clone(),
            lines,
            lost: lost.clone(),
        };
        Ok((log, accesses(queue, lost)))
    }

    /// Writes, on a thread of its own.
    pub(crate) fn start(self) -> Result<Scribe> {
        let thread = std::thread::Builder::new().name("clew-access".to_owned());
        let queue = self.queue.clone();
        Ok(Scribe {
            queue,
            thread: thread.spawn(move || self.write_all())?,
        })
    }

    fn write_all(mut self) {
        let mut has_failed = false;
        let mut told = 0;
        loop {
            let lost = self.lost.0.load(Ordering::Relaxed);
            if lost > told {
                tracing::warn!(
                    lost = lost - told,
                    "lines of the access log lost: the disk is too slow"
                );
                told = lost;
            }
            let first = match self.lines.recv_timeout(LOOK) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    self.follow();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // What waits goes in one write.
            let more = self.lines.try_iter().take(1024);
            let mut is_over = false;
            let mut text = String::new();
            for line in std::iter::once(first).chain(more) {
                is_over |= line.is_empty();
                text.push_str(&line);
            }
            let written = self.file.write_all(text.as_bytes());
            if let Err(error) = &written
                && !has_failed
            {
                tracing::error!(%error, "the access log cannot be written");
            }
            has_failed = written.is_err();
            if is_over {
                return;
            }
            self.follow();
        }
    }

    /// Opens the file anew where somebody has moved it away.
    fn follow(&mut self) {
        let identity = |it: std::fs::Metadata| (it.dev(), it.ino());
        let (own, there) = (self.file.metadata(), std::fs::metadata(&self.path));
        let is_there = own.ok().map(identity) == there.ok().map(identity);
        if !is_there && let Ok(file) = append(&self.path) {
            self.file = file;
        }
    }
}

fn append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o640).open(path);
    file.with_context(|| format!("cannot write the access log {}", path.display()))
}

fn accesses(queue: SyncSender<String>, lost: Lost) -> Accesses {
    Accesses::new(move |access| {
        if queue.try_send(line(access)).is_err() {
            lost.0.fetch_add(1, Ordering::Relaxed);
        }
    })
}

fn line(it: &Access<'_>) -> String {
    let mut line = String::with_capacity(256);
    let _ = write!(
        line,
        "{} - - [{}] \"{} ",
        it.client,
        moment(it.at),
        it.method
    );
    text(&mut line, it.target);
    let status = it.status.unwrap_or(0);
    let _ = write!(line, " HTTP/{}\" {status} {} \"", it.version, it.body_bytes);
    text(&mut line, it.referrer.unwrap_or(b"-"));
    line.push_str("\" \"");
    text(&mut line, it.user_agent.unwrap_or(b"-"));
    let _ = write!(line, "\" {} \"", it.id);
    text(&mut line, it.authority);
    let _ = write!(line, "\" {} ", it.service.unwrap_or("-"));
    match it.upstream {
        Some(upstream) => {
            let _ = write!(line, "{upstream}");
        }
        None => line.push('-'),
    }
    let _ = writeln!(line, " {:.6}", it.took.as_secs_f64());
    line
}

fn moment(at: Duration) -> String {
    let form =
        format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
    let seconds = i64::try_from(at.as_secs()).unwrap_or_default();
    let moment = OffsetDateTime::from_unix_timestamp(seconds);
    moment
        .ok()
        .and_then(|it| it.format(form).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// What a client has sent, so that it cannot end its field or its line.
fn text(line: &mut String, bytes: &[u8]) {
    for byte in &bytes[..bytes.len().min(TEXT_BYTES)] {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            0x20..=0x7e => line.push(char::from(*byte)),
            _ => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clew_protocol::RequestId;

    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_a_client_sends() {
        let id = RequestId::fresh();
        let access = Access {
            at: Duration::from_secs(1_700_000_000),
            took: Duration::from_micros(1500),
            id,
            span: None,
            peer: "192.0.2.7:40000".parse().expect("an address"),
            is_secure: false,
            client: "192.0.2.7".parse().expect("an address"),
            method: "GET",
            target: b"/a\"\nb",
            version: "1.1",
            authority: b"shop",
            referrer: None,
            user_agent: Some(b"x\\\xff"),
            status: Some(200),
            outcome: None,
            incident: None,
            body_bytes: 7,
            service: Some("shop"),
            upstream: None,
        };
        assert_eq!(
            line(&access),
            format!(
                "192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] \"GET /a\\\"\\x0ab HTTP/1.1\" 200 7 \"-\" \"x\\\\\\xff\" \
                 {id} \"shop\" shop - 0.001500\n"
            )
        );
    }
}
