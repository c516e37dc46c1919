//! What is done with installed packs.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clew_packs::contents::archive_bytes;
use clew_packs::signature::Trust;
use clew_packs::store::Store;
use clew_packs::{Difference, Pack, PackId, PackName};
use serde_json::json;

use super::keys::signature_of;
use super::place::{Place, Reference, tell_running};
use crate::inspection::host;

pub(super) fn install(archive: &Path, place: &Place) -> Result<ExitCode> {
    let bytes = archive_bytes(archive)?;
    let (signature, trust) = (signature_of(archive)?, place.trust()?);
    let installed = place
        .store()?
        .install(&bytes, signature.as_deref(), &trust)?;
    let key = installed.signed.as_ref().map(|it| it.key.as_str());
    if place.json {
        let warnings: Vec<_> = installed
            .warnings
            .iter()
            .map(|it| it.message.as_str())
            .collect();
        println!(
            "{}",
            json!({
                "pack": installed.id, "key": key, "tests": installed.tests, "warnings": warnings,
                "again": installed.again,
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    installed.warnings.iter().for_each(|it| println!("{it}"));
    let done = if installed.again {
        "was installed already"
    } else {
        "is installed"
    };
    let by = key.map_or_else(
        || "not signed".to_owned(),
        |key| format!("signed with {key}"),
    );
    println!(
        "{} {done}: {by}, {} tests passed; next: clew packs activate {}",
        installed.id, installed.tests, installed.id
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(place: &Place) -> Result<ExitCode> {
    let store = place.store()?;
    let (listings, active) = (store.list()?, store.active()?.packs);
    if place.json {
        let list = listings.iter().map(|it| {
            json!({ "pack": it.id, "active": it.active, "mode": it.mode, "signed": it.signed })
        });
        println!(
            "{}",
            json!({ "installed": list.collect::<Vec<_>>(), "active": active })
        );
        return Ok(ExitCode::SUCCESS);
    }
    if listings.is_empty() {
        println!("no packs are installed in {}", place.state()?.display());
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
        println!("{:9} {:40} {mode:7} {signed}", mark, it.id.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn activate(pack: &Reference, place: &Place) -> Result<ExitCode> {
    let trust = place.trust()?;
    let id = place
        .store()?
        .activate(&pack.name, pack.version.as_ref(), &trust, host()?)?;
    changed(&id, "is active", place)
}

pub(super) fn deactivate(name: &PackName, place: &Place) -> Result<ExitCode> {
    let id = place.store()?.deactivate(name)?;
    changed(&id, "is not active any more", place)
}

pub(super) fn rollback(place: &Place) -> Result<ExitCode> {
    let trust = place.trust()?;
    let active = place.store()?.rollback(&trust, host()?)?;
    match place.json {
        true => println!("{}", json!({ "active": active.packs })),
        false => {
            let ids: Vec<_> = active.packs.iter().map(ToString::to_string).collect();
            let ids = if ids.is_empty() {
                "nothing".to_owned()
            } else {
                ids.join(", ")
            };
            println!("active again: {ids}");
        }
    }
    tell_running(&place.state()?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remove(pack: &Reference, place: &Place) -> Result<ExitCode> {
    let Some(version) = &pack.version else {
        bail!("say which version: clew packs remove {}@VERSION", pack.name);
    };
    let id = place.store()?.remove(&pack.name, version)?;
    match place.json {
        true => println!("{}", json!({ "pack": id })),
        false => println!("{id} is removed"),
    }
    Ok(ExitCode::SUCCESS)
}

fn changed(id: &PackId, what: &str, place: &Place) -> Result<ExitCode> {
    match place.json {
        true => println!("{}", json!({ "pack": id })),
        false => println!("{id} {what}"),
    }
    tell_running(&place.state()?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn diff(before: &str, after: &str, place: &Place) -> Result<ExitCode> {
    let trust = place.trust()?;
    let (before, after) = (Side::open(before)?, Side::open(after)?);
    let store = match (&before, &after) {
        (Side::Pack(_), Side::Pack(_)) => None,
        _ => Some(place.store()?),
    };
    let (before, after) = (
        before.pack(store.as_ref(), &trust)?,
        after.pack(store.as_ref(), &trust)?,
    );
    let difference =
        Difference::of(&before, &after).or_else(|errors| bail!("{}", errors.join("\n")))?;
    match place.json {
        true => println!("{}", serde_json::to_string_pretty(&difference)?),
        false => print(&difference, &before, &after),
    }
    Ok(ExitCode::SUCCESS)
}

/// One of the two that are compared.
enum Side {
    /// A folder or an archive, opened as whoever has said so.
    Pack(Box<Pack>),
    Stored(Reference),
}

impl Side {
    fn open(text: &str) -> Result<Self> {
        let path = Path::new(text);
        match path.exists() {
            true => Ok(Self::Pack(Box::new(Pack::open(path)?))),
            false => Ok(Self::Stored(text.parse().map_err(|error| {
                anyhow::anyhow!(
                    "{text:?} is neither a folder, nor an archive, nor NAME@VERSION: {error}"
                )
            })?)),
        }
    }

    fn pack(self, store: Option<&Store>, trust: &Trust) -> Result<Pack> {
        match (self, store) {
            (Self::Pack(pack), _) => Ok(*pack),
            (Self::Stored(it), Some(store)) => {
                let id = store.find(&it.name, it.version.as_ref())?;
                Ok(store.pack(&id, trust)?)
            }
            (Self::Stored(it), None) => bail!("there is no store to find {} in", it.name),
        }
    }
}

fn print(difference: &Difference, before: &Pack, after: &Pack) {
    println!("{} -> {}", before.id(), after.id());
    if difference.is_empty() {
        println!("nothing is different");
    }
    for line in difference.settings.iter().chain(&difference.files) {
        println!("{line}");
    }
    let marked = |mark: char, id: u64, text: &str| {
        println!("{mark} rule {id}");
        text.lines().for_each(|line| println!("{mark}   {line}"));
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
