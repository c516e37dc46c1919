//! Which rules an id, a tag or a message names.

use super::draft::Drafts;
use crate::regex::Pattern;
use crate::seclang::ast::Select;

/// All rules, in the order of their numbers.
pub(super) struct Catalogue {
    entries: Vec<Entry>,
}

struct Entry {
    id: u64,
    tags: Vec<String>,
    message: Option<String>,
}

impl Catalogue {
    pub(super) fn of(drafts: &Drafts) -> Self {
        let entry = |draft: &super::draft::Draft| {
            let first = &draft.links[0].actions;
            Entry {
                id: first.id.unwrap_or_default(),
                tags: first.tags.iter().map(|tag| tag.node.clone()).collect(),
                message: first.message.as_ref().map(|m| m.node.clone()),
            }
        };
        Self {
            entries: drafts.rules.iter().map(entry).collect(),
        }
    }

    /// Numbers of the rules that `select` names, ascending. Tags and messages are regular
    /// expressions, as in ModSecurity 2 (3 compares tags as a whole, a subset of that).
    ///
    /// # Errors
    ///
    /// A sentence, when the regular expression does not compile.
    pub(super) fn select(&self, select: &Select) -> Result<Vec<u32>, String> {
        match select {
            Select::Ids(ranges) => Ok(self.by_id(ranges)),
            Select::Tag(pattern) => {
                let pattern = Pattern::compile(pattern).map_err(|e| e.to_string())?;
                Ok(self.numbers(|entry| {
                    entry
                        .tags
                        .iter()
                        .any(|tag| pattern.is_match(tag.as_bytes()))
                }))
            }
            Select::Msg(pattern) => {
                let pattern = Pattern::compile(pattern).map_err(|e| e.to_string())?;
                Ok(self.numbers(|entry| {
                    entry
                        .message
                        .as_ref()
                        .is_some_and(|m| pattern.is_match(m.as_bytes()))
                }))
            }
        }
    }

    pub(super) fn by_id(&self, ranges: &[(u64, u64)]) -> Vec<u32> {
        self.numbers(|entry| {
            entry.id != 0
                && ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&entry.id))
        })
    }

    fn numbers(&self, chosen: impl Fn(&Entry) -> bool) -> Vec<u32> {
        let all = self.entries.iter().enumerate();
        all.filter(|(_, entry)| chosen(entry))
            .map(|(number, _)| number as u32)
            .collect()
    }
}
