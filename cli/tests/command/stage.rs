//! A backend, a clew in front of it, and the commands that go with them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should happen. Under an emulator a start takes twenty seconds: nearly all of them
/// are the verifier's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CLEW: &str = env!("CARGO_BIN_EXE_clew");

/// Asked to stop and reaped on drop. A clew that is killed instead leaves its programs in the kernel, and
/// the next one would have to remove them.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = self.signal(Signal::TERM);
        }
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Stage {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) upstream: u16,
    pub(crate) port: u16,
    pub(crate) clew: Process,
    _backend: Process,
}

impl Stage {
    /// In front of the backend that the tests of the sensor have: one thread.
    pub(crate) fn new(more: &[&str]) -> Result<Self> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../sensor/tests/kernel/backend.py"
        );
        Self::before(&[script, "127.0.0.1", "65536"], |at, upstream| {
            start(at, upstream, more)
        })
    }

    /// In front of the same with a configuration, beside which comes a service with that backend.
    pub(crate) fn with_config(text: impl Fn(&Path) -> String) -> Result<Self> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../sensor/tests/kernel/backend.py"
        );
        Self::before(&[script, "127.0.0.1", "65536"], |at, upstream| {
            launch_with(at, upstream, &text(at))
        })
    }

    /// In front of a backend with a thread for each connection, which is told what to do by files of the
    /// stage's directory.
    pub(crate) fn with_threads() -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/backend.py");
        Self::before(&[script], |at, upstream| start(at, upstream, &[]))
    }

    /// The same, and what it writes in the stage's directory is remembered.
    pub(crate) fn watching_its_files() -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/backend.py");
        Self::before(&[script], |at, upstream| {
            let files = format!("[service.files]\nweb_root = [\"{}\"]", at.display());
            let sensor = "[sensor]\ntrace_opens = true\n";
            launch_with(at, upstream, &format!("{files}\n{sensor}"))
        })
    }

    fn before(
        script: &[&str],
        launch: impl FnOnce(&Path, u16) -> Result<(Process, u16)>,
    ) -> Result<Self> {
        let directory = shared_directory()?;
        let backend = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "/usr/bin/python3"])
            .args(script)
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut backend = Process(backend);
        let mut line = String::new();
        let out = backend.0.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let upstream = line.trim().parse()?;
        let (clew, port) = launch(directory.path(), upstream)?;
        Ok(Self {
            directory,
            upstream,
            port,
            clew,
            _backend: backend,
        })
    }

    pub(crate) fn get(&self, target: &str) -> Result<(u16, String)> {
        get(self.port, target)
    }

    /// `clew` with these words and this stage's state directory.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Output> {
        let state = self.directory.path().join("state");
        Ok(Command::new(CLEW)
            .args(words)
            .arg("--state")
            .arg(state)
            .output()?)
    }

    /// Stops clew in good order.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.clew.signal(Signal::TERM)?;
        let status = self.clew.0.wait()?;
        ensure!(status.success(), "{status}: {}", self.log()?);
        Ok(())
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }
}

/// Starts clew with a service in front of the backend, and `text` behind it, in `clew.toml`.
fn launch_with(at: &Path, upstream: u16, text: &str) -> Result<(Process, u16)> {
    let config = at.join("clew.toml");
    let service = format!("[[service]]\nname = \"it\"\nupstreams = [\"127.0.0.1:{upstream}\"]");
    std::fs::write(&config, format!("{service}\n{text}\n"))?;
    launch(at, &["--config", &config.to_string_lossy()])
}

/// A directory that the user clew becomes can pass through.
pub(crate) fn shared_directory() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode)?;
    Ok(directory)
}

/// Starts clew in front of one backend, and waits until it listens.
pub(crate) fn start(directory: &Path, upstream: u16, more: &[&str]) -> Result<(Process, u16)> {
    let upstream = format!("127.0.0.1:{upstream}");
    launch(directory, &[&["--upstream", &upstream], more].concat())
}

pub(crate) fn launch(directory: &Path, words: &[&str]) -> Result<(Process, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = Command::new(CLEW)
        .args(["run", "--listen", &format!("127.0.0.1:{port}"), "--state"])
        .arg(directory.join("state"))
        .args(words)
        .stderr(std::fs::File::create(directory.join("log"))?)
        .spawn()?;
    let mut clew = Process(child);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = std::fs::read_to_string(directory.join("log"))?;
        if log.contains("listening") {
            break;
        }
        if clew.0.try_wait()?.is_some() || Instant::now() > deadline {
            bail!("clew did not start: {log}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((clew, port))
}

/// One request on a connection of its own: status and body.
pub(crate) fn get(port: u16, target: &str) -> Result<(u16, String)> {
    get_from(Ipv4Addr::LOCALHOST, port, target)
}

/// The same, by somebody with an address of his own.
pub(crate) fn get_from(source: Ipv4Addr, port: u16, target: &str) -> Result<(u16, String)> {
    let mut stream = connect_from(source, port)?;
    send(&mut stream, target, "close")?;
    answer(&mut stream)
}

pub(crate) fn connect_from(source: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a request; `connection` is what becomes of the connection after it.
pub(crate) fn send(stream: &mut TcpStream, target: &str, connection: &str) -> Result<()> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n");
    Ok(stream.write_all(head.as_bytes())?)
}

/// Status and body of the next answer.
pub(crate) fn answer(stream: &mut TcpStream) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "closed before an answer");
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes)?.to_ascii_lowercase();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.context("no length")?];
    stream.read_exact(&mut body)?;
    Ok((status, String::from_utf8(body)?))
}

/// What the backend answers when the shell that it is to run is stopped: with BPF LSM it may not start, else it is
/// killed when it does.
pub(crate) fn stopped() -> Result<&'static str> {
    let said = Command::new(CLEW).args(["doctor", "--json"]).output()?;
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout)?;
    let refuses = findings.iter().any(|it| it["program"]["name"] == "check");
    Ok(if refuses { "refused" } else { "status -9" })
}

/// Waits until `done`.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Pin directories of a process.
pub(crate) fn pins_of(pid: u32) -> Result<usize> {
    let entries = std::fs::read_dir("/sys/fs/bpf")?.flatten();
    let prefix = format!("clew-{pid}-");
    Ok(entries
        .filter(|it| it.file_name().to_string_lossy().starts_with(&prefix))
        .count())
}
