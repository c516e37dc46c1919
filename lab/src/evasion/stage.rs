//! What the cases play on: the backends, each reading requests in its own way, the process beside
//! them, and a configuration that puts Clew before all of them. All of it runs before Clew does.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::clew::free_port;
use crate::process::{Process, mortal};

/// How a backend reads its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `recv`, a thread for each connection.
    Plain,
    /// The same, in a child that was forked at start.
    Prefork,
    /// By io_uring.
    IoUring,
    /// By `splice` into a pipe.
    Splice,
    /// By `TCP_ZEROCOPY_RECEIVE`.
    ZeroCopy,
}

impl Mode {
    pub(crate) const ALL: [Mode; 5] = [
        Mode::Plain,
        Mode::Prefork,
        Mode::IoUring,
        Mode::Splice,
        Mode::ZeroCopy,
    ];

    /// The word on the backend's command line, the service's name and its host.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Prefork => "prefork",
            Mode::IoUring => "io-uring",
            Mode::Splice => "splice",
            Mode::ZeroCopy => "zero-copy",
        }
    }
}

/// A backend at work.
struct Backend {
    mode: Mode,
    port: u16,
    process: Process,
}

/// Everything but Clew.
pub(crate) struct Stage {
    pub(crate) work: PathBuf,
    /// Clew's configuration file.
    pub(crate) configuration: PathBuf,
    /// Where Clew listens.
    pub(crate) port: u16,
    backends: Vec<Backend>,
    names: RandomState,
    _helper: Process,
}

impl Stage {
    /// Compiles and starts the backends.
    pub(crate) fn start(work: &Path) -> Result<Self> {
        compile(work)?;
        std::fs::create_dir(work.join("marks"))?;
        let program = work.join("evasion");
        let start = |arguments: &[&str]| -> Result<(Process, u16)> {
            let mut command = mortal(&program.to_string_lossy());
            command.args(arguments);
            let mut process = Process::spawn(&mut command)?;
            let port = process.first_line()?.parse();
            Ok((process, port.context("the backend did not start")?))
        };
        let folder = work.to_string_lossy();
        let (helper, database) = start(&["helper", &folder])?;
        let backend = |mode: Mode| {
            let (process, port) = start(&[mode.name(), &folder, &database.to_string()])?;
            Ok(Backend {
                mode,
                port,
                process,
            })
        };
        let backends = Mode::ALL
            .into_iter()
            .map(backend)
            .collect::<Result<Vec<_>>>()?;
        let port = free_port()?;
        let configuration = work.join("clew.toml");
        std::fs::write(&configuration, configure(port, &backends))?;
        Ok(Self {
            work: work.to_owned(),
            configuration,
            port,
            backends,
            names: RandomState::new(),
            _helper: helper,
        })
    }

    /// Where the backend of `mode` listens; it must be alive.
    pub(crate) fn backend(&mut self, mode: Mode) -> Result<u16> {
        let backend = self.backends.iter_mut().find(|it| it.mode == mode);
        let backend = backend.context("no such backend")?;
        ensure!(
            backend.process.is_running(),
            "the backend {} has ended",
            mode.name()
        );
        Ok(backend.port)
    }

    /// Name of the file that proves that the attack of `case` worked; `turn` tells its runs apart.
    /// Nothing in it is also in another one: Clew compares what requests say.
    pub(crate) fn mark(&self, case: &str, turn: &str) -> String {
        format!("{:016x}", self.names.hash_one((case, turn)))
    }

    /// Whether the program ran that was to make this mark.
    pub(crate) fn is_marked(&self, mark: &str) -> bool {
        self.work.join("marks").join(mark).exists()
    }

    /// What the handler noted about a run, on one line.
    pub(crate) fn note(&self, case: &str, turn: &str) -> String {
        let name = format!("{}.note", self.mark(case, turn));
        let path = self.work.join("marks").join(name);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim_end().replace('\n', "; ")
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.work.join("payload")
    }

    /// The program that the backends are, which is also a client that comes from a port of its choice.
    pub(crate) fn program(&self) -> PathBuf {
        self.work.join("evasion")
    }
}

/// What any visitor of a service sends.
pub(crate) fn benign(mode: Mode) -> String {
    get(mode, "/benign")
}

/// A request without a body.
pub(crate) fn get(mode: Mode, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", mode.name())
}

fn configure(port: u16, backends: &[Backend]) -> String {
    let mut text = format!("[[listener]]\naddress = \"127.0.0.1:{port}\"\n");
    for Backend { mode, port, .. } in backends {
        let name = mode.name();
        text += &format!(
            "[[service]]\nname = \"{name}\"\nhosts = [\"{name}\"]\nupstreams = [\"127.0.0.1:{port}\"]\n"
        );
    }
    text
}

fn compile(work: &Path) -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/evasion");
    let source = |name: &str| sources.join(name);
    let build = |output: &str, files: &[&str]| -> Result<()> {
        let built = Command::new("gcc")
            .args(["-O1", "-Wall", "-pthread", "-o"])
            .arg(work.join(output))
            .args(files.iter().map(|name| source(name)))
            .status()
            .context("gcc is missing: make setup")?;
        ensure!(built.success(), "{output} does not compile");
        Ok(())
    };
    build("payload", &["payload.c"])?;
    build(
        "evasion",
        &[
            "server.c",
            "common.c",
            "ring.c",
            "flows.c",
            "programs.c",
            "lineage.c",
            "handoff.c",
            "knock.c",
        ],
    )
}
