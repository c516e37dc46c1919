//! The sensor beside the usual way: the same backends with Clew's programs, and traced by `bpftrace` on four
//! system calls.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::kernel::Bench;
use crate::load::Shot;
use crate::pairs::{Comparison, compare};
use crate::side::{Cgroup, FILE, Side};
use crate::tagged::stay_off_the_backend;

const TRACEFS: &str = "/sys/kernel/tracing";
/// Bytes of a message that goes to and fro.
const MESSAGE: usize = 64;

/// Names of a backend's comparisons: control, sensor, and bpftrace, each against none.
type Names = [&'static str; 3];

const NGINX: Names = [
    "nginx / nginx (control)",
    "nginx with sensor / without",
    "nginx traced by bpftrace / not",
];
const NODE: Names = [
    "node / node (control)",
    "node with sensor / without",
    "node traced by bpftrace / not",
];
const GUNICORN: Names = [
    "gunicorn / gunicorn (control)",
    "gunicorn with sensor / without",
    "gunicorn traced by bpftrace / not",
];
const ECHO: Names = [
    "ping-pong / ping-pong (control)",
    "ping-pong with sensor / without",
    "ping-pong traced by bpftrace / not",
];

/// Every backend in turn.
pub(crate) fn compare_all(
    pairs: u32,
    span: Duration,
    work: &Path,
    cgroup: &Cgroup,
) -> Result<Vec<Comparison>> {
    let tracing = Tracefs::mounted()?;
    let mut all = Vec::new();
    for (names, side) in [
        (NGINX, Side::backend(1, work, Some(cgroup))?),
        (NODE, Side::node(1, cgroup)?),
        (GUNICORN, Side::gunicorn(1, work, cgroup)?),
    ] {
        let bench = Bench::new(&side, cgroup, span);
        all.extend(beside(names, pairs, cgroup, |with| {
            Ok(bench.tagged(with, FILE)?.shot)
        })?);
    }
    let echo = Side::echo(1, cgroup)?;
    let bench = Bench::new(&echo, cgroup, span);
    all.extend(beside(ECHO, pairs, cgroup, |with| {
        let _sensor = with.then(|| bench.load()).transpose()?;
        ping(echo.port, span)
    })?);
    drop(tracing);
    Ok(all)
}

/// `shot` is told whether the sensor is to be there.
fn beside(
    [control, sensor, traced]: Names,
    pairs: u32,
    cgroup: &Cgroup,
    shot: impl Fn(bool) -> Result<Shot>,
) -> Result<Vec<Comparison>> {
    // One that is not warm yet would be in the first pair.
    shot(false)?;
    let bare = || shot(false);
    let with_bpftrace = || {
        let _trace = Trace::start(cgroup)?;
        shot(false)
    };
    Ok(vec![
        compare(control, None, pairs, bare, bare)?,
        compare(sensor, Some(0.95), pairs, || shot(true), bare)?,
        compare(traced, None, pairs, with_bpftrace, bare)?,
    ])
}

/// `bpftrace` at work on the system calls of a cgroup's processes; it ends on drop.
struct Trace(Child);

impl Trace {
    /// How long a call took, and how many bytes it moved: what a tracer of requests has to know at least.
    const PROGRAM: &str = "
        tracepoint:syscalls:sys_enter_read, tracepoint:syscalls:sys_enter_write,
        tracepoint:syscalls:sys_enter_recvfrom, tracepoint:syscalls:sys_enter_sendto
        /cgroup == cgroupid(\"CGROUP\")/ { @start[tid] = nsecs; }
        tracepoint:syscalls:sys_exit_read, tracepoint:syscalls:sys_exit_write,
        tracepoint:syscalls:sys_exit_recvfrom, tracepoint:syscalls:sys_exit_sendto
        /@start[tid]/ {
          @took[probe] = hist(nsecs - @start[tid]);
          @bytes[probe] = sum(args->ret);
          delete(@start[tid]);
        }
        interval:ms:20 { printf(\"at work\\n\"); }";

    fn start(cgroup: &Cgroup) -> Result<Self> {
        let program = Self::PROGRAM.replace("CGROUP", &cgroup.path().to_string_lossy());
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "INT", "taskset", "-c", "0", "bpftrace", "-e"])
            .arg(program)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().context("setpriv is missing")?;
        let mut trace = Self(child);
        let out = trace.0.stdout.take().context("no output")?;
        // All probes are there before the first interval is over.
        let mut lines = BufReader::new(out).lines();
        let is_at_work = lines.any(|line| line.is_ok_and(|line| line == "at work"));
        ensure!(
            is_at_work,
            "bpftrace does not work here: make setup installs it"
        );
        // What it prints from now on nobody reads: the pipe holds an hour of it.
        std::mem::forget(lines);
        Ok(trace)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let _ = self.0.wait();
    }
}

/// The file system that tracers want; what was not mounted before is not afterwards.
struct Tracefs {
    was_there: bool,
}

impl Tracefs {
    fn mounted() -> Result<Self> {
        let is_there = || Path::new(TRACEFS).join("events/syscalls").exists();
        let was_there = is_there();
        if !was_there {
            mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)
                .context("tracefs cannot be mounted")?;
        }
        let own = Self { was_there };
        ensure!(is_there(), "this kernel has no tracepoints of system calls");
        Ok(own)
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if !self.was_there {
            let _ = unmount(TRACEFS, UnmountFlags::empty());
        }
    }
}

/// Says back what one client after the other says, until it is ended.
pub(crate) fn echo(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        let (mut client, _) = listener.accept()?;
        client.set_nodelay(true)?;
        let mut message = [0; MESSAGE];
        while client.read_exact(&mut message).is_ok() {
            client.write_all(&message)?;
        }
    }
}

/// Messages to and fro, one at a time.
fn ping(port: u16, span: Duration) -> Result<Shot> {
    let everywhere = rustix::thread::sched_getaffinity(None)?;
    stay_off_the_backend()?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let mut spans = Vec::with_capacity(1 << 18);
    let mut message = [0; MESSAGE];
    let start = Instant::now();
    while start.elapsed() < span {
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        spans.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    rustix::thread::sched_setaffinity(None, &everywhere)?;
    spans.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (spans.len() as f64 * share) as usize;
        spans.get(index).copied().unwrap_or(0.0)
    };
    // Half of all, not the mean of them: a pause of the machine's is no latency.
    Ok(Shot {
        requests_per_second: 1e6 / at(0.5),
        p50_us: at(0.5),
        p99_us: at(0.99),
    })
}
