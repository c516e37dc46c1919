//! What every value that a pattern matches has in it.
//!
//! From the syntax tree of a regular expression: strings, one of which must occur, and sets of bytes,
//! one of which must occur. Letters are in lower case; the filter looks for both. What cannot be told is left
//! out, so that the requirement is always sound: a value without it is never matched.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::bytes::{ByteSet, frequency};
use super::sample::share;

/// One of these strings must occur.
pub(super) type Clause = Vec<Vec<u8>>;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Requirement {
    /// Bytes.
    pub(super) min_len: usize,
    /// Bytes; of patterns anchored at both ends.
    pub(super) max_len: Option<usize>,
    /// Each must occur, best first.
    pub(super) clauses: Vec<Clause>,
    /// A byte of each must occur, best first.
    pub(super) sets: Vec<ByteSet>,
    /// What libinjection could take for SQL.
    pub(super) sql: bool,
}

/// Strings that are looked for are cut to the rarest so many bytes.
const WINDOW: usize = 8;
/// Strings of a set that is still multiplied out.
const PRODUCT: usize = 64;
/// Strings of a union that is still known exactly.
const UNION: usize = 400;
/// Strings that one clause may have.
const CLAUSE: usize = 4000;
/// Members of a class that is multiplied out.
const CLASS: usize = 10;
/// A set of which a byte stands at more than one of three places tells nothing.
const COMMON_SET: f32 = 0.3;
/// A clause of which a string begins at more places than this costs more than it saves.
const COMMON_CLAUSE: f32 = 0.006;
/// A clause that begins at more places than this holds for nearly all values.
const USELESS_CLAUSE: f32 = 0.03;
/// Signs that may be left out of a pattern are at most so frequent.
const NOISE: f32 = 0.01;
/// Levels of the tree that are looked into. Deeper, nothing is required.
const DEPTH: usize = 200;
/// Clauses and sets that are kept: more would hardly tell more.
const KEPT: usize = 3;

impl Requirement {
    /// Of a regular expression.
    pub(super) fn of(hir: &Hir) -> Self {
        let properties = hir.properties();
        let anchored = properties.look_set_prefix().contains(Look::Start)
            && properties.look_set_suffix().contains(Look::End);
        let mut facts = facts(hir, DEPTH, None);
        facts.flush();
        facts.extend(without_noise(hir));
        let mut requirement = Self {
            min_len: properties.minimum_len().unwrap_or(0),
            max_len: properties.maximum_len().filter(|_| anchored),
            clauses: facts.clauses,
            sets: facts.sets,
            sql: false,
        };
        requirement.choose();
        requirement
    }

    /// Of a list of phrases, of which one must occur.
    pub(super) fn phrases<'p>(phrases: impl Iterator<Item = &'p [u8]>) -> Self {
        let clause: Clause = phrases.map(<[u8]>::to_ascii_lowercase).collect();
        let min_len = clause.iter().map(Vec::len).min().unwrap_or(0);
        let mut requirement = Self {
            min_len,
            max_len: None,
            clauses: vec![clause],
            sets: Vec::new(),
            sql: false,
        };
        requirement.choose();
        requirement
    }

    /// A byte of the set must occur.
    pub(super) fn byte(set: ByteSet) -> Self {
        Self {
            min_len: 1,
            max_len: None,
            clauses: Vec::new(),
            sets: vec![set],
            sql: false,
        }
    }

    /// Keeps the best of what was found.
    fn choose(&mut self) {
        self.clauses
            .retain(|clause| !clause.is_empty() && clause.iter().all(|s| !s.is_empty()));
        let from_clauses: Vec<ByteSet> = self.clauses.iter().map(rarest_bytes).collect();
        self.sets.extend(from_clauses);
        self.sets
            .sort_by(|a, b| a.frequency().total_cmp(&b.frequency()));
        self.sets.dedup();
        self.sets.retain(|set| set.frequency() < COMMON_SET);
        self.sets.truncate(KEPT);
        self.clauses.iter_mut().for_each(minimise);
        self.clauses
            .retain(|clause| clause.len() <= CLAUSE && is_worth_it(clause));
        self.clauses
            .sort_by(|a, b| clause_frequency(a).total_cmp(&clause_frequency(b)));
        self.clauses.dedup();
        self.clauses.truncate(KEPT);
    }
}

/// What is known of a part of a pattern.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// All that it can match, in lower case. `None`: too much.
    exact: Option<Vec<Vec<u8>>>,
    /// Where that is too much: what each match begins with, in lower case.
    begins: Option<Vec<Vec<u8>>>,
    clauses: Vec<Clause>,
    sets: Vec<ByteSet>,
}

