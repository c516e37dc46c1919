//! Each value once: which filtered rules could match it.

use super::super::classes::{self, Classes};
use super::super::pipeline::Pipelines;
use super::super::ruleset::RuleSet;
use super::super::values::{KEEP_BYTES, ValueId, Values};
use super::injection;
use super::memo::Memo;
use super::plan::{Channel, Loose, Nodes, Plan};
use crate::transformation::UnicodeMap;

/// What is remembered while values are scanned.
#[derive(Debug, Default)]
pub(in super::super) struct Scanner {
    /// Candidates, as bits over all rules.
    candidates: Vec<u64>,
    /// For each string, the last scan that found it.
    seen: Vec<u32>,
    /// For each spec, the last scan that found one of its strings, and which clauses it met then.
    met: Vec<(u32, u8)>,
    scan: u32,
    /// What the transformations of a channel make of the value at hand.
    variants: Vec<(ValueId, Nodes)>,
    /// Places of the rules that may match the value at hand.
    places: Vec<u32>,
    memo: Memo,
    /// A value in lower case.
    lower: Vec<u8>,
}

/// What scanning looks at beside the values.
#[derive(Clone, Copy)]
pub(in super::super) struct Lens<'l> {
    pub(super) plan: &'l Plan,
    pub(super) pipelines: &'l Pipelines,
    pub(super) unicode: Option<&'l UnicodeMap>,
}

impl<'l> Lens<'l> {
    pub(in super::super) fn of(rules: &'l RuleSet, plan: &'l Plan) -> Self {
        Self {
            plan,
            pipelines: &rules.pipelines,
            unicode: rules.unicode.as_ref(),
        }
    }
}

impl Scanner {
    /// Forgets the candidates.
    pub(in super::super) fn reset(&mut self, plan: &Plan) {
        self.candidates.clear();
        self.candidates.resize(plan.always.len(), 0);
        let strings = plan
            .atoms
            .iter()
            .map(super::atoms::Atoms::len)
            .max()
            .unwrap_or(0);
        // Scans are numbered on, so what is left of others does no harm.
        self.seen.resize(self.seen.len().max(strings), 0);
        self.met
            .resize(self.met.len().max(plan.specs.len()), (0, 0));
    }

    /// For another transaction.
    pub(in super::super) fn begin(&mut self) {
        self.memo.reset();
        self.lower.shrink_to(KEEP_BYTES);
    }

    /// For other rules.
    pub(in super::super) fn forget(&mut self) {
        self.memo.forget();
    }

    /// The rule was asked about the value and did not match: nor will it, when the value comes again.
    pub(in super::super) fn rule_out(&mut self, place: u32, id: ValueId, values: &Values) {
        self.memo.rule_out(place, id, values);
    }

    /// As [`value`](Self::value), of a value that may come again with other requests.
    pub(in super::super) fn known_value(
        &mut self,
        lens: Lens<'_>,
        channel: &Channel,
        values: &mut Values,
        id: ValueId,
    ) {
        let Some(key) = Memo::key(channel, values.get(id)) else {
            return self.value(lens, channel, values, id);
        };
        if let Some(places) = self.memo.get(key, id, values.get(id)) {
            let mut bloom = 0;
            for place in places {
                self.candidates[*place as usize / 64] |= 1 << (place % 64);
                bloom |= classes::bloom(*place);
            }
            values.mark(id, bloom);
            return;
        }
        self.places.clear();
        self.value(lens, channel, values, id);
        self.places.sort_unstable();
        self.places.dedup();
        self.memo.put(key, id, values.get(id), &self.places);
    }

    /// The candidates, as bits over all rules.
    pub(in super::super) fn candidates(&self, word: usize) -> u64 {
        self.candidates[word]
    }

