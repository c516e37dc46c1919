//! The pack `exceptions`: a folder that is begun once and added to from then on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use semver::Version;

use super::{ExceptError, Exception, RuleException};
use crate::policy::{ConnectAllowance, ExecAllowance};
use crate::rules::PackRules;
use crate::{FILE, Pack};

/// Where exclusions are written.
const RULES: &str = "rules/exceptions.conf";
/// Ids of exclusions: the first that is free from here on.
const IDS: std::ops::Range<u64> = 9_400_000..9_500_000;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The pack's folder.
    pub folder: PathBuf,
    /// Its version now.
    pub version: Version,
    /// What was added, as it stands in the files.
    pub text: String,
}

impl Exception {
    /// Adds this to the pack in `folder`, and begins one where there is none. Its version is raised.
    ///
    /// # Errors
    ///
    /// What is there is no pack, does not run before others, or has this exception; or the disk says no.
    pub fn write(&self, folder: &Path) -> Result<Written, ExceptError> {
        if !folder.join(FILE).exists() {
            begin(folder)?;
        }
        let pack = Pack::open(folder).map_err(|error| ExceptError::Folder(error.to_string()))?;
        if !self.rules.is_empty() && !pack.manifest.first {
            let text = "exclusions must run before the rules that they are about: write first = true into its pack.toml";
            return Err(ExceptError::Folder(format!("{}: {text}", folder.display())));
        }
        let rules = self.rule_text(&pack)?;
        let policy = self.policy_text(&pack);
        if rules.is_empty() && policy.is_empty() {
            let text = format!("{} has this exception already", folder.display());
            return Err(ExceptError::Folder(text));
        }
        let mut version = pack.manifest.version.clone();
        version.patch += 1;
        let old = text_of(&pack, FILE);
        let manifest = format!("{}{policy}", raised(&old, &version)?);
        crate::Manifest::parse(&manifest).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            ExceptError::Folder(format!(
                "what would be written is wrong, and was not: {}",
                errors.join("; ")
            ))
        })?;
        if !rules.is_empty() {
            replace(
                &folder.join(RULES),
                &format!("{}{rules}", text_of(&pack, RULES)),
            )?;
        }
        // The last: what has a new version has the rest as well.
        replace(&folder.join(FILE), &manifest)?;
        Ok(Written {
            folder: folder.to_owned(),
            version,
            text: format!("{rules}{policy}"),
        })
    }

    fn rule_text(&self, pack: &Pack) -> Result<String, ExceptError> {
        let rules =
            PackRules::load(pack).map_err(|errors| ExceptError::Folder(errors.join("\n")))?;
        let taken = rules.listed().into_iter().map(|rule| rule.id);
        let taken: std::collections::BTreeSet<u64> = taken.collect();
        let mut free = IDS.filter(|id| !taken.contains(id));
        let known = text_of(pack, RULES);
        let mut text = String::new();
        for rule in self.rules.iter().filter(|rule| !has(&known, rule)) {
            let id = free.next().ok_or_else(|| {
                ExceptError::Folder("no id is free any more; begin another pack".to_owned())
            })?;
            text.push('\n');
            text.push_str(&rule.text(id));
        }
        Ok(text)
    }

    fn policy_text(&self, pack: &Pack) -> String {
        let policy = &pack.manifest.policy;
        let exec = self.exec.iter().filter(|it| !policy.exec.contains(it));
        let connect = self
            .connect
            .iter()
            .filter(|it| !policy.connect.contains(it));
        exec.map(exec_text)
            .chain(connect.map(connect_text))
            .collect()
    }
}

/// Whether a text has this exclusion already, under whatever id.
fn has(text: &str, rule: &RuleException) -> bool {
    let own = rule.text(0);
    let (path, control) = (own.lines().nth(1), own.lines().nth(2));
    let after_id = |line: &str| line.split_once(",phase:1").map(|it| it.1.to_owned());
    let lines: Vec<&str> = text.lines().collect();
    let same =
        |pair: &[&str]| Some(pair[0]) == path && after_id(pair[1]) == control.and_then(after_id);
    lines.windows(2).any(same)
}

fn exec_text(exec: &ExecAllowance) -> String {
    let mut text = format!(
        "\n[[exec]]\npath = {}\n",
        quoted(&exec.path.to_string_lossy())
    );
    if let Some(arguments) = &exec.arguments {
        let list: Vec<_> = arguments.iter().map(|it| quoted(it)).collect();
        let _ = writeln!(text, "arguments = [{}]", list.join(", "));
    }
    text + &service_text(exec.service.as_deref())
}

fn connect_text(connect: &ConnectAllowance) -> String {
    let mut text = format!("\n[[connect]]\nnetwork = \"{}\"\n", connect.network);
    if let Some(port) = connect.port {
        let _ = writeln!(text, "port = {port}");
    }
    let transport = format!("{:?}", connect.transport).to_lowercase();
    let _ = writeln!(text, "transport = \"{transport}\"");
    text + &service_text(connect.service.as_deref())
}

fn service_text(service: Option<&str>) -> String {
    service.map_or_else(String::new, |it| format!("service = {}\n", quoted(it)))
}

/// As TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn begin(folder: &Path) -> Result<(), ExceptError> {
    let manifest = "# What was stopped and is to pass from now on. Written by `clew packs except`: read each before it is signed.\n\
        name = \"exceptions\"\nversion = \"0.0.0\"\nclew = \"0.1\"\n\
        description = \"What the rules of other packs are not to stop here\"\nmode = \"detect\"\n\
        # Exclusions have to run before the rules that they are about.\nfirst = true\n";
    let rules = "# Exclusions: this rule does not look at this target, at this path.\n";
    let failed = |error| ExceptError::Folder(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder.join("rules")).map_err(failed)?;
    replace(&folder.join(RULES), rules)?;
    replace(&folder.join(FILE), manifest)
}

/// The manifest's text with another version; all else, comments too, is its author's.
fn raised(text: &str, version: &Version) -> Result<String, ExceptError> {
    let mut raised = false;
    let lines = text.lines().map(|line| {
        let key = line.split('=').next().unwrap_or_default().trim();
        match key == "version" && !std::mem::replace(&mut raised, true) {
            true => format!("version = \"{version}\"\n"),
            false => format!("{line}\n"),
        }
    });
    let text = lines.collect();
    match raised {
        true => Ok(text),
        false => Err(ExceptError::Folder(format!(
            "{FILE} has no line with its version; write it as version = \"...\""
        ))),
    }
}

fn text_of(pack: &Pack, name: &str) -> String {
    let bytes = pack.contents.get(name).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn replace(path: &Path, text: &str) -> Result<(), ExceptError> {
    let failed = |error| ExceptError::Folder(format!("{}: {error}", path.display()));
    let next = path.with_extension("new");
    std::fs::write(&next, text).map_err(failed)?;
    std::fs::rename(&next, path).map_err(failed)
}
