//! From what is written to what is meant: every value within its bounds, all errors told.

use std::path::Path;
use std::time::Duration;

use semver::Version;

use super::{Manifest, ManifestError, Mode, PackName, RuleSource, raw};
use crate::limit::{Key, Limit, LimitKey, PathPattern};
use crate::policy::{BanPolicy, ConnectAllowance, ExecAllowance, Policy, WatchedFiles};

const YEAR_SECONDS: u64 = 365 * 24 * 3600;
const MONTH_SECONDS: u64 = 30 * 24 * 3600;
const DAY_SECONDS: u64 = 24 * 3600;

/// Most entries of each list: far more than people write, and little to go through.
const ENTRIES: usize = 1024;
/// Most limits: each is looked at for each request.
const LIMITS: usize = 64;
/// Most wildcards of a name in `rules.files`: what is compared grows with each.
const WILDCARDS: usize = 4;

/// All that is wrong so far.
#[derive(Default)]
struct Faults(Vec<ManifestError>);

impl Faults {
    fn add(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.0.push(ManifestError { at: None, message });
    }

    fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.add(message());
        }
    }

    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.add(message)).ok()
    }
}

pub(super) fn manifest(raw: raw::Root) -> Result<Manifest, Vec<ManifestError>> {
    let mut faults = Faults::default();
    let name = faults.keep(PackName::try_from(raw.name.clone()));
    let version = faults.keep(version(&raw.version));
    let clew = faults.keep(least_clew(&raw.clew));
    let described = !raw.description.trim().is_empty() && raw.description.len() <= 4096;
    faults.check(described, || {
        "description must say what the pack is for, in at most 4096 bytes".to_owned()
    });
    bounded(&raw, &mut faults);
    let rules = rule_sources(&raw.rules.files, &mut faults);
    let policy = policy(&raw, &mut faults);
    let limits = limits(&raw, &mut faults);
    match (name, version, clew) {
        (Some(name), Some(version), Some(clew)) if faults.0.is_empty() => Ok(Manifest {
            name,
            version,
            clew,
            description: raw.description,
            mode: raw.mode,
            first: raw.first,
            rules,
            policy,
            limits,
        }),
        _ => Err(faults.0),
    }
}

fn version(text: &str) -> Result<Version, String> {
    match Version::parse(text) {
        Ok(version) if text.len() <= 64 => Ok(version),
        Ok(_) => Err("version is longer than 64 bytes".to_owned()),
        Err(error) => Err(format!(
            "version {text:?} is not like 1.2.3 (semver.org): {error}"
        )),
    }
}

/// `0.1` is 0.1.0. An older Clew would misread the pack, so this one must not be older.
fn least_clew(text: &str) -> Result<Version, String> {
    let whole = match text.split('.').count() {
        1 => format!("{text}.0.0"),
        2 => format!("{text}.0"),
        _ => text.to_owned(),
    };
    let least = Version::parse(&whole).map_err(|_| {
        format!("clew {text:?} is no version; write the oldest that will do, like \"0.1\"")
    })?;
    let own = Version::parse(env!("CARGO_PKG_VERSION")).map_err(|error| error.to_string())?;
    match least <= own {
        true => Ok(least),
        false => Err(format!("it needs Clew {least} or later; this is {own}")),
    }
}

fn bounded(raw: &raw::Root, faults: &mut Faults) {
    for (name, count, most) in [
        ("rules.files", raw.rules.files.len(), ENTRIES),
        ("exec", raw.exec.len(), ENTRIES),
        ("connect", raw.connect.len(), ENTRIES),
        ("files", raw.files.len(), ENTRIES),
        ("limit", raw.limit.len(), LIMITS),
    ] {
        faults.check(count <= most, || {
            format!("{name} has {count} entries; {most} are the most")
        });
    }
}

fn rule_sources(files: &[String], faults: &mut Faults) -> Vec<RuleSource> {
    let sources = files.iter().map(|text| source(text));
    sources.filter_map(|source| faults.keep(source)).collect()
}

fn source(text: &str) -> Result<RuleSource, String> {
    if Path::new(text).is_absolute() {
        return Ok(RuleSource::Outside(text.into()));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!(
            "rules.files: {text:?} leaves the pack; name a file of the host by its absolute path"
        ));
    }
    if text.matches(['*', '?', '[']).count() > WILDCARDS {
        return Err(format!(
            "rules.files: {text:?} has more than {WILDCARDS} wildcards"
        ));
    }
    glob::Pattern::new(text)
        .map_err(|error| format!("rules.files: {text:?} is no glob: {error}"))?;
    Ok(RuleSource::Inside(text.to_owned()))
}

