//! Commands that ask the clew that runs: bans, counters, status; and the audit log it leaves.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use ipnet::IpNet;

use crate::StateArgs;
use crate::api::bans::{BanDone, BanEntry, BanLifted, BanList, BanWish};
use crate::api::client::{Client, all_pages, encoded};
use crate::api::counters::CounterSums;
use crate::api::rules::ReloadDone;
use crate::api::status::Status;
use crate::audit;
use crate::paper::say;

#[derive(Subcommand)]
pub(crate) enum BansCommand {
    /// Bans in force
    List(StateArgs),
    /// Refuse an address, or all of a prefix
    Add {
        /// IPv4 or IPv6 address, of which ban.ipv4_prefix or ban.ipv6_prefix is banned; or a prefix (203.0.113.0/24)
        #[arg(value_name = "ADDRESS or PREFIX", value_parser = source)]
        source: String,
        /// For just so long [default: as the configuration has it]
        #[arg(long)]
        seconds: Option<u64>,
        /// Why; kept and shown with the ban
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Lift a ban, and forget what it was for
    Remove {
        /// What was banned
        #[arg(value_name = "ADDRESS or PREFIX", value_parser = source)]
        source: String,
        #[command(flatten)]
        state: StateArgs,
    },
}

#[derive(Args)]
pub(crate) struct AuditArgs {
    /// The last so many
    #[arg(long, default_value_t = 50)]
    last: usize,
    #[command(flatten)]
    state: StateArgs,
}

/// What is asked for as it was written, if it means somebody.
fn source(text: &str) -> Result<String, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let source = address.or_else(|_| text.parse::<IpNet>());
    let source = source.map_err(|_| "neither an address nor a prefix like 203.0.113.0/24")?;
    if source.prefix_len() == 0 {
        return Err("that would be everybody".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn bans(command: BansCommand) -> Result<()> {
    match command {
        BansCommand::List(state) => list(&state),
        BansCommand::Add {
            source,
            seconds,
            reason,
            state,
        } => {
            let wish = BanWish {
                source,
                seconds,
                reason,
            };
            let done: BanDone = Client::of(&state.directory())?.post("/v1/bans", &wish)?;
            if state.json {
                return print(&done);
            }
            say!("banned: {}", line(&done.ban));
            warn(done.not_durable);
            Ok(())
        }
        BansCommand::Remove { source, state } => {
            let target = format!("/v1/bans?source={}", encoded(&source));
            let lifted: BanLifted = Client::of(&state.directory())?.delete(&target)?;
            if state.json {
                return print(&lifted);
            }
            say!(
                "{}",
                ["there was no such ban", "done"][usize::from(lifted.changed)]
            );
            warn(lifted.not_durable);
            Ok(())
        }
    }
}

fn warn(not_durable: Option<String>) {
    if let Some(reason) = not_durable {
        eprintln!("clew: in force, but not on disk, and lost when clew ends: {reason}");
    }
}

fn list(state: &StateArgs) -> Result<()> {
    let client = Client::of(&state.directory())?;
    let bans = all_pages(|after| {
        let after = after.map(|it| format!("?after={}", encoded(&it)));
        let page: BanList = client.get(&format!("/v1/bans{}", after.unwrap_or_default()))?;
        Ok((page.bans, page.next))
    })?;
    if state.json {
        let (total, next) = (bans.len(), None);
        return print(&BanList { bans, total, next });
    }
    if bans.is_empty() {
        say!("no bans");
    }
    for ban in &bans {
        say!("{}", line(ban));
    }
    Ok(())
}

fn line(ban: &BanEntry) -> String {
    let why = ban.incident.as_deref().unwrap_or("by hand");
    let mut line = format!("{:43}  {:>6} s left  {why}", ban.source, ban.seconds_left);
    if ban.offence > 1 {
        line.push_str(&format!("  offence {}", ban.offence));
    }
    if ban.dry_run {
        line.push_str("  (dry run: not refused)");
    }
    if !ban.reason.is_empty() {
        line.push_str(&format!("  {:?}", ban.reason));
    }
    if let Some(dropped) = &ban.dropped {
        line.push_str(&format!("  {} packets dropped", dropped.packets));
    }
    line
}

pub(crate) fn counters(state: &StateArgs) -> Result<()> {
    let sums: CounterSums = Client::of(&state.directory())?.get("/v1/counters")?;
    if state.json {
        return print(&sums);
    }
    let kernel = sums.kernel.iter().flatten();
    let parts = kernel.map(|(part, sums)| (part.as_str(), sums));
    for (part, sums) in [("edge", &sums.edge)].into_iter().chain(parts) {
        say!("{part}");
        for (name, sum) in sums {
            say!("  {name:28} {sum}");
        }
    }
    say!("requests");
    for it in sums.requests.iter().filter(|it| it.count > 0) {
        say!(
            "  {:28} {}",
            format!("{} {}", it.outcome, it.status),
            it.count
        );
    }
    Ok(())
}

pub(crate) fn status(state: &StateArgs) -> Result<()> {
    let status: Status = Client::of(&state.directory())?.get("/v1/status")?;
    if state.json {
        return print(&status);
    }
    say!(
        "clew {}, up for {:.0} s",
        status.version,
        status.uptime_seconds
    );
    let accepting = ["not accepting", "accepting"][usize::from(status.accepting)];
    say!("listeners  {} ({accepting})", status.listeners.join(", "));
    for service in &status.services {
        let hosts = match service.hosts.is_empty() {
            true => "any host".to_owned(),
            false => service.hosts.join(", "),
        };
        say!(
            "service    {}: {hosts} -> {}",
            service.name,
            service.upstreams.join(", ")
        );
    }
    match (&status.sensor, &status.mode) {
        (Some(sensor), Some(mode)) => {
            let health = ["NOT HEALTHY", "healthy"][usize::from(sensor.healthy)];
            say!("sensor     {mode}, {health}");
            for what in &sensor.missing {
                say!("           not in this kernel: {what}");
            }
        }
        _ => say!("sensor     none: what requests do is not seen"),
    }
    match status.rules {
        Some(rules) => say!("rules      {rules}"),
        None => say!("rules      none"),
    }
    for pack in &status.packs {
        say!("pack       {} {}", pack.name, pack.version);
    }
    let dry_run = ["", " (dry run: nobody is refused)"][usize::from(status.bans.dry_run)];
    say!("bans       {}{dry_run}", status.bans.in_force);
    if let Some(trouble) = &status.bans.trouble {
        say!("           NOT WRITTEN TO DISK: {trouble}");
    }
    Ok(())
}

pub(crate) fn audit(args: &AuditArgs) -> Result<()> {
    ensure!(args.last > 0, "--last must be at least 1");
    let directory = args.state.directory();
    let entries = audit::read(&directory, args.last)?;
    if args.state.json {
        return print(&entries);
    }
    if entries.is_empty() {
        say!("nobody has changed anything, says {}", directory.display());
    }
    for entry in &entries {
        say!("{}", audit::line(entry));
    }
    Ok(())
}

pub(crate) fn print(value: &impl serde::Serialize) -> Result<()> {
    say!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Has the clew of `state` read its configuration anew, and says what came of it.
pub(crate) fn reload(state: &StateArgs) -> Result<()> {
    let client = Client::of(&state.directory())?.patient();
    let done: ReloadDone = client.post("/v1/reload", &())?;
    if state.json {
        return print(&done);
    }
    for warning in &done.warnings {
        say!("warning: {warning}");
    }
    for pack in &done.packs {
        say!("pack {} {} in force", pack.name, pack.version);
    }
    match done.rules {
        Some(rules) => say!("{rules} rules in force, after {:.0} ms", done.took_ms),
        None => say!("requests are not judged by rules"),
    }
    if !done.restart.is_empty() {
        say!(
            "changed, and in force after a restart only: {}",
            done.restart.join(", ")
        );
    }
    Ok(())
}
