//! The sides of a comparison: processes on a core of their own.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    Plain,
    ClewWithoutSensor,
    ClewWithSensor,
    /// Judges by the file `rules.conf` in the working directory.
    ClewWithRules,
    Nginx,
    /// With libmodsecurity, which judges by the same file.
    NginxWithRules,
}

/// What the backend reads from a file.
pub(crate) const FILE: &str = "/hello.txt";
const BODY: &str = "hello, world";

/// A server at work; stopped in good order on drop.
pub(crate) struct Side {
    pub(crate) port: u16,
    child: Child,
}

impl Side {
    /// A proxy on core 1 in front of `upstream`.
    pub(crate) fn proxy(proxy: Proxy, upstream: u16, binaries: &Path, work: &Path) -> Result<Self> {
        let port = free_port()?;
        let (listen, to) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{upstream}"));
        let rules = work.join("rules.conf");
        let file = work.join(format!("clew-{port}.toml"));
        // One thread for every side.
        let mut config = "[edge]\nthreads = 1\n".to_owned();
        if proxy == Proxy::ClewWithRules {
            config += &format!("[rules]\nfiles = [{rules:?}]\n");
        }
        let clew = |more: &[&str]| {
            let mut command = pinned(1, binaries.join("clew").as_os_str());
            let state = work.join(format!("state-{port}"));
            command.args(["run", "--listen", &listen, "--config"]);
            command
                .arg(&file)
                .args(["--upstream", &to, "--state"])
                .arg(state);
            command.args(more);
            command
        };
        std::fs::write(&file, config)?;
        let command = match proxy {
            Proxy::Plain => {
                let mut command = pinned(1, binaries.join("plain-pingora").as_os_str());
                command.args([&listen, &to]);
                command
            }
            Proxy::ClewWithoutSensor | Proxy::ClewWithRules => clew(&["--no-sensor"]),
            Proxy::ClewWithSensor => clew(&[]),
            Proxy::Nginx => nginx(
                1,
                port,
                "",
                &format!("location / {{ proxy_pass http://{to}; }}"),
                work,
            )?,
            Proxy::NginxWithRules => {
                let rules = format!(
                    "modsecurity on; modsecurity_rules_file {};",
                    rules.display()
                );
                let location = format!("location / {{ {rules} proxy_pass http://{to}; }}");
                nginx(1, port, MODSECURITY, &location, work)?
            }
        };
        Self::start(command, port)
    }

    /// nginx answering a small body, on `core`; in `cgroup` if there is one. [`FILE`] it reads from
    /// a file of its own; what it says to everything else is in its configuration.
    pub(crate) fn backend(core: u8, work: &Path, cgroup: Option<&Cgroup>) -> Result<Self> {
        let port = free_port()?;
        let www = work.join("www");
        std::fs::create_dir_all(&www)?;
        std::fs::write(www.join(FILE.trim_start_matches('/')), BODY)?;
        let location = format!(
            "location = {FILE} {{ root {}; }} location / {{ return 200 \"{BODY}\"; }}",
            www.display()
        );
        let mut command = nginx(core, port, "", &location, work)?;
        if let Some(cgroup) = cgroup {
            command = cgroup.enter(&command);
        }
        Self::start(command, port)
    }

    /// Node answering a small body.
    pub(crate) fn node(core: u8, cgroup: &Cgroup) -> Result<Self> {
        let mut command = pinned(core, "node".as_ref());
        command.arg(backends().join("hello.js"));
        Self::start_at(cgroup.enter(&command))
    }