fn policy(raw: &raw::Root, faults: &mut Faults) -> Policy {
    for exec in &raw.exec {
        absolute("exec.path", &exec.path, faults);
    }
    for files in &raw.files {
        for path in files.protect.iter().chain(&files.web_root) {
            absolute("files", path, faults);
        }
        let empty = files.protect.is_empty() && files.web_root.is_empty();
        faults.check(!empty, || {
            "files names neither protect nor web_root".to_owned()
        });
        faults.check(!files.refuse_writes || !files.web_root.is_empty(), || {
            "files.refuse_writes needs files.web_root: where is it that nothing may be written?"
                .to_owned()
        });
    }
    Policy {
        exec: raw.exec.iter().map(exec).collect(),
        connect: raw.connect.iter().map(connect).collect(),
        files: raw.files.iter().map(files).collect(),
        ban: raw.ban.as_ref().map(|it| ban(it, faults)),
    }
}

fn absolute(key: &str, path: &Path, faults: &mut Faults) {
    faults.check(path.is_absolute(), || {
        format!("{key}: {} must be written out from /", path.display())
    });
}

fn exec(raw: &raw::Exec) -> ExecAllowance {
    ExecAllowance {
        path: raw.path.clone(),
        arguments: raw.arguments.clone(),
        service: raw.service.clone(),
    }
}

fn connect(raw: &raw::Connect) -> ConnectAllowance {
    ConnectAllowance {
        network: raw.network,
        port: raw.port,
        transport: raw.transport,
        service: raw.service.clone(),
    }
}

fn files(raw: &raw::Files) -> WatchedFiles {
    WatchedFiles {
        service: raw.service.clone(),
        protect: raw.protect.clone(),
        web_root: raw.web_root.clone(),
        refuse_writes: raw.refuse_writes,
    }
}

fn ban(raw: &raw::Ban, faults: &mut Faults) -> BanPolicy {
    let escalation = raw.escalation.unwrap_or(1);
    faults.check((1..=100).contains(&escalation), || {
        "ban.escalation must be 1 to 100".to_owned()
    });
    for (key, seconds) in [("seconds", raw.seconds), ("most_seconds", raw.most_seconds)] {
        faults.check(
            seconds.is_none_or(|it| (1..=YEAR_SECONDS).contains(&it)),
            || format!("ban.{key} must be 1 to {YEAR_SECONDS} (a year)"),
        );
    }
    let first = raw.seconds.unwrap_or(0);
    let most = raw.most_seconds.unwrap_or(first.max(MONTH_SECONDS));
    faults.check(most >= first, || {
        "ban.most_seconds is less than ban.seconds".to_owned()
    });
    BanPolicy {
        enabled: raw.enabled,
        span: raw.seconds.map(Duration::from_secs),
        escalation,
        most: Duration::from_secs(most),
    }
}

fn limits(raw: &raw::Root, faults: &mut Faults) -> Vec<Limit> {
    let mut names = std::collections::HashSet::new();
    for limit in &raw.limit {
        faults.check(names.insert(&limit.name), || {
            format!("two limits are named {:?}", limit.name)
        });
    }
    let all = raw.limit.iter();
    all.filter_map(|it| limit(it, raw, faults)).collect()
}

fn limit(raw: &raw::Limit, root: &raw::Root, faults: &mut Faults) -> Option<Limit> {
    let before = faults.0.len();
    let name = &raw.name;
    let mut check = |holds: bool, what: &str| {
        faults.check(holds, || format!("limit {name:?}: {what}"));
    };
    check(
        is_name(name),
        "its name must be lower-case letters, digits and -, at most 64",
    );
    check(
        (1..=1_000_000).contains(&raw.requests),
        "requests must be 1 to 1,000,000",
    );
    check(
        (1..=DAY_SECONDS).contains(&raw.seconds),
        "seconds must be 1 to 86,400",
    );
    let status = raw.status.unwrap_or(429);
    check((400..=599).contains(&status), "status must be 400 to 599");
    check(
        raw.methods.iter().all(|it| is_token(it)),
        "methods must be names like GET",
    );
    let header = raw.header.as_deref().unwrap_or("authorization");
    check(is_token(header), "header must be the name of a header");
    check(
        raw.key == LimitKey::Token || raw.header.is_none(),
        "header needs key = \"token\"",
    );
    let path = PathPattern::parse(raw.path.as_deref().unwrap_or("/"));
    let path = faults.keep(path.map_err(|error| format!("limit {name:?}: {error}")))?;
    (faults.0.len() == before).then(|| Limit {
        name: format!("{}/{name}", root.name),
        key: match raw.key {
            LimitKey::Client => Key::Client,
            LimitKey::Token => Key::Token(header.to_ascii_lowercase()),
        },
        path,
        methods: raw
            .methods
            .iter()
            .map(|it| it.to_ascii_uppercase())
            .collect(),
        requests: raw.requests,
        span: Duration::from_secs(raw.seconds),
        status,
        action: raw.action,
        detect: root.mode == Mode::Detect,
    })
}

pub(super) fn is_name(text: &str) -> bool {
    let letter = text.starts_with(|first: char| first.is_ascii_lowercase());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    letter && text.len() <= 64 && text.bytes().all(plain)
}

/// A `token` of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(of_token)
}
