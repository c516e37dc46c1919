//! `clew-bench-rules`: the engine against libmodsecurity, in one process.
//!
//! Same rules (Debian's `modsecurity-crs`, its files as they are), same limits, same phases, a
//! fresh transaction each, audit log off, arguments and cookies varied, blocks of both in turn. Which rules
//! matched is compared before anything is timed.

mod samples;
mod worst;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use clew_modsecurity::{ModSecurity, Request};
use clew_rules::engine::{
    Connection, MemoryCollections, Now, Options, Phase, RuleSet, Transaction, compile,
};
use serde_json::{Value, json};

use crate::samples::{Kind, Sample, kinds};

/// Time of each side in a pair.
const BLOCK: Duration = Duration::from_millis(40);

/// Clew's rule engine against libmodsecurity.
#[derive(Parser)]
struct Cli {
    /// Pairs per comparison
    #[arg(long, default_value_t = 9)]
    pairs: usize,
    /// Write no figures
    #[arg(long)]
    dry: bool,
    /// Time only Clew, on requests whose name has this in it; for work on the engine, with a profiler
    #[arg(long)]
    alone: Option<String>,
    /// Only the worst case, and no figures
    #[arg(long)]
    worst: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(name) = &cli.alone {
        return alone(name, cli.pairs);
    }
    if cli.worst {
        memory()?;
        return worst::measure(&mut sides(1)?).map(drop);
    }
    let mut levels = Vec::new();
    let memory = memory()?;
    for level in [1, 4] {
        levels.push(at_level(level, cli.pairs)?);
    }
    let worst_case = worst::measure(&mut sides(1)?)?;
    if !cli.dry {
        std::fs::create_dir_all("target/figures")?;
        let figures = json!({ "levels": levels, "worst_case": worst_case, "memory": memory });
        std::fs::write("target/figures/engine.json", format!("{figures:#}\n"))?;
        println!("\nfigures: target/figures/engine.json");
    }
    Ok(())
}

/// The least of many times each.
fn alone(name: &str, blocks: usize) -> Result<()> {
    let mut clew = Clew::load(1)?;
    for kind in kinds().iter().filter(|kind| kind.name.contains(name)) {
        let times = (0..blocks * 10).map(|_| clew.block(&kind.variants).0);
        let least = times.fold(f64::INFINITY, f64::min);
        println!("{:22} {least:>12.2} us", kind.name);
    }
    Ok(())
}

fn at_level(level: u8, pairs: usize) -> Result<Value> {
    let start = Instant::now();
    let peer = peer(level)?;
    let peer_load = start.elapsed();
    let start = Instant::now();
    let clew = Clew::load(level)?;
    let load = start.elapsed();
    let mut sides = Sides { clew, peer };
    println!(
        "level {level}: {}; Clew loads in {:.0} ms, libmodsecurity in {:.0} ms",
        sides.peer.version(),
        load.as_secs_f64() * 1e3,
        peer_load.as_secs_f64() * 1e3
    );
    println!(
        "{:22} {:>12} {:>12} {:>8} {:>6}   {:>10} {:>12}",
        "", "Clew us", "libmodsec us", "ratio", "goal", "cold us", "cold us"
    );
    let mut figures = Vec::new();
    for kind in kinds() {
        let goal = kind.goal.filter(|_| level == 1);
        figures.push(compare(&mut sides, &kind, goal, pairs)?);
    }
    Ok(json!({
        "level": level, "libmodsecurity": sides.peer.version(), "load_ms": millis(load),
        "libmodsecurity_load_ms": millis(peer_load), "requests": figures,
    }))
}

fn sides(level: u8) -> Result<Sides> {
    let (clew, peer) = (Clew::load(level)?, peer(level)?);
    Ok(Sides { clew, peer })
}

fn peer(level: u8) -> Result<ModSecurity> {
    ModSecurity::load(&configuration(level)).map_err(|error| anyhow!("libmodsecurity: {error}"))
}

