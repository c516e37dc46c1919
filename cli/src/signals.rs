//! What signals ask for.

use std::sync::Arc;

use anyhow::Result;
use clew_proxy::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::reload::Reloader;

/// SIGTERM and SIGINT end the edge, and with it the process; SIGHUP has the configuration read anew.
pub(crate) fn heed(handle: Handle, reloader: Arc<Reloader>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let thread = std::thread::Builder::new().name("clew-signals".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => reload(&reloader),
                }
            }
        });
        tracing::info!("stopping: requests in flight finish");
        handle.shutdown();
    })?;
    Ok(())
}

/// A stop that comes meanwhile waits for it: a minute at most.
fn reload(reloader: &Reloader) {
    match reloader.reload() {
        Ok(done) => tracing::info!(restart = ?done.restart, "configuration read anew"),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "the configuration cannot be used; what was in force is in force"
        ),
    }
}
