//! Side by side in one run: Clew against ten lines of pingora and nginx, what rules cost in front
//! of a backend, and what the sensor costs. Writes `target/figures/bench.json`.
#![forbid(unsafe_code)]

mod inline;
mod kernel;
mod load;
mod pairs;
mod peers;
mod side;
mod tagged;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};

use crate::kernel::Bench;
use crate::load::{BARE, Shot, fire};
use crate::pairs::{Comparison, compare};
use crate::side::{Cgroup, Proxy, Side};

/// Interleaved comparisons, each with its 95% interval, beside an A/A control.
///
/// Load comes from core 0, where the backend is too; each proxy has core 1 to itself.
#[derive(Parser)]
struct Cli {
    /// Pairs per comparison
    #[arg(long, default_value_t = 15)]
    pairs: u32,
    /// Seconds per shot
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Where clew and plain-pingora are
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// Measure this part alone, and write no figures
    #[arg(long)]
    only: Option<Part>,
    /// Say back what comes to this port: the other end of a measurement
    #[arg(long, hide = true)]
    echo: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The proxies, side by side
    Proxy,
    /// Rules on the path of a request, beside nginx with libmodsecurity
    Inline,
    /// What the sensor costs
    Sensor,
    /// Kernel time of its programs
    Kernel,
    /// The sensor beside bpftrace
    Peers,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(port) = cli.echo {
        return peers::echo(port);
    }
    let work = tempfile::Builder::new().prefix("clew-bench-").tempdir()?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(work.path(), mode)?;
    let span = Duration::from_secs(cli.seconds);
    let mut all = Vec::new();
    if matches!(cli.only, None | Some(Part::Proxy)) {
        all.extend(proxies(&cli, work.path(), span)?);
    }
    if matches!(cli.only, None | Some(Part::Inline)) {
        all.extend(inline::compare_all(
            cli.pairs,
            span,
            &cli.binaries,
            work.path(),
        )?);
    }
    let mut kernel = Value::Null;
    if matches!(cli.only, None | Some(Part::Peers)) {
        let cgroup = Cgroup::new()?;
        all.extend(peers::compare_all(
            cli.pairs,
            span / 2,
            work.path(),
            &cgroup,
        )?);
    }
    if !matches!(cli.only, Some(Part::Proxy | Part::Inline | Part::Peers)) {
        let cgroup = Cgroup::new()?;
        let backend = Side::backend(1, work.path(), Some(&cgroup))?;
        let bench = Bench::new(&backend, &cgroup, span);
        if cli.only != Some(Part::Kernel) {
            all.extend(bench.backend_cost(cli.pairs)?);
            all.push(bench.bystander(cli.pairs)?);
        }
        kernel = bench.time_per_request()?;
    }
    print(&all, &kernel);
    if cli.only.is_none() {
        write(&all, &kernel)?;
    }
    Ok(())
}

fn proxies(cli: &Cli, work: &Path, span: Duration) -> Result<Vec<Comparison>> {
    let backend = Side::backend(0, work, None)?;
    // A process of its own for each shot: where it comes to lie in memory is worth a few percent, and it
    // keeps that for life. And the sensor, which watches every socket of the host, is gone while others run.
    let shot = |proxy| -> Result<Shot> {
        let side = Side::proxy(proxy, backend.port, &cli.binaries, work)?;
        fire(side.port, &BARE, span, work)
    };
    let comparisons = [
        (
            "plain pingora / plain pingora (control)",
            Proxy::Plain,
            None,
        ),
        (
            "clew without sensor / plain pingora",
            Proxy::ClewWithoutSensor,
            Some(0.95),
        ),
        ("nginx proxy / plain pingora", Proxy::Nginx, None),
        (
            "clew with sensor / plain pingora",
            Proxy::ClewWithSensor,
            None,
        ),
    ];
    comparisons
        .into_iter()
        .map(|(name, proxy, goal)| {
            compare(name, goal, cli.pairs, || shot(proxy), || shot(Proxy::Plain))
        })
        .collect()
}

/// Each comparison stands beside the control before it: the same two sides, against themselves.
fn write(all: &[Comparison], kernel: &Value) -> Result<()> {
    let mut control = f64::NAN;
    let pairs: Vec<Value> = all
        .iter()
        .map(|it| {
            if it.name.ends_with("(control)") {
                control = it.ratio;
            }
            it.json(control)
        })
        .collect();
    let figures = json!({
        "pairs": pairs,
        "kernel_time_per_request": kernel,
    });
    std::fs::create_dir_all("target/figures")?;
    std::fs::write("target/figures/bench.json", format!("{figures:#}\n"))?;
    println!("\nfigures: target/figures/bench.json");
    Ok(())
}

fn print(all: &[Comparison], kernel: &Value) {
    println!(
        "{:42} {:>7} {:>15} {:>6}  {:>19}",
        "", "ratio", "95%", "goal", "requests/s"
    );
    for it in all {
        let goal = it.goal.map_or("-".to_owned(), |goal| format!("{goal}"));
        let rates = it.sides.map_or(String::new(), |(a, b)| {
            format!(
                "{:>9.0} / {:<9.0}",
                a.requests_per_second, b.requests_per_second
            )
        });
        let interval = format!("{:.3} - {:.3}", it.low, it.high);
        let mark = if it.holds() { "" } else { "  MISSED" };
        println!(
            "{:42} {:>7.3} {interval:>15} {goal:>6}  {rates}{mark}",
            it.name, it.ratio
        );
    }
    println!("\nkernel time per request: {kernel:#}");
}