/// By how much the process grows when the rules are loaded and each kind of request was there: an upper
/// bound of what the rules take, and workers share them.
fn memory() -> Result<Value> {
    const GOAL_BYTES: u64 = 64 << 20;
    const GOAL_MS: f64 = 1000.0;
    let (before, start) = (resident_bytes()?, Instant::now());
    let mut clew = Clew::load(1)?;
    let load = millis(start.elapsed());
    for kind in kinds() {
        clew.time(&kind.variants);
    }
    let bytes = resident_bytes()?.saturating_sub(before);
    let holds = bytes <= GOAL_BYTES && load <= GOAL_MS;
    println!(
        "rules at level 1: {:.1} MiB at most (goal {}), loaded in {load:.0} ms (goal {GOAL_MS:.0}){}\n",
        bytes as f64 / (1 << 20) as f64,
        GOAL_BYTES >> 20,
        if holds { "" } else { "  MISSED" }
    );
    Ok(json!({
        "bytes": bytes, "load_ms": load, "goal": { "bytes": GOAL_BYTES, "load_ms": GOAL_MS }, "holds": holds,
    }))
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kibibytes.context("no VmRSS")?.trim().parse::<u64>()? << 10)
}

/// To four digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn compare(sides: &mut Sides, kind: &Kind, goal: Option<f64>, pairs: usize) -> Result<Value> {
    let cold = (
        sides.clew.time(&kind.variants[..1]),
        sides.peer_time(&kind.variants[..1]),
    );
    for variant in &kind.variants {
        let (ours, theirs) = (sides.clew.ids(variant), sides.peer_ids(variant)?);
        ensure!(
            ours == theirs,
            "{}: Clew matched {ours:?}, libmodsecurity {theirs:?}",
            kind.name
        );
    }
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let our = sides.clew.block(&kind.variants).1;
        let their = sides.peer_block(&kind.variants);
        ratios.push(their / our);
        ours.push(our);
        theirs.push(their);
    }
    let (our, their, ratio) = (median(ours), median(theirs), median(ratios));
    let holds = goal.is_none_or(|goal| ratio >= goal);
    let shown = goal.map_or("-".to_owned(), |goal| format!("{goal}"));
    let mark = if holds { "" } else { "  MISSED" };
    println!(
        "{:22} {our:>12.2} {their:>12.1} {ratio:>8.1} {shown:>6}   {:>10.1} {:>12.1}{mark}",
        kind.name, cold.0, cold.1
    );
    Ok(json!({
        "request": kind.name, "clew_us": our, "libmodsecurity_us": their, "ratio": ratio,
        "goal": goal, "holds": holds, "clew_cold_us": cold.0, "libmodsecurity_cold_us": cold.1,
    }))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The two engines.
struct Sides {
    clew: Clew,
    peer: ModSecurity,
}

struct Clew(Transaction);

impl Clew {
    fn load(level: u8) -> Result<Self> {
        let rules = load(&configuration(level))?;
        Ok(Self(rules.transaction(connection(), Now::default(), b"")))
    }

    /// Microseconds of the fastest of some evaluations.
    fn least(&mut self, sample: &Sample, times: usize) -> f64 {
        let all = (0..times).map(|_| self.time(std::slice::from_ref(sample)));
        all.fold(f64::INFINITY, f64::min)
    }

    fn evaluate(&mut self, sample: &Sample) {
        let never = &mut || false;
        let it = &mut self.0;
        it.reset(connection(), Now::default(), b"bench");
        it.request_line(
            sample.method.as_bytes(),
            sample.target.as_bytes(),
            b"HTTP/1.1",
        );
        for (name, value) in &sample.headers {
            it.request_header(name.as_bytes(), value.as_bytes());
        }
        it.request_headers_done(never);
        if !sample.body.is_empty() {
            it.request_body(&sample.body);
        }
        it.request_body_done(never);
        it.response_head(
            200,
            b"HTTP/1.1",
            [(&b"Content-Type"[..], &b"text/html"[..])],
            never,
        );
        it.response_body_done(never);
        it.finish(never);
    }

