//! The stacks: real services, started by the scripts in `lab/services`.

use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::clew::free_port;
use crate::process::{Process, mortal};

/// Longest that a service may take until it listens.
const START: Duration = Duration::from_secs(30);

/// A kind of service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// What figures call it.
    pub(crate) name: &'static str,
    /// Its folder in `lab/services`.
    folder: &'static str,
    /// A thread of it works on one request at a time, so that a request can be named whatever it hides.
    pub(crate) by_thread: bool,
    /// A worker of it, be it a thread or not, works on one request at a time.
    pub(crate) blocking: bool,
    /// What attacks add to their query, to have them served another way.
    pub(crate) query: &'static str,
    /// It wants a database.
    database: bool,
    /// How Clew talks to it.
    way: Way,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
    TlsAndHttp2,
}

const fn blocking(name: &'static str) -> Stack {
    Stack {
        name,
        folder: name,
        by_thread: true,
        blocking: true,
        query: "",
        database: false,
        way: Way::Plain,
    }
}

const fn event_loop(name: &'static str) -> Stack {
    Stack {
        by_thread: false,
        blocking: false,
        ..blocking(name)
    }
}

/// Workers that are no threads, or that are handed what another thread has read.
const fn handed(name: &'static str) -> Stack {
    Stack {
        by_thread: false,
        ..blocking(name)
    }
}

/// All of them.
pub(crate) const STACKS: &[Stack] = &[
    blocking("apache-php"),
    blocking("apache-cgi"),
    blocking("nginx-php-fpm"),
    blocking("gunicorn-sync"),
    blocking("gunicorn-gthread"),
    Stack {
        way: Way::Tls,
        ..blocking("gunicorn-tls")
    },
    blocking("nginx-gunicorn"),
    event_loop("uvicorn"),
    Stack {
        name: "uvicorn-pool",
        query: "&pool=1",
        ..event_loop("uvicorn")
    },
    Stack {
        database: true,
        ..event_loop("node")
    },
    Stack {
        name: "node-await",
        query: "&await=1",
        database: true,
        ..event_loop("node")
    },
    handed("go"),
    Stack {
        way: Way::TlsAndHttp2,
        ..handed("go-http2")
    },
    event_loop("chain"),
    event_loop("chain-node"),
    blocking("tomcat"),
    handed("puma"),
    event_loop("axum"),
];

/// What reaches a program in this stack without a shell, and from a file put into it.
#[derive(Debug, Deserialize)]
pub(crate) struct Exploits {
    /// Value of `tpl`; `{path}` stands for the file that it makes.
    pub(crate) render: String,
    /// File name of the web shell.
    pub(crate) shell_name: String,
    /// Its source.
    pub(crate) shell: String,
}

/// A service at work.
pub(crate) struct Running {
    pub(crate) port: u16,
    pub(crate) exploits: Exploits,
    /// How Clew is told of it, in its configuration.
    pub(crate) service: String,
    _service: Process,
    _database: Option<Process>,
}

impl Stack {
    pub(crate) fn named(name: &str) -> Option<&'static Stack> {
        STACKS.iter().find(|it| it.name == name)
    }

    /// Starts it, with `work` for its files.
    pub(crate) fn start(&self, work: &Path) -> Result<Running> {
        let folder = services().join(self.folder);
        let text = std::fs::read_to_string(folder.join("exploits.json"))?;
        let exploits = serde_json::from_str(&text).context("exploits.json")?;
        let (database, url) = if self.database {
            let directory = private(&work.join("postgres"))?;
            let (process, port) = listen("postgres", &directory, "")?;
            (
                Some(process),
                format!("postgresql://lab@127.0.0.1:{port}/lab"),
            )
        } else {
            (None, String::new())
        };
        let directory = private(&work.join(self.name))?;
        let (service, port) = listen(self.folder, &directory, &url)?;
        Ok(Running {
            port,
            exploits,
            service: self.way.describe(port, &directory),
            _service: service,
            _database: database,
        })
    }
}

impl Way {
    /// A service in Clew's configuration.
    fn describe(self, port: u16, directory: &Path) -> String {
        let plain =
            format!("[[service]]\nname = \"default\"\nupstreams = [\"127.0.0.1:{port}\"]\n");
        let authorities = directory.join("cert.pem");
        let tls =
            format!("tls = {{ server_name = \"localhost\", authorities = {authorities:?} }}\n");
        match self {
            Self::Plain => plain,
            Self::Tls => plain + &tls,
            Self::TlsAndHttp2 => plain + &tls + "http = \"2\"\n",
        }
    }
}

/// Runs `FOLDER/start` until it listens.
fn listen(folder: &str, directory: &Path, database: &str) -> Result<(Process, u16)> {
    let port = free_port()?;
    let log = directory.with_extension("log");
    let script = services().join(folder).join("start");
    let mut command: Command = mortal(&script.to_string_lossy());
    command
        .env("PORT", port.to_string())
        .env("DIR", directory)
        .env("DATABASE", database)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log)?)
        .stderr(std::fs::File::options().append(true).open(&log)?);
    let mut process = Process::spawn(&mut command)?;
    let deadline = Instant::now() + START;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(
            process.is_running() && Instant::now() < deadline,
            "{folder} did not start; install it with scripts/lab-stacks; it said:\n{}",
            std::fs::read_to_string(&log)?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((process, port))
}

/// A folder that the service's user, whoever that is, may write to.
pub(crate) fn private(directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory, mode)?;
    Ok(directory.to_owned())
}

fn services() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services")
}
