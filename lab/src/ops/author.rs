//! Packs, written, signed and installed as their authors and operators do it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::site::{Case, Site};

/// What all packs here are called.
pub(super) const NAME: &str = "shop";

/// An author, at a folder with a key.
pub(super) struct Author {
    binary: PathBuf,
    folder: PathBuf,
    /// The public key.
    pub(super) key: String,
}

/// What is in a pack.
pub(super) struct Draft<'a> {
    pub(super) version: &'a str,
    pub(super) rules: &'a str,
    pub(super) tests: &'a str,
    /// Of `pack.toml`, after the rest.
    pub(super) more: &'a str,
}

impl Author {
    /// One for the case of this name.
    pub(super) fn new(site: &Site, case: &str) -> Result<Self> {
        let folder = site.work.join(format!("{case}-author"));
        std::fs::create_dir(&folder)?;
        let mut author = Self {
            binary: site.binary.clone(),
            folder,
            key: String::new(),
        };
        author.done(&["keygen", "--unencrypted"])?;
        author.done(&["new", NAME])?;
        let text = std::fs::read_to_string(author.folder.join("clew.pub"))?;
        text.lines()
            .nth(1)
            .context("no key")?
            .clone_into(&mut author.key);
        Ok(author)
    }

    /// `[packs]` that trusts this author.
    pub(super) fn trusted(&self) -> String {
        format!("[packs]\ntrust = [\"{}\"]\n", self.key)
    }

    /// Makes a signed archive of it.
    pub(super) fn pack(&self, draft: &Draft<'_>) -> Result<String> {
        let at = self.folder.join(NAME);
        let manifest = format!(
            "name = \"{NAME}\"\nversion = \"{}\"\nclew = \"0.1\"\ndescription = \"Tried by the lab\"\n\
             mode = \"block\"\n{}",
            draft.version, draft.more
        );
        std::fs::write(at.join("pack.toml"), manifest)?;
        std::fs::write(at.join("rules/first.conf"), draft.rules)?;
        std::fs::write(at.join("tests/first.yaml"), draft.tests)?;
        let archive = format!("{NAME}-{}.clewpack", draft.version);
        self.done(&["pack", NAME])?;
        self.done(&["sign", &archive])?;
        Ok(archive)
    }

    pub(super) fn install(&self, case: &Case, draft: &Draft<'_>) -> Result<()> {
        let archive = self.pack(draft)?;
        self.there(case, &["install", &archive])
    }

    /// Puts a version in force, for the next reload.
    pub(super) fn activate(&self, case: &Case, version: &str) -> Result<()> {
        self.there(case, &["activate", &format!("{NAME}@{version}")])
    }

    /// What an operator may not do: a version that was never checked or tested is put among the installed ones, and
    /// in force. `active.json` is as it was before when the returned text is written to it.
    pub(super) fn smuggle(&self, case: &Case, draft: &Draft<'_>) -> Result<(PathBuf, String)> {
        let archive = self.folder.join(self.pack(draft)?);
        let store = case.state.join("packs");
        let place = store.join(NAME).join(draft.version);
        let files = place.join("files");
        std::fs::create_dir_all(&files)?;
        let folder = self.folder.join(NAME);
        for part in ["rules", "tests"] {
            std::fs::create_dir(files.join(part))?;
        }
        for file in ["pack.toml", "rules/first.conf", "tests/first.yaml"] {
            copy(&folder.join(file), &files.join(file))?;
        }
        copy(&archive, &place.join("archive.clewpack"))?;
        let mut signature = archive.into_os_string();
        signature.push(".minisig");
        copy(
            &PathBuf::from(signature),
            &place.join("archive.clewpack.minisig"),
        )?;
        let active = store.join("active.json");
        let before = std::fs::read_to_string(&active)?;
        let packs = serde_json::json!([{ "name": NAME, "version": draft.version }]);
        std::fs::write(&active, serde_json::json!({ "packs": packs }).to_string())?;
        Ok((active, before))
    }

    /// What `clew packs install` says, where it is to refuse.
    pub(super) fn refused(&self, case: &Case, draft: &Draft<'_>) -> Result<String> {
        let archive = self.pack(draft)?;
        let output = self.run(&["install", &archive, "--config", &config(case)])?;
        ensure!(!output.status.success(), "{archive} was installed");
        Ok(said(&output))
    }

    fn there(&self, case: &Case, words: &[&str]) -> Result<()> {
        self.done(&[words, &["--config", &config(case)]].concat())
    }

    fn done(&self, words: &[&str]) -> Result<()> {
        let output = self.run(words)?;
        let said = said(&output);
        ensure!(
            output.status.success(),
            "clew packs {}: {said}",
            words.join(" ")
        );
        Ok(())
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.arg("packs").args(words).current_dir(&self.folder);
        Ok(command.output()?)
    }
}

/// Copies a file, for everybody to read.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    Ok(std::fs::set_permissions(to, mode)?)
}

fn config(case: &Case) -> String {
    case.configuration.display().to_string()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// A rule that answers `/a` with `status`.
pub(super) fn rule(status: u16) -> String {
    format!(
        "SecRule REQUEST_FILENAME \"@beginsWith /a\" \
         \"id:9100001,phase:1,deny,status:{status},t:none,msg:'Asked for what is refused'\"\n"
    )
}

/// Its tests; `hit` is the path of which it is expected.
pub(super) fn tests(hit: &str) -> String {
    let test = |id: u8, uri: &str, expects: &str| {
        format!(
            "  - test_id: {id}\n    stages:\n      - input:\n          uri: {uri}\n          headers:\n            \
             Host: localhost\n        output:\n          log:\n            {expects}: [9100001]\n"
        )
    };
    format!(
        "---\nrule_id: 9100001\ntests:\n{}{}",
        test(1, hit, "expect_ids"),
        test(2, "/b", "no_expect_ids")
    )
}
