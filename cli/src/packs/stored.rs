//! What is done with installed packs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail, ensure};
use clew_packs::contents::{Contents, archive_bytes};
use clew_packs::{Difference, Pack, PackId, PackName};
use serde_json::json;

use super::keys::signature_of;
use super::place::{Opened, Place, Reference};
use crate::inspection::host;
use crate::paper::say;

pub(super) fn install(archive: &Path, place: &Place) -> Result<ExitCode> {
    ensure!(
        !archive.is_dir(),
        "{} is a folder; make an archive of it first: clew packs pack",
        archive.display()
    );
    let (bytes, signature) = (archive_bytes(archive)?, signature_of(archive)?);
    let opened = place.open()?;
    let (store, trust) = (&opened.store, &opened.trust);
    let installed = store.install(&bytes, signature.as_deref(), trust)?;
    let key = installed.signed.as_ref().map(|it| it.key.as_str());
    if place.json {
        let warnings: Vec<_> = installed
            .warnings
            .iter()
            .map(|it| it.message.as_str())
            .collect();
        say!(
            "{}",
            json!({
                "pack": installed.id, "key": key, "tests": installed.tests, "warnings": warnings,
                "again": installed.again,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    installed.warnings.iter().for_each(|it| say!("{it}"));
    let done = if installed.again {
        "was installed already"
    } else {
        "is installed"
    };
    let by = key.map_or_else(
        || "not signed".to_owned(),
        |key| format!("signed with {key}"),
    );
    say!(
        "{} {done}: {by}, {} tests passed; next: clew packs activate {}",
        installed.id,
        installed.tests,
        installed.id
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(place: &Place) -> Result<ExitCode> {
    let Opened { store, state, .. } = place.open()?;
    let (listings, active) = (store.list()?, store.active()?.packs);
    if place.json {
        let list = listings.iter().map(|it| {
            json!({ "pack": it.id, "active": it.active, "mode": it.mode, "signed": it.signed })
        });
        say!(
            "{}",
            json!({ "installed": list.collect::<Vec<_>>(), "active": active })
        );
        return Ok(ExitCode::SUCCESS);
    }
    if listings.is_empty() {
        say!("no packs are installed in {}", state.display());
    }
    for it in &listings {
        let mark = match active.iter().position(|id| *id == it.id) {
            Some(at) => format!("active {}", at + 1),
            None => String::new(),
        };
        let mode = it
            .mode
            .map_or_else(|| "broken".to_owned(), |mode| mode.to_string());
        let signed = if it.signed { "signed" } else { "unsigned" };
        say!("{:9} {:40} {mode:7} {signed}", mark, it.id.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn activate(pack: &Reference, place: &Place) -> Result<ExitCode> {
    let opened = place.open()?;
    let (store, trust) = (&opened.store, &opened.trust);
    let id = store.activate(&pack.name, pack.version.as_ref(), trust, host()?)?;
    changed(&id, "is active", opened, place.json)
}

pub(super) fn deactivate(name: &PackName, place: &Place) -> Result<ExitCode> {
    let opened = place.open()?;
    let id = opened.store.deactivate(name)?;
    changed(&id, "is not active any more", opened, place.json)
}

pub(super) fn rollback(place: &Place) -> Result<ExitCode> {
    let opened = place.open()?;
    let active = opened.store.rollback(&opened.trust, host()?)?;
    match place.json {
        true => say!("{}", json!({ "active": active.packs })),
        false => {
            let ids: Vec<_> = active.packs.iter().map(ToString::to_string).collect();
            let ids = if ids.is_empty() {
                "nothing".to_owned()
            } else {
                ids.join(", ")
            };
            say!("active again: {ids}");
        }
    }
    opened.tell_running()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(pack: &Reference, place: &Place) -> Result<ExitCode> {
    let Some(version) = &pack.version else {
        bail!("say which version: clew packs remove {}@VERSION", pack.name);
    };
    let id = place.open()?.store.remove(&pack.name, version)?;
    match place.json {
        true => say!("{}", json!({ "pack": id })),
        false => say!("{id} is removed"),
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(id: &PackId, what: &str, opened: Opened, json: bool) -> Result<ExitCode> {
    match json {
        true => say!("{}", json!({ "pack": id })),
        false => say!("{id} {what}"),
    }
    opened.tell_running()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn diff(before: &str, after: &str, place: &Place) -> Result<ExitCode> {
    let (before, after) = (Side::open(before)?, Side::open(after)?);
    let opened = match (&before, &after) {
        (Side::Files(..), Side::Files(..)) => None,
        _ => Some(place.open()?),
    };
    let before = before.pack(opened.as_ref())?;
    let after = after.pack(opened.as_ref())?;
    let difference =
        Difference::of(&before, &after).or_else(|errors| bail!("{}", errors.join("\n")))?;
    match place.json {
        true => say!("{}", serde_json::to_string_pretty(&difference)?),
        false => print(&difference, &before, &after),
    }
    Ok(ExitCode::SUCCESS)
}

/// One of the two that are compared.
enum Side {
    /// A folder or an archive, read as whoever has named it; it is unpacked as the store's owner.
    Files(PathBuf, Contents),
    Stored(Reference),
}

impl Side {
    fn open(text: &str) -> Result<Self> {
        let path = PathBuf::from(text);
        if path.exists() {
            let contents = Contents::read(&path)?;
            return Ok(Self::Files(path, contents));
        }
        let reference = text.parse().map_err(|error| {
            anyhow!("{text:?} is neither a folder, nor an archive, nor NAME@VERSION: {error}")
        });
        reference.map(Self::Stored)
    }

    fn pack(self, opened: Option<&Opened>) -> Result<Pack> {
        match (self, opened) {
            (Self::Files(path, contents), _) => Ok(Pack::of_contents(&path, contents)?),
            (Self::Stored(it), Some(opened)) => {
                let id = opened.store.find(&it.name, it.version.as_ref())?;
                Ok(opened.store.pack(&id, &opened.trust)?)
            }
            (Self::Stored(it), None) => bail!("there is no store to find {} in", it.name),
        }
    }
}

fn print(difference: &Difference, before: &Pack, after: &Pack) {
    say!("{} -> {}", before.id(), after.id());
    if difference.is_empty() {
        say!("nothing is different");
    }
    for line in difference.settings.iter().chain(&difference.files) {
        say!("{line}");
    }
    let marked = |mark: char, id: u64, text: &str| {
        say!("{mark} rule {id}");
        text.lines().for_each(|line| say!("{mark}   {line}"));
    };
    difference
        .removed
        .iter()
        .for_each(|it| marked('-', it.id, &it.text));
    difference
        .added
        .iter()
        .for_each(|it| marked('+', it.id, &it.text));
    for it in &difference.changed {
        marked('-', it.id, &it.before);
        marked('+', it.id, &it.after);
    }
}
