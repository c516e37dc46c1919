//! One sensor, one backend process, and a client that speaks as the proxy would.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clew_protocol::kernel::{Bound, Connect, Decision, Exec, KernelEvent};
use clew_protocol::{ProxyId, Sequence, ServiceId, Token, TokenKey};
use clew_sensor::{Config, Counters, FileRule, Mode, Policy, Sensor, Service, Watch};

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long is waited for what should not happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(300);

/// What is lost where the kernel has no BPF LSM.
const REFUSAL: &str = "a program that may not run is killed at its start, not refused before";

/// Tests run side by side, and each sensor sees the tokens of all.
static NEXT_PROXY: AtomicU8 = AtomicU8::new(1);

pub(crate) struct Backend {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Backend {
    pub(crate) fn start(ip: &str, recv_bytes: usize) -> Result<Self> {
        Self::start_with(ip, recv_bytes, &[])
    }

    pub(crate) fn start_with(ip: &str, recv_bytes: usize, more: &[&str]) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/backend.py");
        // setpriv: the backend dies with this process, however it ends.
        let mut child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "/usr/bin/python3",
                script,
                ip,
                &recv_bytes.to_string(),
            ])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .context("python3 and setpriv are needed: make setup")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let port: u16 = line.trim().parse()?;
        Ok(Self {
            child,
            address: SocketAddr::new(ip.parse()?, port),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Stage {
    pub(crate) sensor: Sensor,
    pub(crate) backend: Backend,
    pub(crate) key: TokenKey,
    proxy: ProxyId,
    next: Cell<u64>,
    /// The first sequence that the sensor has not been told of.
    expected: Cell<u64>,
    seen: Vec<KernelEvent>,
}

impl Stage {
    pub(crate) fn new(mode: Mode) -> Result<Self> {
        Self::with(mode, "127.0.0.1", 65_536, |_| Policy::default())
    }

    pub(crate) fn with(
        mode: Mode,
        ip: &str,
        recv_bytes: usize,
        policy: impl FnOnce(SocketAddr) -> Policy,
    ) -> Result<Self> {
        let backend = Backend::start(ip, recv_bytes)?;
        let policy = policy(backend.address);
        Self::on(backend, mode, mode, Duration::from_secs(60), policy)
    }

    /// A backend that was started with one more word: "defer", whose connections have a socket only
    /// once their first data is there, or "splice".
    pub(crate) fn special(word: &str) -> Result<Self> {
        let backend = Backend::start_with("127.0.0.1", 65_536, &[word])?;
        let long = Duration::from_secs(60);
        let enforce = Mode::Enforce;
        Self::on(backend, enforce, enforce, long, Policy::default())
    }

    /// A backend whose requests bear no token, as if nobody could read them: they are announced.
    pub(crate) fn opaque() -> Result<Self> {
        let backend = Backend::start("127.0.0.1", 65_536)?;
        let (long, enforce) = (Duration::from_secs(60), Mode::Enforce);
        Self::with_service(backend, enforce, enforce, long, Policy::default(), true)
    }

    /// A sensor whose mode holds for a tenth of a second without a heartbeat.
    pub(crate) fn untended(mode: Mode, fallback_mode: Mode) -> Result<Self> {
        let backend = Backend::start("127.0.0.1", 65_536)?;
        Self::on(
            backend,
            mode,
            fallback_mode,
            Duration::from_millis(100),
            Policy::default(),
        )
    }

    fn on(
        backend: Backend,
        mode: Mode,
        fallback_mode: Mode,
        heartbeat_limit: Duration,
        policy: Policy,
    ) -> Result<Self> {
        Self::with_service(backend, mode, fallback_mode, heartbeat_limit, policy, false)
    }

    fn with_service(
        backend: Backend,
        mode: Mode,
        fallback_mode: Mode,
        heartbeat_limit: Duration,
        policy: Policy,
        is_opaque: bool,
    ) -> Result<Self> {
        let key = TokenKey::new(rand_bytes());
        let proxy = ProxyId(NEXT_PROXY.fetch_add(1, Ordering::Relaxed));
        let sensor = Sensor::load(&Config {
            key: key.clone(),
            proxy,
            mode,
            fallback_mode,
            heartbeat_limit,
            services: vec![Service {
                name: "test".into(),
                ports: vec![backend.address.port()],
                is_opaque,
            }],
            policy,
            trace_opens: true,
            cgroup: None,
        })?;
        Ok(Self {
            sensor,
            backend,
            key,
            proxy,
            next: Cell::new(1),
            expected: Cell::new(1),
            seen: Vec::new(),
        })
    }

    /// How a shell ends here: what the kernel decides, and what the backend answers of it.
    pub(crate) fn end(&self) -> (Decision, &'static str) {
        if self.sensor.missing().contains(&REFUSAL) {
            (Decision::Killed, "status -9")
        } else {
            (Decision::Denied, "refused")
        }
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        let stream = TcpStream::connect(self.backend.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client { stream })
    }

    pub(crate) fn fresh(&self) -> Sequence {
        let sequence = self.next.get();
        self.next.set(sequence + 1);
        Sequence(sequence)
    }

    pub(crate) fn token(&self, sequence: Sequence) -> String {
        self.token_for(ServiceId(1), sequence)
    }

    fn token_for(&self, service: ServiceId, sequence: Sequence) -> String {
        let hex = Token::mint(&self.key, self.proxy, service, sequence).to_hex();
        String::from_utf8_lossy(&hex).into_owned()
    }

    /// The head of a request for another service, and its sequence.
    pub(crate) fn head_for(&self, service: u8, target: &str) -> (Sequence, String) {
        let sequence = self.fresh();
        let token = self.token_for(ServiceId(service), sequence);
        (sequence, head_with(target, &token))
    }

    /// A tagged request's head, and its sequence.
    pub(crate) fn head(&self, target: &str) -> (Sequence, String) {
        let sequence = self.fresh();
        (sequence, head_with(target, &self.token(sequence)))
    }

    /// Waits for the first event, old or new, that `pick` takes.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        pick: impl Fn(&KernelEvent) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.seen.iter().find_map(&pick) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("no {what} within {PATIENCE:?}; seen: {:#?}", self.seen);
            }
            self.look()?;
        }
    }

    fn look(&mut self) -> Result<()> {
        let mut events = Vec::new();
        self.sensor
            .next_events(Duration::from_millis(20), &mut events)?;
        while self.expected.get() < self.next.get() {
            self.sensor.expect(Sequence(self.expected.get()));
            self.expected.set(self.expected.get() + 1);
        }
        self.sensor.add_reads(&mut events);
        self.seen.append(&mut events);
        Ok(())
    }

    /// Waits for the kernel to have stopped `count` programs, without a look at its records.
    pub(crate) fn wait_stopped(&self, count: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let stopped = |it: Counters| it.killed + it.refused;
        while stopped(self.sensor.counters()) < count {
            if Instant::now() > deadline {
                bail!("{:?} after {PATIENCE:?}", self.sensor.counters());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    pub(crate) fn wait_bound(&mut self, sequence: Sequence) -> Result<Bound> {
        self.wait("Bound", |event| match event {
            KernelEvent::Bound(bound) if bound.sequence == sequence => Some(bound.clone()),
            _ => None,
        })
    }

    pub(crate) fn wait_exec(&mut self, sequence: Sequence) -> Result<Exec> {
        self.wait("Exec", |event| match event {
            KernelEvent::Exec(exec) if exec.lineage.sequence == sequence => {
                Some(exec.as_ref().clone())
            }
            _ => None,
        })
    }

    pub(crate) fn wait_connect(&mut self, sequence: Sequence) -> Result<Connect> {
        self.wait("Connect", |event| match event {
            KernelEvent::Connect(connect) if connect.lineage.sequence == sequence => {
                Some(connect.as_ref().clone())
            }
            _ => None,
        })
    }

    /// Everything seen within a moment.
    pub(crate) fn events(&mut self) -> Result<&[KernelEvent]> {
        let deadline = Instant::now() + MOMENT;
        while Instant::now() < deadline {
            self.look()?;
        }
        Ok(&self.seen)
    }
}

/// What this kernel has no provider for; what needs it is not tried.
pub(crate) fn missing() -> Vec<&'static str> {
    // What the kernel makes of connections shows at one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let _older = listener.local_addr().and_then(TcpStream::connect);
    // A file that is watched, for what goes with that to be looked for.
    let watched = Policy {
        files: vec![FileRule {
            service: 0,
            path: "/nowhere".into(),
            watch: Watch::Protect,
        }],
        ..Policy::default()
    };
    match Stage::with(Mode::Observe, "127.0.0.1", 65_536, |_| watched) {
        Ok(stage) => stage.sensor.missing().to_vec(),
        // The tests will say so.
        Err(_) => Vec::new(),
    }
}

pub(crate) fn head_with(target: &str, token: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nx-clew-token: {token}\r\nHost: test\r\nX-Other: 1\r\n\r\n")
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes())?)
    }

    /// The body of the next response.
    pub(crate) fn answer(&mut self) -> Result<String> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if self.stream.read(&mut byte)? == 0 {
                bail!("connection closed");
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head)?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .context("no length")?
            .parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}

/// Bytes that differ from test to test.
fn rand_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    random.expect("/dev/urandom");
    bytes
}
