//! rsyslog, as Debian has it, over UDP, TCP and TLS.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::stage::{PATIENCE, id_of, report, start, wait_until};

/// What it writes of a message: priority, name, structured data, text.
const TEMPLATE: &str = "%pri% %app-name% %msgid% %structured-data% %msg%\\n";

/// An rsyslog of its own, until it goes.
struct Rsyslog {
    process: Child,
    out: PathBuf,
}

impl Rsyslog {
    /// `input` is its configuration of what it listens to.
    fn start(directory: &Path, input: &str) -> Result<Self> {
        let path = |name: &str| directory.join(name);
        let out = path("out.log");
        let text = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"128k\")\n{input}\n\
             template(name=\"whole\" type=\"string\" string=\"{TEMPLATE}\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"whole\")\n",
            directory.display(),
            out.display()
        );
        std::fs::write(path("rsyslog.conf"), text)?;
        // Should this process be killed, it goes as well.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "rsyslogd", "-n"])
            .arg("-f")
            .arg(path("rsyslog.conf"));
        command
            .arg("-i")
            .arg(path("rsyslog.pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .context("rsyslogd cannot be started; scripts/setup installs it")?;
        Ok(Self { process, out })
    }

    /// The ids of what has come, in order. Each line is to be whole.
    fn ids(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let id = |line: &str| id_of(&line[line.find('{').context("no JSON")?..]);
        whole.lines().map(id).collect()
    }

    fn wait_for(&self, count: usize) -> Result<Vec<String>> {
        wait_until("rsyslog has all", || {
            self.ids().is_ok_and(|it| it.len() >= count)
        })?;
        self.ids()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for_port(port: u16) -> Result<()> {
    wait_until("rsyslog listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn udp() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let input = format!(
        "module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")"
    );
    let rsyslog = Rsyslog::start(directory.path(), &input)?;
    let listens = format!("0100007F:{port:04X} ");
    wait_until("rsyslog listens", || {
        std::fs::read_to_string("/proc/net/udp").is_ok_and(|it| it.contains(&listens))
    })?;
    let text = format!(
        "[[log]]\nsink = 'syslog'\ntransport = 'udp'\naddress = '127.0.0.1:{port}'\nstructured_data = true\n"
    );
    let log = start(directory.path(), &text)?;
    let mut ids = Vec::new();
    // No more at once than a socket's buffer has room for.
    for _ in 0..10 {
        ids.extend(report(&log, 20));
        assert_eq!(rsyslog.wait_for(ids.len())?, ids);
    }
    let counters = log.finish(PATIENCE);
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].retried),
        (200, 0)
    );
    let text = std::fs::read_to_string(&rsyslog.out)?;
    let first = text.lines().next().context("a line")?;
    // Facility 13 and severity 3; the fields as RFC 5424 has them.
    let expected = format!(
        "107 clew denied [clew@32473 id=\"{}\" severity=\"high\" service=\"shop\" client=\"203.0.113.7\" rule=\"942100\"]",
        ids[0]
    );
    ensure!(first.starts_with(&expected), "{first}");
    Ok(())
}

pub(crate) fn tcp() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let input = format!(
        "module(load=\"imtcp\")\ninput(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")"
    );
    let text = format!(
        "[[log]]\nsink = 'syslog'\ntransport = 'tcp'\naddress = '127.0.0.1:{port}'\nretry_seconds = 1\n"
    );
    let log = start(directory.path(), &text)?;
    // Nobody is there yet.
    let mut ids = report(&log, 100);
    wait_until("it has been tried", || log.counters().sinks[0].retried > 0)?;
    {
        let rsyslog = Rsyslog::start(directory.path(), &input)?;
        ids.extend(report(&log, 1000));
        assert_eq!(rsyslog.wait_for(ids.len())?, ids);
        wait_until("they are counted", || log.counters().sinks[0].sent == 1100)?;
    }
    ids.extend(report(&log, 100));
    wait_until("it has gone", || log.counters().sinks[0].retried > 2)?;
    let rsyslog = Rsyslog::start(directory.path(), &input)?;
    assert_eq!(rsyslog.wait_for(ids.len())?, ids);
    let counters = log.finish(PATIENCE);
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].dropped),
        (1200, 0)
    );
    Ok(())
}

/// Writes an authority's certificate, and that of 127.0.0.1 with its key.
pub(crate) fn certificates(directory: &Path) -> Result<()> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    std::fs::write(directory.join("ca.pem"), authority_pem)?;
    std::fs::write(directory.join("cert.pem"), certificate.pem())?;
    std::fs::write(directory.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

fn secure(directory: &Path, port: u16) -> Result<Rsyslog> {
    certificates(directory)?;
    let path = |name: &str| directory.join(name).display().to_string();
    let input = format!(
        "global(DefaultNetstreamDriver=\"gtls\" DefaultNetstreamDriverCAFile=\"{}\" \
         DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\")\n\
         module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")",
        path("ca.pem"),
        path("cert.pem"),
        path("key.pem"),
    );
    let rsyslog = Rsyslog::start(directory, &input)?;
    wait_for_port(port)?;
    Ok(rsyslog)
}

pub(crate) fn tls() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let rsyslog = secure(directory.path(), port)?;
    let ca = directory.path().join("ca.pem");
    let text = format!(
        "[[log]]\nsink = 'syslog'\naddress = '127.0.0.1:{port}'\nauthorities = '{}'\nretry_seconds = 1\n",
        ca.display()
    );
    let log = start(directory.path(), &text)?;
    let ids = report(&log, 1000);
    assert_eq!(rsyslog.wait_for(ids.len())?, ids);
    let counters = log.finish(PATIENCE);
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].waiting_events),
        (1000, 0)
    );
    Ok(())
}

pub(crate) fn wrong_authority() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let rsyslog = secure(directory.path(), port)?;
    let other = tempfile::tempdir()?;
    certificates(other.path())?;
    let ca = other.path().join("ca.pem");
    let text = format!(
        "[[log]]\nsink = 'syslog'\naddress = '127.0.0.1:{port}'\nauthorities = '{}'\n",
        ca.display()
    );
    let log = start(directory.path(), &text)?;
    report(&log, 5);
    wait_until("it is refused", || log.counters().sinks[0].retried > 1)?;
    let counters = log.finish(std::time::Duration::from_millis(200));
    let error = counters.sinks[0].last_error.clone().unwrap_or_default();
    ensure!(error.contains("certificate"), "{error}");
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].waiting_events),
        (0, 5)
    );
    assert!(rsyslog.ids()?.is_empty());
    Ok(())
}
