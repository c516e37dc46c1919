//! Tests sent to a running proxy, whose log says which rules matched.
//!
//! A test's lines end where the line of a marker request begins, which is sent after it: a rule
//! that logs the header `X-CRS-Test` has to be loaded (rules/ftw/crs/after.conf).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clew_ftw::{Outcome, Run, Stage, Test, bytes};

/// How long an answer may take; what waits for more of a request gets none.
const PATIENCE: Duration = Duration::from_secs(2);
const MARKER: &str = "X-CRS-Test";

/// A proxy, and its log.
pub(crate) struct Proxy {
    address: SocketAddr,
    path: PathBuf,
    log: File,
    markers: u64,
}

impl Proxy {
    /// The log is read from where it ends now.
    pub(crate) fn new(address: SocketAddr, path: &Path) -> Result<Self> {
        let unreadable = || format!("cannot read the proxy's log {}", path.display());
        let mut log = File::open(path).with_context(unreadable)?;
        log.seek(SeekFrom::End(0)).with_context(unreadable)?;
        Ok(Self {
            address,
            path: path.to_owned(),
            log,
            markers: 0,
        })
    }

    /// Runs all stages; the first that differs decides.
    pub(crate) fn run(&mut self, test: &Test) -> Result<Outcome> {
        if !test.enabled {
            return Ok(Outcome::Disabled);
        }
        for stage in &test.stages {
            if let Err(difference) = self.send(stage)?.check(&stage.output) {
                return Ok(Outcome::Failed(difference));
            }
        }
        Ok(Outcome::Passed)
    }

    fn send(&mut self, stage: &Stage) -> Result<Run> {
        let answer = self.exchange(&bytes(stage))?;
        let log = self.lines_until_marker()?;
        Ok(Run {
            status: status(&answer),
            ids: log.iter().filter_map(|line| id(line)).collect(),
            log,
            body: body(&answer).to_vec(),
            matched: Vec::new(),
            tx: BTreeMap::new(),
        })
    }

    /// Sends `request` on a connection of its own; what comes back, as far as it comes.
    fn exchange(&self, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address)
            .with_context(|| format!("no proxy answers at {}", self.address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // A proxy that has seen enough may close before all is sent.
        let _ = stream.write_all(request);
        let (mut answer, mut piece) = (Vec::new(), [0; 16384]);
        while !is_whole(&answer) {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(got) => answer.extend_from_slice(&piece[..got]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
        Ok(answer)
    }

    fn lines_until_marker(&mut self) -> Result<Vec<String>> {
        self.markers += 1;
        let name = format!("clew-{}-{}", std::process::id(), self.markers);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{MARKER}: {name}\r\nConnection: close\r\n\r\n"
        );
        self.exchange(request.as_bytes())?;
        let (mut text, start) = (String::new(), Instant::now());
        while !text.lines().any(|line| is_of(line, &name)) || !text.ends_with('\n') {
            self.log.read_to_string(&mut text)?;
            if start.elapsed() > PATIENCE {
                bail!(
                    "the marker {name} did not come up in {}: does the proxy log there, and is rules/ftw/crs/after.conf loaded?",
                    self.path.display()
                );
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let lines = text.lines().filter(|line| !is_of(line, &name));
        Ok(lines.map(str::to_owned).collect())
    }
}

fn is_of(line: &str, marker: &str) -> bool {
    line.contains(&format!("{MARKER} {marker}\""))
}

fn id(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("[id \"")?;
    rest.split_once('"')?.0.parse().ok()
}

fn head_end(answer: &[u8]) -> Option<usize> {
    answer
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn body(answer: &[u8]) -> &[u8] {
    head_end(answer).map_or(&[], |at| &answer[at..])
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let text = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    text.get(2..5)?.parse().ok()
}

/// Whether the answer is complete, as far as that can be seen; else the connection's end says so.
fn is_whole(answer: &[u8]) -> bool {
    let Some(at) = head_end(answer) else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..at]).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    match length.and_then(|value| value.trim().parse::<usize>().ok()) {
        Some(length) => answer.len() >= at + length,
        None => head.contains("transfer-encoding: chunked") && answer.ends_with(b"0\r\n\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end() {
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"));
        assert!(is_whole(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        ));
        assert_eq!(status(b"HTTP/1.1 403 Forbidden\r\n\r\n"), Some(403));
        assert_eq!(status(b"<html>"), None);
    }

    #[test]
    fn ids_are_read_from_lines() {
        assert_eq!(
            id("ModSecurity: Warning. [id \"942100\"] [msg \"x\"]"),
            Some(942_100)
        );
    }
}