    fn ids(&mut self, sample: &Sample) -> Vec<u64> {
        self.evaluate(sample);
        // libmodsecurity does not hand over lines of rules with `noauditlog`, which CRS sums up
        // with in the last phase.
        let rules = self.0.matches().filter_map(|it| it.rule);
        let rules = rules.filter(|rule| rule.phase != Phase::Logging);
        let mut ids: Vec<u64> = rules.map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Microseconds a request, once through `variants`.
    fn time(&mut self, variants: &[Sample]) -> f64 {
        let start = Instant::now();
        for sample in variants {
            self.evaluate(sample);
        }
        start.elapsed().as_secs_f64() * 1e6 / variants.len() as f64
    }

    /// Microseconds a request, for as long as a block lasts: the least, and the mean.
    fn block(&mut self, variants: &[Sample]) -> (f64, f64) {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < BLOCK {
            times.push(self.time(variants));
        }
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        (least, times.iter().sum::<f64>() / times.len() as f64)
    }
}

impl Sides {
    fn peer_evaluate(&self, sample: &Sample) {
        self.peer.evaluate(&Request {
            method: &sample.method,
            target: &sample.target,
            headers: &sample.headers,
            body: &sample.body,
        });
    }

    fn peer_ids(&self, sample: &Sample) -> Result<Vec<u64>> {
        self.peer.take_log();
        self.peer_evaluate(sample);
        let mut ids = Vec::new();
        for line in self.peer.take_log() {
            let id = line
                .split_once("[id \"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let Some((id, _)) = id else {
                bail!("a log line without an id: {line}")
            };
            ids.push(id.parse()?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn peer_time(&self, variants: &[Sample]) -> f64 {
        let start = Instant::now();
        for sample in variants {
            self.peer_evaluate(sample);
        }
        let time = start.elapsed().as_secs_f64() * 1e6 / variants.len() as f64;
        self.peer.take_log();
        time
    }

    fn peer_block(&self, variants: &[Sample]) -> f64 {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < BLOCK {
            let nth = times.len() % variants.len();
            times.push(self.peer_time(&variants[nth..=nth]));
        }
        times.iter().sum::<f64>() / times.len() as f64
    }
}

fn connection() -> Connection {
    Connection {
        client: (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 54_321),
        server: (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80),
    }
}

/// What both load. Detection only: libmodsecurity hands the line of a rule that blocks to its
/// caller and not to its log, and then leaves out phases.
fn configuration(level: u8) -> String {
    format!(
        "SecRuleEngine DetectionOnly\nSecRequestBodyAccess On\nSecResponseBodyAccess Off\n\
         SecRequestBodyLimit 13107200\nSecRequestBodyNoFilesLimit 1310720\nSecAuditEngine Off\n\
         SecArgumentsLimit 100000\n\
         SecRule REQUEST_HEADERS:Content-Type \"@rx ^application/json\" \
         \"id:1,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON\"\n\
         SecAction \"id:2,phase:1,pass,nolog,setvar:tx.paranoia_level={level}\"\n\
         Include /etc/modsecurity/crs/crs-setup.conf\n\
         Include /usr/share/modsecurity-crs/rules/*.conf\n"
    )
}

fn load(text: &str) -> Result<Arc<RuleSet>> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    let told = |errors: Vec<String>| anyhow!("{}", errors.join("\n"));
    let ast = clew_rules::seclang::load(&[PathBuf::from(file.path())])
        .map_err(|errors| told(errors.iter().map(ToString::to_string).collect()))?;
    let options = Options {
        collections: Some(Arc::new(MemoryCollections::default())),
        ..Options::default()
    };
    let rules = compile(&ast, options)
        .map_err(|errors| told(errors.iter().map(ToString::to_string).collect()))?;
    Ok(Arc::new(rules))
}
