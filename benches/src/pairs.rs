//! Ratios of interleaved pairs, with an interval that needs no model.

use anyhow::Result;
use serde_json::{Value, json};

use crate::load::Shot;

/// How many times as many pairs are measured on a machine that is too noisy for the first ones to tell.
const PERSISTENCE: u32 = 3;

/// What one comparison says.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) name: &'static str,
    /// Median of the pairs' ratios, and its 95% interval.
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// Least ratio that is good enough; none where there is no promise.
    pub(crate) goal: Option<f64>,
    pub(crate) sides: Option<(Shot, Shot)>,
}

impl Comparison {
    /// The goal is met when the median ratio reaches it.
    pub(crate) fn holds(&self) -> bool {
        self.goal.is_none_or(|goal| self.ratio >= goal)
    }

    /// Whether the true ratio may be on either side of the goal.
    fn is_open(&self) -> bool {
        self.goal
            .is_some_and(|goal| self.low < goal && goal < self.high)
    }

    pub(crate) fn json(&self, control: f64) -> Value {
        let shot = |shot: Shot| {
            json!({ "requests_per_second": shot.requests_per_second.round(),
                    "p50_us": shot.p50_us, "p99_us": shot.p99_us })
        };
        json!({
            "name": self.name, "ratio": rounded(self.ratio), "low": rounded(self.low),
            "high": rounded(self.high), "control": rounded(control), "goal": self.goal,
            "holds": self.holds(),
            "a": self.sides.map(|(a, _)| shot(a)), "b": self.sides.map(|(_, b)| shot(b)),
        })
    }

    /// From ratios measured otherwise.
    pub(crate) fn of(name: &'static str, goal: Option<f64>, mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        let (low, high) = interval(&ratios);
        let ratio = median(&ratios);
        Self {
            name,
            ratio,
            low,
            high,
            goal,
            sides: None,
        }
    }
}

/// Measures `a` and `b` in turn, A first in every other pair: `count` times, and again as often, up to
/// [`PERSISTENCE`] times in all, while the interval leaves open whether the goal is met. It is looked at
/// after whole rounds alone: who stops at the first excursion has less than 95%.
pub(crate) fn compare(
    name: &'static str,
    goal: Option<f64>,
    count: u32,
    mut a: impl FnMut() -> Result<Shot>,
    mut b: impl FnMut() -> Result<Shot>,
) -> Result<Comparison> {
    let (mut of_a, mut of_b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut round = 0;
    let mut comparison = loop {
        round += 1;
        for _ in 0..count {
            let (first, second) = if ratios.len() % 2 == 0 {
                let first = a()?;
                (first, b()?)
            } else {
                let second = b()?;
                (a()?, second)
            };
            ratios.push(first.requests_per_second / second.requests_per_second);
            of_a.push(first);
            of_b.push(second);
            eprint!("\r  {name}: {}/{}  ", ratios.len(), round * count);
        }
        let comparison = Comparison::of(name, goal, ratios.clone());
        if round == PERSISTENCE || !comparison.is_open() {
            break comparison;
        }
    };
    comparison.sides = Some((typical(&of_a), typical(&of_b)));
    let Comparison {
        ratio, low, high, ..
    } = comparison;
    let pairs = ratios.len();
    eprintln!("\r  {name}: {pairs} pairs, {ratio:.3} ({low:.3} - {high:.3})");
    Ok(comparison)
}

fn typical(shots: &[Shot]) -> Shot {
    let of = |value: fn(&Shot) -> f64| {
        let mut values: Vec<f64> = shots.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        median(&values)
    };
    Shot {
        requests_per_second: of(|shot| shot.requests_per_second),
        p50_us: of(|shot| shot.p50_us),
        p99_us: of(|shot| shot.p99_us),
    }
}

/// The middle of sorted values.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The 95% interval of the median from order statistics (binomial; Conover, Practical
/// Nonparametric Statistics, 3.2): ranks n/2 - 0.98 sqrt(n) and n/2 + 1 + 0.98 sqrt(n).
fn interval(sorted: &[f64]) -> (f64, f64) {
    let n = sorted.len() as f64;
    let reach = 0.98 * n.sqrt();
    let at = |rank: f64| {
        let index = (rank.round() as isize - 1).clamp(0, sorted.len() as isize - 1);
        sorted.get(index as usize).copied().unwrap_or(f64::NAN)
    };
    (at(n / 2.0 - reach), at(n / 2.0 + 1.0 + reach))
}

pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_fifteen_spans_ranks_four_to_twelve() {
        let sorted: Vec<f64> = (1..=15).map(f64::from).collect();
        assert_eq!(median(&sorted), 8.0);
        assert_eq!(interval(&sorted), (4.0, 12.0));
    }

    #[test]
    fn a_noisy_comparison_goes_on() {
        let shots = |ratio: f64| {
            let mut nth = 0;
            let shot = |requests_per_second| Shot {
                requests_per_second,
                ..Shot::default()
            };
            let a = move || {
                nth += 1;
                Ok(shot(if nth % 2 == 0 { ratio } else { ratio * 1.1 }))
            };
            (a, move || Ok(shot(1.0)))
        };
        let count = |ratio, goal| {
            let (mut a, b) = shots(ratio);
            let mut count = 0;
            let counted = || {
                count += 1;
                a()
            };
            compare("", goal, 15, counted, b).expect("a comparison");
            count
        };
        assert_eq!(count(1.0, Some(1.05)), 45, "the goal lies inside");
        assert_eq!(count(1.0, Some(0.95)), 15, "it lies outside");
        assert_eq!(count(1.0, None), 15, "there is none");
    }
}
