//! A pack that judges live requests, without effect, beside what is in force.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::place::Reference;
use crate::StateArgs;
use crate::api::client::Client;
use crate::api::rules::{RulesInForce, ShadowEnded, ShadowFindings, ShadowRequest, ShadowWish};
use crate::ask::print;
use crate::paper::say;

/// What can be done with a candidate.
#[derive(Subcommand)]
#[command(
    after_help = "A day in the shadow, before it counts:\n  clew packs install shop-1.1.0.clewpack\n  clew packs shadow start shop@1.1.0\n  clew packs shadow report\n  clew packs activate shop@1.1.0 && clew packs shadow stop"
)]
pub(crate) enum ShadowCommand {
    /// Have an installed pack judge live requests beside what is in force; nothing is blocked for it
    Start {
        /// NAME or NAME@VERSION
        pack: Reference,
        #[command(flatten)]
        state: StateArgs,
    },
    /// What it would have changed so far: new blocks, lost blocks, what it costs, with examples
    Report(StateArgs),
    /// End that
    Stop(StateArgs),
}

pub(super) fn run(command: ShadowCommand) -> Result<ExitCode> {
    match command {
        ShadowCommand::Start { pack, state } => start(&pack, &state)?,
        ShadowCommand::Report(state) => report(&state)?,
        ShadowCommand::Stop(state) => stop(&state)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn start(pack: &Reference, state: &StateArgs) -> Result<()> {
    let wish = ShadowWish {
        name: pack.name.to_string(),
        version: pack.version.as_ref().map(ToString::to_string),
    };
    let client = Client::of(&state.directory())?.patient();
    let tried: RulesInForce = client.post("/v1/shadow", &wish)?;
    if state.json {
        return print(&tried);
    }
    let packs = tried
        .packs
        .iter()
        .map(|it| format!("{}@{}", it.name, it.version));
    say!(
        "in the shadow: {}; next: clew packs shadow report",
        packs.collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn report(state: &StateArgs) -> Result<()> {
    let found: ShadowFindings = Client::of(&state.directory())?.get("/v1/shadow")?;
    if state.json {
        return print(&found);
    }
    let packs = found
        .packs
        .iter()
        .map(|it| format!("{}@{}", it.name, it.version));
    say!("in the shadow: {}", packs.collect::<Vec<_>>().join(", "));
    say!(
        "{} requests judged, {} passed over because it was not done with others",
        found.judged,
        found.skipped
    );
    say!(
        "  {:>8} both block\n  {:>8} new: it alone blocks\n  {:>8} lost: what is in force alone blocks\n  {:>8} undecided: blocked before all was read",
        found.both_block,
        found.new_blocks,
        found.lost_blocks,
        found.undecided
    );
    say!(
        "processor time a request: {:.0} us in the shadow, {:.0} us in force; the most {:.0} us",
        found.candidate_us,
        found.active_us,
        found.longest_us
    );
    if !found.rules.is_empty() {
        say!("matches that only one of the two has:");
    }
    for (id, count) in &found.rules {
        let (candidate, active) = (count.candidate, count.active);
        say!("  rule {id:>8}  {candidate:>8} in the shadow  {active:>8} in force");
    }
    found.examples.iter().for_each(show);
    Ok(())
}

fn show(it: &ShadowRequest) {
    let rules: Vec<_> = it.rules.iter().map(u64::to_string).collect();
    // What a client has sent does not reach the terminal as it is.
    let target: String = it.target.escape_default().collect();
    let method: String = it.method.escape_default().collect();
    let (block, id) = (&it.block, &it.id);
    say!(
        "  {block:4}  {id}  {method} {target}  rules {}",
        rules.join(", ")
    );
}

fn stop(state: &StateArgs) -> Result<()> {
    let ended: ShadowEnded = Client::of(&state.directory())?.delete("/v1/shadow")?;
    match (state.json, ended.changed) {
        (true, _) => print(&ended)?,
        (false, true) => say!("done"),
        (false, false) => say!("nothing was in the shadow"),
    }
    Ok(())
}
