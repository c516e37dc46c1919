//! Installed packs, and which of them are in force: the folder `packs` of the state directory.
//!
//! ```text
//! packs/NAME/VERSION/archive.clewpack            as it came
//! packs/NAME/VERSION/archive.clewpack.minisig    likewise, if it was signed
//! packs/NAME/VERSION/files/                      unpacked
//! packs/active.json                              what is in force, and what was before
//! ```
//!
//! Each change is one rename of what is on the disk already: whoever is killed leaves the state from before, or the one
//! after. What lies under other names (`.new`, `.old`) is of a change that was not finished, and goes with the next.

mod active;
mod disk;
mod error;

use std::path::{Path, PathBuf};

use semver::Version;

pub use active::Active;
pub use error::StoreError;

use crate::compiled::{Compiled, Host};
use crate::contents::folder::{file_bytes, write_file};
use crate::contents::{ARCHIVE_BYTES, Contents};
use crate::signature::{SUFFIX, Signed, TEXT_BYTES, Trust};
use crate::{Finding, Manifest, Mode, Pack, PackId, PackName, Severity, Trial, check};

const ARCHIVE: &str = "archive.clewpack";
const FILES: &str = "files";

/// An installed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Name and version.
    pub id: PackId,
    /// Whether it is in force.
    pub active: bool,
    /// Whether it blocks; none: its manifest cannot be read (any more).
    pub mode: Option<Mode>,
    /// Whether there is a signature beside it.
    pub signed: bool,
}

/// What came of an installation.
#[derive(Debug)]
pub struct Installed {
    /// Name and version.
    pub id: PackId,
    /// Who has signed it; none: nobody.
    pub signed: Option<Signed>,
    /// What is suspicious about it.
    pub warnings: Vec<Finding>,
    /// How many of its tests were run, and passed.
    pub tests: usize,
    /// The very same was there before.
    pub again: bool,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store of this state directory, which is made when something is installed.
    pub fn of(state: &Path) -> Self {
        Self {
            root: state.join("packs"),
        }
    }

    /// Installs an archive: its signature is verified, it is checked, its tests are run.
    ///
    /// # Errors
    ///
    /// Any of these fail, or the version is there with other files.
    pub fn install(
        &self,
        archive: &[u8],
        signature: Option<&str>,
        trust: &Trust,
    ) -> Result<Installed, StoreError> {
        let contents = Contents::of_archive(archive)?;
        let signed = trust.check(archive, signature);
        let signed = signed.map_err(|error| StoreError::Signature {
            pack: shown(&contents),
            error,
        })?;
        let change = self.change()?;
        let fresh = change.fresh()?;
        contents.write(&fresh.join(FILES))?;
        write_file(&fresh.join(ARCHIVE), archive)?;
        if let Some(signature) = signature {
            write_file(
                &fresh.join(format!("{ARCHIVE}{SUFFIX}")),
                signature.as_bytes(),
            )?;
        }
        let pack = Pack::at(fresh.join(FILES), contents)?;
        let (warnings, tests) = sound(&pack)?;
        let id = pack.id();
        let again = self.folder(&id).exists();
        let same = || {
            file_bytes(&self.folder(&id).join(ARCHIVE), ARCHIVE_BYTES).is_ok_and(|it| it == archive)
        };
        if again && !same() {
            let text = format!(
                "{id} is installed with other files; raise its version, or remove it first"
            );
            return Err(StoreError::Refused(text));
        }
        if !again {
            change.place(&fresh, &self.folder(&id))?;
        }
        Ok(Installed {
            id,
            signed,
            warnings,
            tests,
            again,
        })
    }