impl Facts {
    fn exactly(strings: Vec<Vec<u8>>) -> Self {
        Self {
            exact: Some(strings),
            ..Self::default()
        }
    }

    fn empty() -> Self {
        Self::exactly(vec![Vec::new()])
    }

    /// Nothing is known.
    fn unknown() -> Self {
        Self::default()
    }

    /// What was known exactly becomes a clause.
    fn flush(&mut self) {
        if let Some(strings) = self.exact.take() {
            self.require(&strings);
            self.begins = Some(beginnings(strings));
        }
    }

    /// One of these strings occurs, if that says anything.
    fn require(&mut self, strings: &[Vec<u8>]) {
        if !strings.iter().any(Vec::is_empty) {
            self.clauses.push(strings.to_vec());
        }
    }

    fn extend(&mut self, more: Self) {
        self.clauses.extend(more.clauses);
        self.sets.extend(more.sets);
    }

    /// The best clause; of a set, its bytes.
    fn best_clause(&self) -> Option<Clause> {
        let best = self
            .clauses
            .iter()
            .min_by(|a, b| clause_frequency(a).total_cmp(&clause_frequency(b)));
        let set = self
            .sets
            .iter()
            .min_by(|a, b| a.frequency().total_cmp(&b.frequency()));
        let set = set.filter(|set| {
            set.len() <= CLASS && best.is_none_or(|best| set.frequency() < clause_frequency(best))
        });
        set.map(single_bytes).or_else(|| best.cloned())
    }

    fn best_set(&self) -> Option<ByteSet> {
        let from_clauses = self.clauses.iter().map(rarest_bytes);
        let all = self.sets.iter().copied().chain(from_clauses);
        all.min_by(|a, b| a.frequency().total_cmp(&b.frequency()))
    }
}

/// CRS writes `s["^]*e["^]*t` for commands with quotes in them. A match that has none of those bytes is one of the
/// pattern without these parts, of which more is known: so one of its strings, or one of those bytes, must occur.
fn without_noise(hir: &Hir) -> Facts {
    let mut noise = ByteSet::default();
    let mut facts = facts(hir, DEPTH, Some(&mut noise));
    if noise.len() == 0 || noise.frequency() > NOISE {
        return Facts::unknown();
    }
    facts.flush();
    for clause in &mut facts.clauses {
        clause.extend(single_bytes(&noise));
    }
    facts.sets.iter_mut().for_each(|set| set.union(&noise));
    facts
}

