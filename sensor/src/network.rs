//! The network namespaces of this host, and the sockets in each.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

use aya::programs::ProgramError;
use aya::programs::iter::{Iter, IterLink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Has a program of `iter/tcp` look at every TCP socket that is there.
///
/// # Errors
///
/// The program is not loaded, or the kernel refuses it, or what it does at a socket. A namespace that cannot be
/// entered is logged.
pub(crate) fn visit_sockets(program: &mut Iter) -> Result<(), ProgramError> {
    for namespace in namespaces() {
        let id = program.attach()?;
        let link = program.take_link(id)?;
        // A thread of its own, which has not got to get back.
        let visit = thread::spawn(move || visit(&namespace, link)).join();
        match visit {
            Ok(Ok(0)) => {}
            Ok(Ok(_)) => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
            Ok(Err(error)) => tracing::warn!(%error, "sockets of a network namespace left out"),
            Err(_) => tracing::error!("looking at the sockets of a network namespace failed"),
        }
    }
    Ok(())
}

/// Has the program run; what it has written, in bytes.
fn visit(namespace: &File, link: IterLink) -> io::Result<u64> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut sockets = link.into_file().map_err(io::Error::other)?;
    io::copy(&mut sockets.by_ref(), &mut io::sink())
}

/// One file for each network namespace that a process is in.
fn namespaces() -> Vec<File> {
    let mut seen = HashSet::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |name: &std::ffi::OsString| name.as_encoded_bytes()[0].is_ascii_digit();
    let processes = processes.filter(|it| is_process(&it.file_name()));
    // Processes end meanwhile.
    let files = processes.filter_map(|it| File::open(it.path().join("ns/net")).ok());
    files
        .filter(|file| {
            file.metadata()
                .is_ok_and(|it| seen.insert((it.dev(), it.ino())))
        })
        .collect()
}
