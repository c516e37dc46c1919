//! Where packs are, whose are believed, and as whom they are changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use clew_packs::PackName;
use clew_packs::signature::{Trust, Verifier};
use clew_packs::store::Store;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use semver::Version;

use crate::api::client::Client;
use crate::api::rules::ReloadDone;
use crate::config::default_state;
use crate::raw;

/// Which store, and whose packs are believed.
#[derive(Args, Default)]
pub(crate) struct Place {
    /// The configuration, for whom it trusts and its state directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The state directory that `clew run` uses [default: /var/lib/clew for root]
    #[arg(long = "state", value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// A public key that is believed beside those of the configuration: RW..., or a file
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,
    /// Packs without a signature are taken
    #[arg(long)]
    allow_unsigned: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Place {
    fn configuration(&self) -> Result<raw::Root> {
        let Some(path) = &self.config else {
            return Ok(raw::Root::default());
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        raw::parse(&text, &path.display().to_string())
    }

    /// The state directory.
    pub(super) fn state(&self) -> Result<PathBuf> {
        Ok(self.state_of(&self.configuration()?))
    }

    fn state_of(&self, configuration: &raw::Root) -> PathBuf {
        let named = self.state.clone();
        let named = named.or_else(|| configuration.state.directory.clone());
        named.unwrap_or_else(default_state)
    }

    /// Whose packs are believed.
    pub(super) fn trust(&self) -> Result<Trust> {
        self.trust_of(&self.configuration()?)
    }

    fn trust_of(&self, configuration: &raw::Root) -> Result<Trust> {
        let mut trust = trusted(&configuration.packs)?;
        for text in &self.trust {
            let file = Path::new(text);
            let text = match file.is_file() {
                true => std::fs::read_to_string(file)?,
                false => text.clone(),
            };
            trust.keys.push(Verifier::parse(&text)?);
        }
        trust.allow_unsigned |= self.allow_unsigned;
        Ok(trust)
    }

    /// The store, to be read and changed as whom it belongs to. What else is needed must have been read before: the
    /// owner may not be able to.
    pub(super) fn open(&self) -> Result<Opened> {
        let configuration = self.configuration()?;
        let (state, trust) = (
            self.state_of(&configuration),
            self.trust_of(&configuration)?,
        );
        let running = Client::of_running(&state)?;
        become_owner(&state)?;
        Ok(Opened {
            store: Store::of(&state),
            state,
            trust,
            running,
        })
    }
}

/// A store, where it is, and whose packs it takes.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) state: PathBuf,
    pub(super) trust: Trust,
    /// The clew that serves the state, if one does.
    running: Option<Client>,
}

impl Opened {
    /// Has the clew that runs with this state, if one does, put in force what is active now.
    ///
    /// # Errors
    ///
    /// It refuses; what it judges by is as before, and not what is active here.
    pub(super) fn tell_running(self) -> Result<()> {
        // One that has started since may have read what was active before.
        let running = match self.running {
            None => Client::of_running(&self.state)?,
            running => running,
        };
        let Some(client) = running else {
            return Ok(());
        };
        let done = client.patient().post::<ReloadDone>("/v1/reload", &());
        let done = done.context(
            "active, but the clew that runs refuses it, and judges as before (clew packs rollback takes it back)",
        )?;
        // What is for people goes where it cannot get between what is for programs.
        eprintln!(
            "in force in the clew that runs, after {:.0} ms",
            done.took_ms
        );
        Ok(())
    }
}

/// `[packs]`, checked.
pub(crate) fn trusted(table: &raw::Packs) -> Result<Trust> {
    Trust::parse(&table.trust, table.allow_unsigned).context("packs.trust")
}

/// Root becomes the owner of the state directory: what it writes there is that owner's at once, and an owner who is up to
/// no good (Clew's account, taken over) can lead it nowhere that he could not go himself.
fn become_owner(state: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::metadata(state) else {
        return Ok(());
    };
    if !Uid::effective().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    setgroups(&[]).context("cannot drop supplementary groups")?;
    setresgid(gid, gid, gid).context("cannot change group")?;
    setresuid(uid, uid, uid).context("cannot change user")
}

/// `NAME` or `NAME@VERSION`.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(super) name: PackName,
    pub(super) version: Option<Version>,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let version = version
            .map(|it| Version::parse(it).map_err(|error| format!("{it:?} is no version: {error}")));
        Ok(Self {
            name: name.parse()?,
            version: version.transpose()?,
        })
    }
}