    /// gunicorn, one worker of a few threads, doing the same.
    pub(crate) fn gunicorn(core: u8, work: &Path, cgroup: &Cgroup) -> Result<Self> {
        let port = free_port()?;
        let gunicorn = Path::new("target/lab/venv/bin/gunicorn");
        ensure!(
            gunicorn.exists(),
            "gunicorn is missing: scripts/lab-stacks gunicorn-gthread"
        );
        let mut command = pinned(core, gunicorn.as_os_str());
        command.arg("--chdir").arg(backends());
        command.args([
            "--bind",
            &format!("127.0.0.1:{port}"),
            "--worker-class",
            "gthread",
        ]);
        command.args(["--workers", "1", "--threads", "4", "--keep-alive", "600"]);
        command.arg("--worker-tmp-dir").arg(work);
        command.args([
            "--no-control-socket",
            "--graceful-timeout",
            "1",
            "hello:app",
        ]);
        let mut command = cgroup.enter(&command);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(command, port)
    }

    /// This program, saying back what it is told.
    pub(crate) fn echo(core: u8, cgroup: &Cgroup) -> Result<Self> {
        let port = free_port()?;
        let own = std::env::current_exe()?;
        let mut command = pinned(core, own.as_os_str());
        command.args(["--echo", &port.to_string()]);
        Self::start(cgroup.enter(&command), port)
    }

    /// Of one that looks for its port in the environment.
    fn start_at(mut command: Command) -> Result<Self> {
        let port = free_port()?;
        command.env("PORT", port.to_string());
        Self::start(command, port)
    }

    /// How long it has been at work on its core.
    pub(crate) fn busy(&self) -> Result<Duration> {
        crate::tagged::time_at_work(self.child.id())
    }

    fn start(mut command: Command, port: u16) -> Result<Self> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut side = Self { port, child };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(
                side.child.try_wait()?.is_none(),
                "{command:?} ended at once"
            );
            ensure!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(side)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Plain pingora takes minutes over SIGTERM.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cgroup2 of its own, so that one end of a loopback connection can be watched without the
/// other; removed on drop.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new() -> Result<Self> {
        let mount = clew_sensor::cgroup2_mount().context("no cgroup2 hierarchy is mounted")?;
        let path = mount.join(format!("clew-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// `command`, started inside.
    fn enter(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside
            .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn backends() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backends")
}

/// Debian's `libnginx-mod-http-modsecurity`.
const MODSECURITY: &str = "load_module /usr/lib/nginx/modules/ngx_http_modsecurity_module.so;\n";

fn pinned(core: u8, program: &std::ffi::OsStr) -> Command {
    // A bench that is killed leaves nothing behind.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT", "taskset", "-c", &core.to_string()]);
    command.arg(program);
    command
}

fn nginx(core: u8, port: u16, modules: &str, locations: &str, work: &Path) -> Result<Command> {
    let prefix: PathBuf = work.join(format!("nginx-{port}"));
    std::fs::create_dir_all(&prefix)?;
    let conf = prefix.join("nginx.conf");
    let text = format!(
        "{modules}daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n\
           large_client_header_buffers 4 32k;\n\
           client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u;\n\
           scgi_temp_path s; default_type text/plain; proxy_http_version 1.1;\n\
           proxy_set_header Connection \"\";\n\
           server {{ listen 127.0.0.1:{port} backlog=1024; {locations} }} }}\n"
    );
    std::fs::write(&conf, upstream_keepalive(&text))?;
    let mut command = pinned(core, "nginx".as_ref());
    command.arg("-p").arg(&prefix).arg("-c").arg(&conf);
    Ok(command)
}

/// nginx keeps upstream connections only in an `upstream` block.
fn upstream_keepalive(text: &str) -> String {
    let Some(at) = text.find("proxy_pass http://") else {
        return text.to_owned();
    };
    let rest = &text[at + "proxy_pass http://".len()..];
    let address = rest.split(';').next().unwrap_or_default();
    text.replace(&format!("http://{address};"), "http://backend;").replace(
        "server {",
        &format!("upstream backend {{ server {address}; keepalive 128; keepalive_requests 100000000; }}\nserver {{"),
    )
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .context("no free port")?
        .local_addr()?
        .port())
}
