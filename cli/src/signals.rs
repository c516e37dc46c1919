//! What signals ask for.

use std::sync::Arc;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Caller, Desk};
use crate::audit::Actor;

/// SIGTERM and SIGINT end the edge, and with it the process; SIGHUP has the configuration read anew.
pub(crate) fn heed(desk: Arc<Desk>) -> Result<()> {
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
                    _ = hangup.recv() => reload(desk.clone()).await,
                }
            }
        });
        tracing::info!("stopping: requests in flight finish");
        desk.handle.shutdown();
    })?;
    Ok(())
}

/// A stop that comes meanwhile waits for it: a minute at most.
async fn reload(desk: Arc<Desk>) {
    let caller = Caller {
        actor: Actor::Signal,
        from: "SIGHUP".to_owned(),
    };
    match desk.reload(caller).await {
        Ok(done) => tracing::info!(restart = ?done.restart, "configuration read anew"),
        Err(problem) => tracing::error!(
            error = problem.error,
            "the configuration cannot be used; what was in force is in force"
        ),
    }
}
