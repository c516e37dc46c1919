//! Secrets among the arguments of a program, or in a line that a shell is given.
//!
//! Beside all that is masked in any text: `--password X` and its like, and the options that some well-known programs
//! take a password by ([`TOOLS`]).

use std::ops::Range;

use super::assignment::Ends;
use super::{masked, name, text_spans};

/// A program, the options of one letter that are followed by a secret, in the same word or the next one, and those
/// that are in the same word only.
struct Tool {
    names: &'static [&'static str],
    next: &'static [char],
    attached: &'static [char],
}

const TOOLS: [Tool; 7] = [
    Tool {
        names: &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mysqlshow",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "7z",
            "7za",
        ],
        next: &[],
        attached: &['p'],
    },
    Tool {
        names: &["sshpass"],
        next: &['p'],
        attached: &[],
    },
    Tool {
        names: &["curl"],
        next: &['u', 'U'],
        attached: &[],
    },
    Tool {
        names: &["redis-cli"],
        next: &['a'],
        attached: &[],
    },
    Tool {
        names: &[
            "ldapsearch",
            "ldapmodify",
            "ldapadd",
            "ldapwhoami",
            "ldappasswd",
        ],
        next: &['w'],
        attached: &[],
    },
    Tool {
        names: &["smbclient", "rpcclient", "net"],
        next: &['U'],
        attached: &[],
    },
    Tool {
        names: &["zip", "unzip"],
        next: &['P'],
        attached: &[],
    },
];

/// Where in a command line one is: arguments are handed in one after the other.
#[derive(Default)]
pub(super) struct CommandLine {
    tool: Option<&'static Tool>,
    /// The next word is a secret.
    expects: bool,
}

impl CommandLine {
    /// The next argument, masked.
    pub(super) fn mask(&mut self, argument: &str) -> String {
        if std::mem::take(&mut self.expects) && !argument.starts_with('-') {
            return super::MASK.to_owned();
        }
        let mut spans = text_spans(argument, Ends::OfCommand);
        for word in words(argument) {
            spans.extend(self.word(&argument[word.clone()], word.start));
        }
        masked(argument, spans)
    }

    fn word(&mut self, word: &str, start: usize) -> Option<Range<usize>> {
        if std::mem::take(&mut self.expects) && !word.starts_with('-') {
            return Some(start..start + word.len());
        }
        if word.starts_with('-') {
            return self.option(word, start);
        }
        let program = word.trim_matches(['\'', '"', '(', '`', '$']);
        let program = program.rsplit_once('/').map_or(program, |(_, name)| name);
        let tool = TOOLS.iter().find(|it| it.names.contains(&program));
        let is_next_command = word.ends_with([';', '|', '&']);
        self.tool = match is_next_command {
            true => None,
            false => tool.or(self.tool),
        };
        None
    }

    fn option(&mut self, word: &str, start: usize) -> Option<Range<usize>> {
        let long = ["--user", "--proxy-user"];
        let is_curl = self.tool.is_some_and(|it| it.next.contains(&'u'));
        if let Some(value) = word.find('=').filter(|_| is_curl) {
            let is_secret = long.contains(&&word[..value]);
            return is_secret.then_some(start + value + 1..start + word.len());
        }
        let is_secret = !word.contains('=') && name::is_secret(word.trim_start_matches('-'));
        if is_secret && word.len() > 2 || is_curl && long.contains(&word) {
            self.expects = true;
            return None;
        }
        let tool = self.tool.filter(|_| !word.starts_with("--"))?;
        let is_next = |letter: char| tool.next.contains(&letter);
        let (at, letter) = word
            .char_indices()
            .skip(1)
            .find(|(at, it)| is_next(*it) || (*at == 1 && tool.attached.contains(it)))?;
        let value = at + letter.len_utf8();
        self.expects = value == word.len() && is_next(letter);
        Some(start + value..start + word.len())
    }
}

fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_ascii_whitespace().map(|word| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        start..start + word.len()
    })
}