    /// Scans a value and what the channel's transformations make of it.
    pub(in super::super) fn value(
        &mut self,
        lens: Lens<'_>,
        channel: &Channel,
        values: &mut Values,
        id: ValueId,
    ) {
        if channel.nodes == 0 {
            return;
        }
        let here = values.classes(id);
        if channel.triggers & here == 0 {
            self.variant(lens.plan, channel, values, id, id, channel.nodes);
            return;
        }
        let mut changed = 0_u128;
        let mut rest = channel.triggers & here;
        while rest != 0 {
            changed |= channel.triggered[rest.trailing_zeros() as usize];
            rest &= rest - 1;
        }
        let mut variants = std::mem::take(&mut self.variants);
        variants.clear();
        variants.push((id, channel.nodes));
        while changed != 0 {
            let stage = &channel.stages[changed.trailing_zeros() as usize];
            changed &= changed - 1;
            if !stage.may_meet(&lens.plan.specs, here, values.len(id) as u32) {
                variants[0].1 &= !stage.nodes;
                continue;
            }
            let result = values.transformed(id, stage.node, lens.pipelines, lens.unicode);
            // For the filter, which has no case, that is the value itself.
            if result == id || values.get(result).eq_ignore_ascii_case(values.get(id)) {
                continue;
            }
            variants[0].1 &= !stage.nodes;
            if (values.len(result) as u32) < stage.min_len {
                continue;
            }
            match variants.iter_mut().find(|(known, _)| *known == result) {
                Some((_, nodes)) => *nodes |= stage.nodes,
                None => variants.push((result, stage.nodes)),
            }
        }
        for (variant, nodes) in &variants {
            if *nodes != 0 {
                self.variant(lens.plan, channel, values, id, *variant, *nodes);
            }
        }
        self.variants = variants;
    }

    /// Scans what some transformations made of value `base`.
    fn variant(
        &mut self,
        plan: &Plan,
        channel: &Channel,
        values: &mut Values,
        base: ValueId,
        variant: ValueId,
        nodes: Nodes,
    ) {
        let (bytes, here) = (values.get(variant), values.classes(variant));
        let mut look = Look {
            plan,
            here,
            bytes,
            nodes,
            candidates: &mut self.candidates,
            places: &mut self.places,
            bloom: 0,
        };
        look.loose(&channel.loose);
        let rare = channel.rare.as_ref();
        if channel.has_strings && !rare.is_some_and(|it| it.is_absent(bytes, &mut self.lower)) {
            let scan = self.scan.wrapping_add(1);
            if scan == 0 {
                self.seen.fill(0);
                self.met.fill((0, 0));
            }
            self.scan = scan.max(1);
            let (scan, seen, met) = (self.scan, &mut self.seen, &mut self.met);
            let atoms = &plan.atoms[channel.side];
            atoms.find(bytes, here, |atom| {
                if seen[atom] == scan {
                    return;
                }
                seen[atom] = scan;
                for (number, clause) in atoms.owners(atom) {
                    if channel.specs[usize::from(*number) / 64] >> (number % 64) & 1 == 1 {
                        let (last, clauses) = &mut met[usize::from(*number)];
                        *clauses = if *last == scan {
                            *clauses | clause
                        } else {
                            *clause
                        };
                        *last = scan;
                        if *clauses == plan.specs[usize::from(*number)].clauses {
                            look.candidate(*number);
                        }
                    }
                }
            });
        }
        let bloom = look.bloom;
        values.mark(base, bloom);
    }
}

struct Look<'l> {
    plan: &'l Plan,
    here: Classes,
    bytes: &'l [u8],
    nodes: Nodes,
    candidates: &'l mut Vec<u64>,
    places: &'l mut Vec<u32>,
    bloom: u64,
}

impl Look<'_> {
    fn loose(&mut self, loose: &Loose) {
        if loose.by_class.is_empty() {
            loose
                .specs
                .iter()
                .for_each(|number| self.candidate(*number));
            return;
        }
        let mut fit = loose.open;
        let mut rest = self.here & loose.classes;
        while rest != 0 {
            fit |= loose.by_class[rest.trailing_zeros() as usize];
            rest &= rest - 1;
        }
        while fit != 0 {
            self.candidate(loose.specs[fit.trailing_zeros() as usize]);
            fit &= fit - 1;
        }
    }

    /// The strings of a spec are there; if all else is, its rule is a candidate.
    fn candidate(&mut self, number: u16) {
        let spec = &self.plan.specs[usize::from(number)];
        let fits = spec.sets.iter().all(|set| set & self.here != 0)
            && spec.nodes & self.nodes != 0
            && (spec.min_len..=spec.max_len).contains(&(self.bytes.len() as u32))
            && (!spec.sql || injection::may_match(self.bytes));
        if fits {
            self.candidates[spec.place as usize / 64] |= 1 << (spec.place % 64);
            self.bloom |= classes::bloom(spec.place);
            self.places.push(spec.place);
        }
    }
}
