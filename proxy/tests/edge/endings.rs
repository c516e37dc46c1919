//! What became of requests is counted, once each.

use std::time::Duration;

use anyhow::{Result, ensure};
use clew_proxy::Ending;

use crate::stage::{Connection, Stage, hang, ok, wait_until};

fn cut(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
}

/// Waits for one of `ending`, of `all` requests.
fn counted(stage: &Stage, ending: Ending, all: u64) -> Result<()> {
    wait_until("counted", || {
        let endings = stage.handle.endings();
        endings.of(ending) == 1 && endings.buckets.iter().sum::<u64>() == all
    })
}

#[test]
fn each_request_ends_in_one_way() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    counted(&stage, Ending::Served, 1)?;
    client.send("GET / HTTP/1.1\r\nHost: a%b\r\n\r\n")?;
    ensure!(client.response()?.status == 400);
    counted(&stage, Ending::Malformed, 2)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    let source = client.stream.local_addr()?.ip();
    stage.handle.ban(source, Duration::from_secs(60), None);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(client.response()?.status == 403);
    counted(&stage, Ending::Banned, 4)?;
    let endings = stage.handle.endings();
    let requests: u64 = endings.requests().map(|it| it.2).sum();
    ensure!(requests == 4 && endings.seconds > 0.0, "{endings:?}");
    let is_banned = |it| it == ("banned", "4xx", 1);
    ensure!(endings.requests().any(is_banned), "{endings:?}");
    Ok(())
}

#[test]
fn a_verdict_is_an_end() -> Result<()> {
    let stage = Stage::new(hang)?;
    let mut client = stage.client()?;
    client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")?;
    stage.upstream_head()?;
    ensure!(stage.cancel(stage.started()?.sequence));
    ensure!(client.response()?.status == 403);
    counted(&stage, Ending::Cancelled, 1)
}

#[test]
fn a_client_that_goes_is_an_end() -> Result<()> {
    let stage = Stage::new(hang)?;
    let mut client = stage.client()?;
    client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")?;
    stage.upstream_head()?;
    drop(client);
    counted(&stage, Ending::Abandoned, 1)
}

#[test]
fn a_backend_that_breaks_off_is_an_end() -> Result<()> {
    let stage = Stage::new(cut)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    client.rest()?;
    counted(&stage, Ending::Failed, 1)
}

#[test]
fn the_edge_accepts_until_it_stops() -> Result<()> {
    let stage = Stage::new(ok)?;
    wait_until("accepting", || stage.handle.is_accepting())?;
    stage.handle.shutdown();
    ensure!(!stage.handle.is_accepting());
    Ok(())
}
