//! How one clew takes the place of another without a client noticing: the sockets that listen change hands, and whoever
//! connects meanwhile waits in their queues.
//!
//! The old one offers them on a Unix socket of the state directory, to root and to the user it runs as. Asked for them,
//! it hands them over, stops accepting, serves the requests that it has, and ends; the connection that it was asked on
//! ends with it. Then the new one starts as always, with sockets that listen already.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clew_proxy::Handle;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

const SOCKET: &str = "handover.sock";
/// Listeners that can change hands. (The kernel takes 253 descriptors at once: SCM_MAX_FD.)
const MOST: usize = 64;
/// What the old one says with them: that it understands.
const WORD: &[u8] = b"clew 1";
/// How long requests may go on that the old one has when it hands over: new ones wait for them.
const GRACE: Duration = Duration::from_secs(10);
/// How much longer the old one may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// The offer of one that runs.
pub(crate) struct Offer {
    listener: UnixListener,
    path: PathBuf,
}

impl Offer {
    /// Binds while there are rights to. What another has left there is replaced: who serves the state directory is
    /// known from the admin socket.
    pub(crate) fn bind(state: &Path) -> Result<Self> {
        let path = state.join(SOCKET);
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits, on a thread of its own, for somebody who asks; the path of the socket, to be removed at the end.
    /// `is_replaced` is set before the edge is stopped.
    pub(crate) fn serve(self, handle: Handle, is_replaced: Arc<AtomicBool>) -> Result<PathBuf> {
        let path = self.path.clone();
        let thread = std::thread::Builder::new().name("clew-handover".to_owned());
        thread.spawn(move || {
            let _successor = self.listener.incoming().flatten().find(|asker| {
                let given = give(asker, &handle);
                if let Err(error) = &given {
                    tracing::warn!(error = format!("{error:#}"), "nothing was handed over");
                }
                given.is_ok()
            });
            tracing::info!("another clew takes over; requests in flight finish");
            is_replaced.store(true, Ordering::Release);
            handle.shutdown_within(GRACE);
            // The successor's connection ends with this process, and not before.
            loop {
                std::thread::park();
            }
        })?;
        Ok(path)
    }
}

fn give(asker: &UnixStream, handle: &Handle) -> Result<()> {
    let who = sockopt::socket_peercred(asker)?;
    let own = rustix::process::geteuid();
    ensure!(
        who.uid.is_root() || who.uid == own,
        "user {} may not take over",
        who.uid.as_raw()
    );
    let sockets = handle.sockets()?;
    ensure!(sockets.len() <= MOST, "more than {MOST} listeners");
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    ensure!(
        message.push(SendAncillaryMessage::ScmRights(&borrowed)),
        "no room for {} listeners",
        borrowed.len()
    );
    sendmsg(
        asker,
        &[IoSlice::new(WORD)],
        &mut message,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Has the clew that serves `state` hand over and end; the sockets it listened on. Returns when it has ended.
pub(crate) fn take_over(state: &Path) -> Result<Vec<TcpListener>> {
    let path = state.join(SOCKET);
    let stream = UnixStream::connect(&path).with_context(|| {
        format!(
            "no clew offers its place at {}; start without --take-over",
            path.display()
        )
    })?;
    let sockets = receive(&stream).context("the clew that runs did not hand over")?;
    await_end(&stream)?;
    Ok(sockets)
}

fn receive(stream: &UnixStream) -> Result<Vec<TcpListener>> {
    stream.set_read_timeout(Some(ENDING))?;
    let mut word = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut word)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    ensure!(
        &word[..received.bytes] == WORD,
        "it is of another version; stop it, and start this one"
    );
    Ok(descriptors.into_iter().map(TcpListener::from).collect())
}

/// Waits until the process at the other end is gone.
fn await_end(stream: &UnixStream) -> Result<()> {
    let limit = GRACE + ENDING;
    let deadline = Instant::now() + limit;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    loop {
        match std::io::Read::read(&mut &*stream, &mut [0]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < deadline => {}
            Ok(_) | Err(_) => bail!(
                "the clew that runs has not ended within {} s; its sockets are closed here again",
                limit.as_secs()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_offer_it_says_what_to_do() {
        let state = tempfile::tempdir().expect("directory");
        let error = take_over(state.path()).expect_err("nobody offers");
        assert!(format!("{error:#}").contains("--take-over"), "{error:#}");
    }

    #[test]
    fn who_speaks_otherwise_is_not_believed() {
        let (near, far) = UnixStream::pair().expect("a pair");
        std::io::Write::write_all(&mut &far, b"something else").expect("written");
        assert!(receive(&near).is_err());
    }

    #[test]
    fn the_end_of_the_other_is_waited_for() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let begun = Instant::now();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1200));
            drop(far);
        });
        await_end(&near).expect("ended");
        assert!(begun.elapsed() >= Duration::from_millis(1200));
        other.join().expect("no panic");
    }
}
