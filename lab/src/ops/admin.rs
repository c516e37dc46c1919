//! The admin API, by its socket in the state directory.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Longer than a reload may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// From when it listens for clients until it can be asked.
const SOON: Duration = Duration::from_secs(10);

/// Status and JSON of the answer.
pub(super) fn ask(state: &Path, method: &str, target: &str, body: &str) -> Result<(u16, Value)> {
    let mut stream = connect(state)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: clew\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?;
    let body = serde_json::from_str(body).with_context(|| format!("{target}: {body}"))?;
    Ok((status.parse()?, body))
}

/// What is answered with 200.
pub(super) fn done(state: &Path, method: &str, target: &str, body: &str) -> Result<Value> {
    let (status, answer) = ask(state, method, target, body)?;
    ensure!(status == 200, "{method} {target}: {status} {answer}");
    Ok(answer)
}

pub(super) fn reload(state: &Path) -> Result<Value> {
    done(state, "POST", "/v1/reload", "")
}

fn connect(state: &Path) -> Result<UnixStream> {
    let socket = state.join("admin.sock");
    let deadline = Instant::now() + SOON;
    loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("nobody at {}", socket.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