    /// All that is installed, by name and version.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listing>, StoreError> {
        let active = self.active()?;
        let ids = self.installed()?.into_iter();
        Ok(ids.map(|id| self.listing(id, &active)).collect())
    }

    fn listing(&self, id: PackId, active: &Active) -> Listing {
        let folder = self.folder(&id);
        let text = std::fs::read_to_string(folder.join(FILES).join(crate::FILE));
        let manifest = text.ok().and_then(|it| Manifest::parse(&it).ok());
        Listing {
            active: active.packs.contains(&id),
            mode: manifest.map(|it| it.mode),
            signed: folder.join(format!("{ARCHIVE}{SUFFIX}")).exists(),
            id,
        }
    }

    /// What is in force, in order.
    ///
    /// # Errors
    ///
    /// `active.json` cannot be read.
    pub fn active(&self) -> Result<Active, StoreError> {
        Active::read(&self.root)
    }

    /// The packs in force, opened and verified anew, in order.
    ///
    /// # Errors
    ///
    /// One cannot be opened, is not what was signed, or is signed by nobody who counts.
    pub fn active_packs(&self, trust: &Trust) -> Result<Vec<Pack>, StoreError> {
        let active = self.active()?.packs;
        active.iter().map(|id| self.pack(id, trust)).collect()
    }

    /// An installed pack, opened and verified anew.
    ///
    /// # Errors
    ///
    /// As for [`active_packs`](Self::active_packs).
    pub fn pack(&self, id: &PackId, trust: &Trust) -> Result<Pack, StoreError> {
        let folder = self.folder(id);
        if !folder.is_dir() {
            return Err(StoreError::Refused(format!(
                "{id} is not installed; see clew packs list"
            )));
        }
        let archive = file_bytes(&folder.join(ARCHIVE), ARCHIVE_BYTES)?;
        let signature = signature_text(&folder)?;
        let signed = trust.check(&archive, signature.as_deref());
        signed.map_err(|error| StoreError::Signature {
            pack: id.to_string(),
            error,
        })?;
        let contents = Contents::of_folder(&folder.join(FILES))?;
        let pack = Pack::at(folder.join(FILES), contents)?;
        if pack.contents != Contents::of_archive(&archive)? || pack.id() != *id {
            let text = format!(
                "{id}: its files are not those of its archive; remove it and install it again"
            );
            return Err(StoreError::Refused(text));
        }
        Ok(pack)
    }

    /// Puts a pack in force, in the place of another version of it, else behind the others. Without a version: the
    /// highest that is installed. It is tried first whether all that is in force then can be.
    ///
    /// # Errors
    ///
    /// It is not installed, or they cannot be in force together.
    pub fn activate(
        &self,
        name: &PackName,
        version: Option<&Version>,
        trust: &Trust,
        host: Host,
    ) -> Result<PackId, StoreError> {
        let change = self.change()?;
        let id = self.find(name, version)?;
        let mut packs = self.active()?.packs;
        match packs.iter_mut().find(|it| it.name == *name) {
            Some(place) => *place = id.clone(),
            None => packs.push(id.clone()),
        }
        self.switch(&change, packs, trust, host)?;
        Ok(id)
    }

    /// Takes a pack out of force.
    ///
    /// # Errors
    ///
    /// It is not in force.
    pub fn deactivate(&self, name: &PackName) -> Result<PackId, StoreError> {
        let change = self.change()?;
        let active = self.active()?;
        let Some(id) = active.packs.iter().find(|it| it.name == *name).cloned() else {
            return Err(StoreError::Refused(format!("{name} is not active")));
        };
        let mut packs = active.packs.clone();
        packs.retain(|it| it.name != *name);
        change.activate(&active.with(packs))?;
        Ok(id)
    }

    /// Goes back to what was in force before the last change, and further with each call.
    ///
    /// # Errors
    ///
    /// There is nothing before, or a pack of then is not installed any more.
    pub fn rollback(&self, trust: &Trust, host: Host) -> Result<Active, StoreError> {
        let change = self.change()?;
        let Some(before) = self.active()?.before() else {
            return Err(StoreError::Refused(
                "there is nothing before what is active".to_owned(),
            ));
        };
        self.tried(&before.packs, trust, host)?;
        change.activate(&before)?;
        Ok(before)
    }

    /// Removes an installed version.
    ///
    /// # Errors
    ///
    /// It is not installed, or in force.
    pub fn remove(&self, name: &PackName, version: &Version) -> Result<PackId, StoreError> {
        let change = self.change()?;
        let id = self.find(name, Some(version))?;
        if self.active()?.packs.contains(&id) {
            return Err(StoreError::Refused(format!(
                "{id} is active; deactivate it, or activate another version"
            )));
        }
        change.remove(&self.folder(&id))?;
        Ok(id)
    }

    /// The installed pack of this name and version; without a version, the highest.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(&self, name: &PackName, version: Option<&Version>) -> Result<PackId, StoreError> {
        let of_name = self.installed()?.into_iter().filter(|it| it.name == *name);
        let mut fitting = of_name.filter(|it| version.is_none_or(|version| it.version == *version));
        let newest = fitting.next_back();
        newest.ok_or_else(|| {
            let version = version.map(|it| format!("@{it}")).unwrap_or_default();
            StoreError::Refused(format!(
                "{name}{version} is not installed; see clew packs list"
            ))
        })
    }

    fn switch(
        &self,
        change: &disk::Change,
        packs: Vec<PackId>,
        trust: &Trust,
        host: Host,
    ) -> Result<(), StoreError> {
        let active = self.active()?;
        self.tried(&packs, trust, host)?;
        if active.packs != packs {
            change.activate(&active.with(packs))?;
        }
        Ok(())
    }

    fn tried(&self, ids: &[PackId], trust: &Trust, host: Host) -> Result<(), StoreError> {
        let packs = ids.iter().map(|id| self.pack(id, trust));
        let packs = packs.collect::<Result<Vec<_>, _>>()?;
        let compiled = Compiled::of(&packs, host);
        compiled.map_err(|errors| StoreError::Composition { errors })?;
        Ok(())
    }

    fn folder(&self, id: &PackId) -> PathBuf {
        self.root
            .join(id.name.as_str())
            .join(id.version.to_string())
    }
}

/// Warnings, and how many tests have passed.
fn sound(pack: &Pack) -> Result<(Vec<Finding>, usize), StoreError> {
    let findings = check(pack);
    let (errors, warnings): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|it| it.severity == Severity::Error);
    let unsound = |findings| StoreError::Unsound {
        pack: pack.id(),
        findings,
    };
    if !errors.is_empty() {
        return Err(unsound(errors.iter().map(ToString::to_string).collect()));
    }
    let trial = Trial::of(pack).map_err(&unsound)?;
    let failed = |it: &crate::Failure| format!("test {} failed: {}", it.test, it.reason);
    match trial.failures.is_empty() {
        true => Ok((warnings, trial.passed)),
        false => Err(unsound(trial.failures.iter().map(failed).collect())),
    }
}

fn signature_text(folder: &Path) -> Result<Option<String>, StoreError> {
    let path = folder.join(format!("{ARCHIVE}{SUFFIX}"));
    if !path.exists() {
        return Ok(None);
    }
    let text = String::from_utf8(file_bytes(&path, TEXT_BYTES)?);
    let text = text.map_err(|_| StoreError::Refused(format!("{} is no text", path.display())))?;
    Ok(Some(text))
}

/// What a pack calls itself, before that is believed.
fn shown(contents: &Contents) -> String {
    let text = contents
        .get(crate::FILE)
        .and_then(|it| std::str::from_utf8(it).ok());
    let manifest = text.and_then(|it| Manifest::parse(it).ok());
    manifest.map_or_else(|| "the pack".to_owned(), |it| it.id().to_string())
}

#[cfg(test)]
mod tests;
