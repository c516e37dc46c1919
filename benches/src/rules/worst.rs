//! The worst case: inputs made to be slow, against libmodsecurity.
//!
//! Noise, attacks cut up and put together again, and the slowest input that a greedy search finds: it
//! changes an input and keeps it when it takes longer. Each is the argument of a form, up to 1 MB.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::samples::{Dice, Sample, form};
use crate::{Sides, rounded};

/// Nanoseconds a byte, over all rules together.
const GOAL_NS: f64 = 800.0;
/// How many times slower libmodsecurity has to be at least.
const GOAL_RATIO: f64 = 10.0;
/// A byte of the largest input may take so many times what a byte of the next smaller one takes.
const GOAL_LINEAR: f64 = 2.0;

const SIZES: [usize; 4] = [1 << 10, 16 << 10, 128 << 10, 1 << 20];
/// libmodsecurity is given inputs that take it, by what the last size took, at most so long.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the search looks.
const SEARCH: Duration = Duration::from_secs(15);

/// Measures and shows all inputs.
pub(crate) fn measure(sides: &mut Sides) -> Result<Value> {
    let fragments = fragments(&corpora());
    println!(
        "\nworst case at level 1, {} attacks cut up",
        fragments.len()
    );
    println!(
        "{:18} {:>9} {:>10} {:>12} {:>8}",
        "", "bytes", "ns a byte", "libmodsec", "ratio"
    );
    let mut dice = Dice::new(0x5eed);
    let mut figures = Vec::new();
    let found = search(sides, &mut dice, &fragments);
    let mut kinds: Vec<(&str, Box<Grow>)> = vec![
        ("random ASCII", Box::new(ascii)),
        ("random bytes", Box::new(noise)),
    ];
    if !fragments.is_empty() {
        kinds.push((
            "spliced attacks",
            Box::new(move |dice, size| spliced(dice, &fragments, size)),
        ));
    }
    kinds.push((
        "found by search",
        Box::new(move |_, size| found.iter().copied().cycle().take(size).collect()),
    ));
    for (name, grow) in kinds {
        figures.push(of_kind(sides, &mut dice, name, &grow)?);
    }
    let holds = figures.iter().all(|figure| figure["holds"] == true);
    Ok(json!({
        "goal": { "ns_per_byte": GOAL_NS, "ratio": GOAL_RATIO, "linear": GOAL_LINEAR },
        "holds": holds, "inputs": figures,
    }))
}

type Grow = dyn Fn(&mut Dice, usize) -> Vec<u8>;

fn of_kind(sides: &mut Sides, dice: &mut Dice, name: &str, grow: &Grow) -> Result<Value> {
    let (mut rows, mut holds, mut before) = (Vec::new(), true, None::<f64>);
    let mut patience = Some(0.0);
    for size in SIZES {
        let payload = grow(dice, size);
        let sample = posted(dice, &payload);
        let ours = sides.clew.least(&sample, 3) * 1e3 / size as f64;
        // Its time may grow with the square of the length.
        let affordable =
            patience.is_some_and(|ns: f64| 16.0 * ns * size as f64 <= PATIENCE.as_nanos() as f64);
        let theirs =
            affordable.then(|| sides.peer_time(std::slice::from_ref(&sample)) * 1e3 / size as f64);
        patience = theirs;
        let ratio = theirs.map(|theirs| theirs / ours);
        let linear = before.is_none_or(|before| size < SIZES[2] || ours <= before * GOAL_LINEAR);
        let good = ours <= GOAL_NS && ratio.is_none_or(|ratio| ratio >= GOAL_RATIO) && linear;
        let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        println!(
            "{name:18} {size:>9} {ours:>10.1} {:>12} {:>8}{}",
            text(theirs),
            text(ratio),
            if good { "" } else { "  MISSED" }
        );
        rows.push(json!({
            "bytes": size, "clew_ns_per_byte": rounded(ours),
            "libmodsecurity_ns_per_byte": theirs.map(rounded), "ratio": ratio.map(rounded),
        }));
        holds &= good;
        before = Some(ours);
    }
    ensure!(!rows.is_empty(), "no sizes");
    Ok(json!({ "input": name, "holds": holds, "sizes": rows }))
}

fn posted(dice: &mut Dice, payload: &[u8]) -> Sample {
    let mut body = b"text=".to_vec();
    body.extend_from_slice(payload);
    form(dice, body)
}

fn ascii(dice: &mut Dice, size: usize) -> Vec<u8> {
    (0..size).map(|_| b' ' + dice.roll(95) as u8).collect()
}

fn noise(dice: &mut Dice, size: usize) -> Vec<u8> {
    (0..size).map(|_| dice.roll(256) as u8).collect()
}

fn spliced(dice: &mut Dice, fragments: &[Vec<u8>], size: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(size + 256);
    while all.len() < size {
        let fragment = &fragments[dice.roll(fragments.len())];
        let start = dice.roll(fragment.len());
        let end = start + 1 + dice.roll(fragment.len() - start);
        all.extend_from_slice(&fragment[start..end]);
    }
    all.truncate(size);
    all
}

/// The slowest input of the smallest size that changes lead to, one after the other.
fn search(sides: &mut Sides, dice: &mut Dice, fragments: &[Vec<u8>]) -> Vec<u8> {
    let size = SIZES[0];
    let mut best = ascii(dice, size);
    let mut longest = 0.0;
    let start = Instant::now();
    while start.elapsed() < SEARCH {
        let changed = changed(dice, &best, fragments);
        let time = sides.clew.least(&posted(dice, &changed), 3);
        if time > longest {
            (best, longest) = (changed, time);
        }
    }
    best
}

/// A part is written over: with a cut-up attack, with noise, or with another part.
fn changed(dice: &mut Dice, input: &[u8], fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut changed = input.to_vec();
    let at = dice.roll(input.len());
    let room = input.len() - at;
    let part = match dice.roll(4) {
        0 | 1 if !fragments.is_empty() => fragments[dice.roll(fragments.len())].clone(),
        2 => {
            let length = 1 + dice.roll(8);
            ascii(dice, length)
        }
        _ => {
            let from = dice.roll(input.len());
            let length = 1 + dice.roll((input.len() - from).min(256));
            input[from..from + length].to_vec()
        }
    };
    let length = part.len().min(room);
    changed[at..at + length].copy_from_slice(&part[..length]);
    changed
}

fn corpora() -> PathBuf {
    let root = std::env::var_os("CLEW_CORPORA").unwrap_or_else(|| "../shared/corpora".into());
    PathBuf::from(root).join("crs-3.3.4-regression")
}

/// What the tests of the Core Rule Set send: bodies and targets, line by line. None where there are no tests.
fn fragments(folder: &Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "yaml") {
                files.push(path);
            }
        }
    }
    files.sort();
    let texts = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    let mut fragments: Vec<Vec<u8>> = texts.flat_map(|text| sent(&text)).collect();
    fragments.sort();
    fragments.dedup();
    fragments
}

/// The longest attack that is taken, bytes.
const FRAGMENT: usize = 400;

fn sent(text: &str) -> Vec<Vec<u8>> {
    let values = text.lines().filter_map(|line| {
        let line = line.trim_start();
        let value = line.strip_prefix("data:").or(line.strip_prefix("uri:"))?;
        Some(value.trim().trim_matches(['"', '\'']).as_bytes().to_vec())
    });
    values
        .filter(|value| (4..FRAGMENT).contains(&value.len()))
        .collect()
}