/// `noise`: where bytes are collected that may be left out; `None`: nothing is left out.
fn facts(hir: &Hir, depth: usize, mut noise: Option<&mut ByteSet>) -> Facts {
    let Some(depth) = depth.checked_sub(1) else {
        return Facts::unknown();
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Facts::empty(),
        HirKind::Literal(literal) => Facts::exactly(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => of_class(class),
        HirKind::Repetition(repetition) => of_repetition(repetition, depth, noise),
        HirKind::Capture(capture) => facts(&capture.sub, depth, noise),
        HirKind::Concat(parts) => {
            let parts: Vec<Facts> = parts
                .iter()
                .map(|part| facts(part, depth, noise.as_deref_mut()))
                .collect();
            of_concat(parts.into_iter())
        }
        HirKind::Alternation(branches) => of_alternation(
            branches
                .iter()
                .map(|branch| facts(branch, depth, noise.as_deref_mut()))
                .collect(),
        ),
    }
}

fn single_bytes(set: &ByteSet) -> Clause {
    set.iter()
        .filter(|byte| !byte.is_ascii_uppercase())
        .map(|byte| vec![byte])
        .collect()
}

fn of_class(class: &Class) -> Facts {
    let Some(set) = ByteSet::of(class) else {
        return Facts::unknown();
    };
    if set.len() <= CLASS {
        return Facts::exactly(single_bytes(&set));
    }
    Facts {
        sets: vec![set],
        ..Facts::default()
    }
}

/// The bytes of a part that may be left out and has only rare signs.
fn noise_of(repetition: &Repetition) -> Option<ByteSet> {
    let HirKind::Class(class) = repetition.sub.kind() else {
        return None;
    };
    let set = ByteSet::of(class)?;
    let signs = set.iter().all(|byte| byte.is_ascii_punctuation());
    (repetition.min == 0 && signs && set.frequency() <= NOISE).then_some(set)
}

fn of_repetition(repetition: &Repetition, depth: usize, mut noise: Option<&mut ByteSet>) -> Facts {
    if let Some(noise) = noise.as_deref_mut()
        && let Some(set) = noise_of(repetition)
    {
        noise.union(&set);
        return Facts::empty();
    }
    let mut sub = facts(&repetition.sub, depth, noise);
    match (repetition.min, repetition.max) {
        (1, Some(1)) => sub,
        (0, Some(1)) => match &mut sub.exact {
            Some(strings) => {
                strings.push(Vec::new());
                sub
            }
            None => Facts::unknown(),
        },
        (0, _) => Facts::unknown(),
        (min, max) => {
            let exactly = max == Some(min);
            let mut whole = of_concat((0..min.min(4)).map(|_| sub.clone()));
            if !exactly || min > 4 {
                whole.flush();
            }
            whole
        }
    }
}

/// One after the other: what is exact is multiplied out as long as that stays small.
fn of_concat(parts: impl Iterator<Item = Facts>) -> Facts {
    let mut whole = Facts::default();
    // All that the parts since the last inexact one can match.
    let mut run = vec![Vec::new()];
    let mut is_exact = true;
    for part in parts {
        whole.clauses.extend(part.clauses);
        whole.sets.extend(part.sets);
        match part.exact {
            Some(strings) if multiplies(&run, &strings) => run = product(&run, &strings),
            exact => {
                whole.clauses.extend(junction(&run, exact.as_deref()));
                let next = exact.clone().map(beginnings).or(part.begins);
                let ahead = next.filter(|next| run.len() * next.len() <= UNION);
                let reached = ahead.map_or_else(|| run.clone(), |next| product(&run, &next));
                whole.require(&reached);
                if is_exact {
                    whole.begins = Some(beginnings(reached));
                }
                is_exact = false;
                run = exact.unwrap_or_else(|| vec![Vec::new()]);
            }
        }
    }
    if is_exact {
        whole.exact = Some(run);
    } else {
        whole.require(&run);
    }
    whole
}

fn multiplies(run: &[Vec<u8>], strings: &[Vec<u8>]) -> bool {
    run.len() * strings.len() <= PRODUCT || strings.len() == 1 || run.len() == 1
}

/// Strings, cut where they are longer than what is looked for.
fn beginnings(mut strings: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    strings
        .iter_mut()
        .for_each(|string| string.truncate(WINDOW));
    strings.sort();
    strings.dedup();
    strings
}

/// Where two sets meet that are too large to be multiplied out: the ends of the one and the beginnings
/// of the other.
fn junction(before: &[Vec<u8>], after: Option<&[Vec<u8>]>) -> Option<Clause> {
    let ends = |strings: &[Vec<u8>], cut: fn(&[u8]) -> &[u8]| {
        let mut ends: Vec<Vec<u8>> = strings.iter().map(|s| cut(s).to_vec()).collect();
        ends.sort();
        ends.dedup();
        (!ends.iter().any(Vec::is_empty)).then_some(ends)
    };
    let ends_before = ends(before, |s| &s[s.len().saturating_sub(2)..])?;
    let starts_after = ends(after?, |s| &s[..s.len().min(2)])?;
    (ends_before.len() * starts_after.len() <= UNION).then(|| product(&ends_before, &starts_after))
}

fn product(before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = Vec::with_capacity(before.len() * after.len());
    for head in before {
        all.extend(after.iter().map(|tail| [head.as_slice(), tail].concat()));
    }
    all.sort();
    all.dedup();
    all
}

fn of_alternation(mut branches: Vec<Facts>) -> Facts {
    let count: usize = branches
        .iter()
        .map(|branch| branch.exact.as_ref().map_or(UNION + 1, Vec::len))
        .sum();
    if count <= UNION {
        let mut strings: Vec<_> = branches
            .into_iter()
            .filter_map(|branch| branch.exact)
            .flatten()
            .collect();
        strings.sort();
        strings.dedup();
        return Facts::exactly(strings);
    }
    branches.iter_mut().for_each(Facts::flush);
    let clauses: Option<Vec<Clause>> = branches.iter().map(Facts::best_clause).collect();
    let sets: Option<Vec<ByteSet>> = branches.iter().map(Facts::best_set).collect();
    let begins: Option<Vec<&Vec<Vec<u8>>>> = branches
        .iter()
        .map(|branch| branch.begins.as_ref())
        .collect();
    let begins = begins.map(|begins| beginnings(begins.into_iter().flatten().cloned().collect()));
    Facts {
        exact: None,
        begins: begins.filter(|begins| begins.len() <= UNION),
        clauses: clauses
            .map(|clauses| clauses.into_iter().flatten().collect())
            .into_iter()
            .collect(),
        sets: sets.map(united).into_iter().collect(),
    }
}

fn united(sets: Vec<ByteSet>) -> ByteSet {
    let mut all = ByteSet::default();
    sets.iter().for_each(|set| all.union(set));
    all
}

/// Whether looking for a clause saves more than it costs. Single bytes cost nothing.
fn is_worth_it(clause: &Clause) -> bool {
    let long = || clause.iter().filter(|string| string.len() > 1);
    let frequency: f32 = long().map(|string| rarity(string)).sum();
    long().next().is_some()
        && frequency < COMMON_CLAUSE
        && clause_frequency(clause) < USELESS_CLAUSE
}

/// The rarest byte of each string of a clause: one of them must occur.
fn rarest_bytes(clause: &Clause) -> ByteSet {
    let rarest = |string: &Vec<u8>| {
        string
            .iter()
            .copied()
            .min_by(|a, b| frequency(*a).total_cmp(&frequency(*b)))
    };
    clause.iter().filter_map(rarest).collect()
}

/// At how many places of benign values a string of a clause begins, roughly.
fn clause_frequency(clause: &Clause) -> f32 {
    clause.iter().map(|string| rarity(string)).sum()
}

/// Strings with the same beginning that differ only in their last byte, as many as these, are one string without it.
const SIBLINGS: usize = 4;

/// What such strings have in common tells as much as they do, and is found once.
fn without_siblings(clause: &mut Clause) {
    clause.sort();
    let stem = |string: &[u8]| string[..string.len().saturating_sub(1)].to_vec();
    let mut kept = Clause::new();
    for family in
        clause.chunk_by(|a, b| a.len() > SIBLINGS - 1 && a.len() == b.len() && stem(a) == stem(b))
    {
        match family {
            [first, ..] if family.len() >= SIBLINGS => kept.push(stem(first)),
            _ => kept.extend_from_slice(family),
        }
    }
    *clause = kept;
}

/// Cuts strings to their rarest part and leaves out those that contain another one.
fn minimise(clause: &mut Clause) {
    without_siblings(clause);
    clause.iter_mut().for_each(|string| {
        if string.len() > WINDOW {
            let rarest = string
                .windows(WINDOW)
                .min_by(|a, b| rarity(a).total_cmp(&rarity(b)));
            *string = rarest.unwrap_or_default().to_vec();
        }
    });
    clause.sort_by_key(Vec::len);
    let mut kept: Clause = Vec::new();
    for string in clause.drain(..) {
        if !kept
            .iter()
            .any(|known| memchr::memmem::find(&string, known).is_some())
        {
            kept.push(string);
        }
    }
    kept.sort();
    *clause = kept;
}

fn rarity(string: &[u8]) -> f32 {
    let product: f32 = string.iter().map(|byte| frequency(*byte)).product();
    product + share(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regex::Pattern;

    fn of(pattern: &str) -> Requirement {
        Requirement::of(Pattern::compile(pattern).expect("a pattern").hir())
    }

    fn strings(clause: &Clause) -> Vec<String> {
        clause
            .iter()
            .map(|s| String::from_utf8_lossy(s).into_owned())
            .collect()
    }

    #[test]
    fn alternatives_are_one_clause() {
        let found = of(r"(?i)\b(?:union|select)\s+\w");
        assert_eq!(strings(&found.clauses[0]), ["select", "union"]);
        assert_eq!(found.min_len, 7);
    }

    #[test]
    fn what_may_be_missing_is_not_required() {
        assert!(of("(?:abc)?").clauses.is_empty());
        assert!(of("a*|b").clauses.is_empty());
        assert!(of("^.*$").sets.is_empty());
    }

    #[test]
    fn bytes_are_required() {
        let found = of(r#"["'`]\s*\w+"#);
        assert!(found.sets[0].contains(b'\'') && !found.sets[0].contains(b'a'));
    }

    #[test]
    fn anchors_bound_the_length() {
        assert_eq!(of("^0?$").max_len, Some(1));
        assert_eq!(of("0?$").max_len, None);
    }

    /// Strings made from the pattern itself always have what it requires.
    #[test]
    fn requirements_are_sound() {
        let cases = [
            (r"(?i)<script[^>]*>", "x<SCRIPT a>"),
            (r"\.\.[/\\]", "a../b"),
            (r"a(?:b|c)d{2,3}e", "zacddde"),
            (r"(?:/\*!?|\*/|[';]--)", "a;--"),
            (r"(?:a|bc|)x[0-9]{3}", "x123"),
        ];
        for (pattern, value) in cases {
            let compiled = Pattern::compile(pattern).expect("a pattern");
            assert!(compiled.is_match(value.as_bytes()));
            let found = of(pattern);
            let lower = value.to_ascii_lowercase();
            assert!(found.min_len <= value.len());
            assert!(
                found
                    .clauses
                    .iter()
                    .all(|c| strings(c).iter().any(|s| lower.contains(s))),
                "{pattern}"
            );
            assert!(
                found
                    .sets
                    .iter()
                    .all(|set| value.bytes().any(|b| set.contains(b))),
                "{pattern}"
            );
        }
    }
}
