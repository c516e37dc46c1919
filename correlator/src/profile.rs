//! A profile: what a workload's requests have been seen to do, and may do from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use clew_protocol::kernel::{Connect, Exec, Transport};
use serde::{Deserialize, Serialize};

/// Most entries of each kind per service; what goes beyond is not learned.
const ENTRIES: usize = 4096;

/// Programs whose arguments decide what they do: shells, languages, loaders, and what starts
/// another program. A rule for one of these covers the exact arguments only: a profile that says
/// "sh may run" would let every injection pass.
///
/// Names as distributions give them to the executable that a link ends at (`awk` is `mawk`, `sh`
/// is `dash`); what is taken for one of these by mistake is only learned more narrowly.
const INTERPRETERS: &[&str] = &[
    // Shells.
    "sh",
    "bash",
    "rbash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "lksh",
    "mksh",
    "csh",
    "tcsh",
    "fish",
    "yash",
    "posh",
    "pwsh",
    "busybox",
    "toybox",
    // Languages.
    "python",
    "pypy",
    "perl",
    "php",
    "ruby",
    "jruby",
    "irb",
    "node",
    "nodejs",
    "deno",
    "bun",
    "lua",
    "luajit",
    "java",
    "jshell",
    "groovy",
    "dotnet",
    "mono",
    "tclsh",
    "jimsh",
    "wish",
    "expect",
    "guile",
    "erl",
    "escript",
    "elixir",
    "R",
    "Rscript",
    "awk",
    "mawk",
    "gawk",
    "nawk",
    "original-awk",
    "sed",
    "ed",
    "vim",
    "emacs",
    "m4",
    "gdb",
    "make",
    // Loaders: `ld-linux-x86-64.so.2`, `ld-musl-x86_64.so.1`, `ld.so`.
    "ld",
    // What starts another program.
    "env",
    "xargs",
    "find",
    "nohup",
    "timeout",
    "nice",
    "ionice",
    "setsid",
    "stdbuf",
    "time",
    "watch",
    "script",
    "flock",
    "taskset",
    "chrt",
    "sudo",
    "su",
    "doas",
    "runuser",
    "setpriv",
    "chroot",
    "unshare",
    "nsenter",
    "systemd-run",
    "start-stop-daemon",
    "strace",
    "socat",
    "ssh",
    "tar",
    "parallel",
];

/// What each service's requests do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// By the service's name.
    pub services: BTreeMap<String, ServiceProfile>,
}

/// What one service's requests do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceProfile {
    /// Programs started.
    #[serde(default)]
    pub exec: BTreeSet<ExecEntry>,
    /// Flows opened.
    #[serde(default)]
    pub connect: BTreeSet<ConnectEntry>,
}

/// A program that was started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecEntry {
    /// Path of the executable.
    pub path: String,
    /// The exact arguments, for an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
}

/// A flow that was opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectEntry {
    /// Where to.
    pub target: SocketAddr,
    /// Transport protocol.
    pub transport: Transport,
}

impl Profile {
    /// Learns a program start; whether it was new.
    ///
    /// What cannot be said exactly is not learned: a path or argument that is not UTF-8 or was
    /// cut.
    pub fn learn_exec(&mut self, service: &str, exec: &Exec) -> bool {
        let process = &exec.process;
        let Ok(path) = String::from_utf8(process.executable.clone()) else {
            return false;
        };
        let arguments = if is_interpreter(&path) {
            let exact = process.arguments.iter().cloned().map(String::from_utf8);
            match exact.collect::<Result<Vec<_>, _>>() {
                Ok(arguments) if !process.truncated => Some(arguments),
                _ => return false,
            }
        } else {
            None
        };
        let known = &mut self.service(service).exec;
        known.len() < ENTRIES && known.insert(ExecEntry { path, arguments })
    }

    /// Learns a flow; whether it was new.
    pub fn learn_connect(&mut self, service: &str, connect: &Connect) -> bool {
        let known = &mut self.service(service).connect;
        let entry = ConnectEntry {
            target: connect.target,
            transport: connect.transport,
        };
        known.len() < ENTRIES && known.insert(entry)
    }

    fn service(&mut self, name: &str) -> &mut ServiceProfile {
        self.services.entry(name.to_owned()).or_default()
    }
}

/// By file name, whatever follows its first letters: `python3.11`, `php-fpm8.2`, `perl5.36`,
/// `busybox.static`.
fn is_interpreter(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_letter = |c: &char| c.is_ascii_alphabetic();
    let letters = name.chars().take_while(is_letter).count();
    // Letters of ASCII are one byte each.
    let stem = &name[..letters];
    // The kernel says this of a file that was replaced or removed while it ran.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    INTERPRETERS.iter().any(|it| *it == stem || *it == name)
}

#[cfg(test)]
mod tests {
    use clew_protocol::kernel::{Decision, Lineage, Process, ProcessKey, Strength};
    use clew_protocol::{Moment, Sequence};

    use super::*;

    /// The list had `awk`, which on Debian is a link to `mawk`: any program of awk's could run.
    #[test]
    fn the_awk_of_debian_is_learned_with_its_arguments() {
        for path in ["/usr/bin/mawk", "/usr/bin/gawk"] {
            let mut profile = Profile::default();
            assert!(profile.learn_exec("shop", &exec(path, &["awk", "{print $1}"])));
            let learned = profile.services["shop"].exec.first().cloned();
            let arguments = learned.and_then(|entry| entry.arguments);
            assert_eq!(
                arguments.as_deref(),
                Some(&["awk".to_owned(), "{print $1}".to_owned()][..])
            );
        }
    }

    fn exec(path: &str, arguments: &[&str]) -> Exec {
        Exec {
            at: Moment(1),
            lineage: Lineage {
                strength: Strength::Reader,
                sequence: Sequence(1),
                backend: ProcessKey { tgid: 1, start: 1 },
                tid: 1,
                recent: Vec::new(),
            },
            decision: Decision::Observed,
            process: Process {
                executable: path.into(),
                arguments: arguments.iter().map(|it| it.as_bytes().to_vec()).collect(),
                ..Process::default()
            },
        }
    }

    #[test]
    fn interpreters_are_known_by_any_version() {
        for path in [
            "/bin/sh",
            "/usr/bin/dash",
            "/usr/bin/python3.11",
            "/usr/bin/python3.11-dbg",
            "/usr/bin/php8.2",
            "/usr/bin/php-cgi8.2",
            "/usr/sbin/php-fpm8.2",
            "/usr/bin/perl",
            "/usr/bin/perl5.36-x86_64-linux-gnu",
            "/usr/bin/ruby3.1",
            "/usr/bin/lua5.4",
            "/usr/bin/node",
            "/usr/bin/tclsh8.6",
            "/bin/busybox.static",
            "/bin/busybox (deleted)",
            "/usr/bin/original-awk",
            "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "/lib/ld-musl-x86_64.so.1",
            "/usr/bin/ld.so",
            "/usr/bin/start-stop-daemon",
            "python3",
        ] {
            assert!(is_interpreter(path), "{path}");
        }
        for path in [
            "/usr/bin/convert",
            "/usr/bin/shred",
            "/usr/bin/nodemon-x",
            "/usr/bin/ldd",
            "/usr/bin/\u{e9}sh",
            "/usr/bin/",
            "",
        ] {
            assert!(!is_interpreter(path), "{path}");
        }
    }
}
