//! Each value once: which filtered rules could match it.

use super::super::classes::{self, Classes};
use super::super::pipeline::Pipelines;
use super::super::ruleset::RuleSet;
use super::super::values::{KEEP_BYTES, ValueId, Values};
use super::injection;
use super::memo::Memo;
use super::plan::{Channel, Loose, Nodes, Plan};
use crate::transformation::UnicodeMap;

/// What values are scanned with: one for each thread, whatever transaction it works on. What a request
/// finds there is in the processor's cache.
#[derive(Debug, Default)]
pub(in super::super) struct Scanner {
    /// The rule set whose values `memo` remembers.
    rules: u64,
    /// For each string, the last scan that found it.
    seen: Vec<u32>,
    /// For each spec, the last scan that found one of its strings, and which clauses it met then.
    met: Vec<(u32, u8)>,
    scan: u32,
    /// What the transformations of a channel make of the value at hand.
    variants: Vec<Variant>,
    /// Places of the rules that may match the value at hand.
    places: Vec<u32>,
    memo: Memo,
    /// A value in lower case.
    lower: Vec<u8>,
}

/// What some transformations make of a value.
#[derive(Clone, Copy, Debug)]
struct Variant {
    value: ValueId,
    nodes: Nodes,
    /// Classes that it may have beside those of its bytes.
    more: Classes,
}

impl Variant {
    fn new(value: ValueId, nodes: Nodes) -> Self {
        Self {
            value,
            nodes,
            more: 0,
        }
    }
}

/// What scanning has found in a transaction.
#[derive(Debug, Default)]
pub(in super::super) struct Marked {
    /// Candidates, as bits over all rules.
    candidates: Vec<u64>,
    /// Values that are remembered and have candidates, and where: the first of them.
    remembered: Vec<(ValueId, usize)>,
}

/// Values of one transaction of which it is noted which rules do not match: each such rule goes through all of them.
const NOTED: usize = 64;

impl Marked {
    /// For another transaction.
    pub(in super::super) fn begin(&mut self) {
        self.remembered.clear();
    }

    /// Forgets the candidates.
    pub(in super::super) fn reset(&mut self, plan: &Plan) {
        self.candidates.clear();
        self.candidates.resize(plan.always.len(), 0);
    }

    /// The candidates, as bits over all rules.
    pub(in super::super) fn candidates(&self, word: usize) -> u64 {
        self.candidates[word]
    }

    fn add(&mut self, place: u32) {
        self.candidates[place as usize / 64] |= 1 << (place % 64);
    }

    fn note(&mut self, id: ValueId, slot: usize) {
        if self.remembered.len() < NOTED {
            self.remembered.push((id, slot));
        }
    }
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
    /// For a phase of this rule set.
    pub(in super::super) fn begin(&mut self, rules: u64) {
        if self.rules != rules {
            self.rules = rules;
            self.memo.forget();
        }
        self.lower.shrink_to(KEEP_BYTES);
        self.places.clear();
        self.places.shrink_to(KEEP_BYTES / size_of::<u32>());
    }

    /// For this plan.
    pub(in super::super) fn fit(&mut self, plan: &Plan) {
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

    /// The rule was asked about the value, as the value is, and did not match: nor will it, when the value comes again.
    pub(in super::super) fn rule_out(
        &mut self,
        place: u32,
        id: ValueId,
        values: &Values,
        marked: &Marked,
    ) {
        let slots = marked.remembered.iter().filter(|(known, _)| *known == id);
        slots.for_each(|(_, slot)| self.memo.rule_out(place, *slot, values.get(id)));
    }

    /// As [`value`](Self::value), of a value that may come again with other requests.
    pub(in super::super) fn known_value(
        &mut self,
        lens: Lens<'_>,
        channel: &Channel,
        values: &mut Values,
        marked: &mut Marked,
        id: ValueId,
    ) {
        let Some(key) = Memo::key(channel, values.get(id)) else {
            return self.value(lens, channel, values, marked, id);
        };
        if let Some(places) = self.memo.get(key, values.get(id)) {
            let mut bloom = 0;
            for place in places {
                marked.add(*place);
                bloom |= classes::bloom(*place);
            }
            if !places.is_empty() {
                marked.note(id, key.slot());
                values.mark(id, bloom);
            }
            return;
        }
        self.places.clear();
        self.value(lens, channel, values, marked, id);
        self.places.sort_unstable();
        self.places.dedup();
        let is_kept = self.memo.put(key, values.get(id), &self.places);
        if is_kept && !self.places.is_empty() {
            marked.note(id, key.slot());
        }
    }

    /// Scans a value and what the channel's transformations make of it.
    pub(in super::super) fn value(
        &mut self,
        lens: Lens<'_>,
        channel: &Channel,
        values: &mut Values,
        marked: &mut Marked,
        id: ValueId,
    ) {
        if channel.nodes == 0 {
            return;
        }
        let here = values.classes(id);
        if channel.triggers & here == 0 {
            let itself = Variant::new(id, channel.nodes);
            let bloom = self.variant(lens.plan, channel, values, marked, itself);
            values.mark(id, bloom);
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
        variants.push(Variant::new(id, channel.nodes));
        while changed != 0 {
            let stage = &channel.stages[changed.trailing_zeros() as usize];
            changed &= changed - 1;
            if here & stage.triggers & !stage.alike == 0 {
                variants[0].more |= classes::BLANKS;
                continue;
            }
            if !stage.may_meet(&lens.plan.specs, here, values.len(id) as u32) {
                variants[0].nodes &= !stage.nodes;
                continue;
            }
            let result = values.transformed(id, stage.node, lens.pipelines, lens.unicode);
            // For the filter, which has no case, that is the value itself.
            if result == id || values.get(result).eq_ignore_ascii_case(values.get(id)) {
                continue;
            }
            variants[0].nodes &= !stage.nodes;
            if (values.len(result) as u32) < stage.min_len {
                continue;
            }
            match variants.iter_mut().find(|known| known.value == result) {
                Some(known) => known.nodes |= stage.nodes,
                None => variants.push(Variant::new(result, stage.nodes)),
            }
        }
        let mut bloom = 0;
        for variant in &variants {
            if variant.nodes != 0 {
                bloom |= self.variant(lens.plan, channel, values, marked, *variant);
            }
        }
        values.mark(id, bloom);
        self.variants = variants;
    }

    /// Scans what some transformations made of a value. The answer: which filtered rules may match it, as
    /// `Values` keeps that.
    fn variant(
        &mut self,
        plan: &Plan,
        channel: &Channel,
        values: &Values,
        marked: &mut Marked,
        variant: Variant,
    ) -> u64 {
        let bytes = values.get(variant.value);
        let here = values.classes(variant.value) | variant.more;
        let mut look = Look {
            plan,
            here,
            bytes,
            nodes: variant.nodes,
            marked,
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
        look.bloom
    }
}

struct Look<'l> {
    plan: &'l Plan,
    here: Classes,
    bytes: &'l [u8],
    nodes: Nodes,
    marked: &'l mut Marked,
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
            self.marked.add(spec.place);
            self.bloom |= classes::bloom(spec.place);
            self.places.push(spec.place);
        }
    }
}
