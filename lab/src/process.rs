//! Child processes that do not outlive this one.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How long a child may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A child, asked to stop and reaped on drop. A clew that is killed instead leaves its programs in
/// the kernel.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child })
    }

    /// Waits for the first line it prints.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let out = self.child.stdout.take().context("output is not piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once (SIGKILL), and waits.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself; whether it ended well.
    pub(crate) fn wait(mut self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        while self.is_running() {
            ensure!(
                Instant::now() < deadline,
                "it has not ended within {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(self.child.wait()?.success())
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> Result<bool> {
        self.terminate()?;
        Ok(self.child.wait()?.success())
    }

    fn terminate(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::TERM,
        )?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        if self.is_running() {
            let _ = self.terminate();
        }
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that the kernel kills when this process dies, however it does.
pub(crate) fn mortal(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", program])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}
