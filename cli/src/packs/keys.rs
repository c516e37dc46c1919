//! Keys and signatures.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clew_packs::Pack;
use clew_packs::contents::archive_bytes;
use clew_packs::signature::{self, SUFFIX, Signer, Verifier};
use serde_json::json;

use super::place::Place;
use crate::paper::say;

/// Longest text of a key, a signature or a password, bytes.
const TEXT_BYTES: u64 = 16 << 10;

pub(super) fn generate(
    secret: &Path,
    public: &Path,
    unencrypted: bool,
    password: Option<&Path>,
) -> Result<ExitCode> {
    for path in [secret, public] {
        ensure!(
            !path.exists(),
            "{} is there already; name another file",
            path.display()
        );
    }
    let password = match (unencrypted, password) {
        (true, _) => None,
        (false, Some(file)) => Some(first_line(file)?),
        (false, None) => Some(new_password()?),
    };
    let (secret_text, public_text) = signature::generate(password.as_deref())?;
    write_new(secret, &secret_text, 0o600)?;
    write_new(public, &public_text, 0o644)?;
    let key = Verifier::parse(&public_text)?;
    say!(
        "{} is the secret key; keep it away from the servers",
        secret.display()
    );
    say!(
        "{} is the public key {}:\n\n[packs]\ntrust = [\"{}\"]",
        public.display(),
        key.id(),
        key.text()
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn sign(
    archive: &Path,
    key: &Path,
    comment: Option<&str>,
    password: Option<&Path>,
) -> Result<ExitCode> {
    ensure!(
        archive.is_file(),
        "{} is no archive; make one: clew packs pack FOLDER",
        archive.display()
    );
    let id = Pack::open(archive)?.id();
    let bytes = archive_bytes(archive)?;
    let text = text(key)?;
    let password = match (Signer::is_locked(&text)?, password) {
        (false, _) => None,
        (true, Some(file)) => Some(first_line(file)?),
        (true, None) => Some(asked("Password: ")?),
    };
    let signer = Signer::open(&text, password.as_deref())?;
    let comment = comment.map_or_else(|| id.to_string(), str::to_owned);
    let path = beside(archive);
    std::fs::write(&path, signer.sign(&bytes, &comment)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    say!(
        "{}: {id}, signed with {}",
        path.display(),
        signer.verifier()?.id()
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify(archive: &Path, place: &Place) -> Result<ExitCode> {
    let bytes = archive_bytes(archive)?;
    let signed = place
        .trust()?
        .check(&bytes, signature_of(archive)?.as_deref());
    let signed = signed.with_context(|| archive.display().to_string())?;
    let id = Pack::open(archive)?.id();
    match (signed, place.json) {
        (signed, true) => {
            let (key, comment) = signed.map(|it| (it.key, it.comment)).unzip();
            say!("{}", json!({ "pack": id, "key": key, "comment": comment }));
        }
        (Some(signed), false) => say!("{id}: signed with {}, {:?}", signed.key, signed.comment),
        (None, false) => say!("{id}: not signed, which is allowed"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The signature beside an archive; none where there is none.
pub(super) fn signature_of(archive: &Path) -> Result<Option<String>> {
    let path = beside(archive);
    path.exists().then(|| text(&path)).transpose()
}

fn beside(archive: &Path) -> PathBuf {
    let mut path = archive.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

fn new_password() -> Result<String> {
    let password = asked("Password for the secret key: ")?;
    ensure!(
        !password.is_empty(),
        "the password is empty; say --unencrypted if there is to be none"
    );
    let again = asked("Once more: ")?;
    ensure!(password == again, "the passwords are not the same");
    Ok(password)
}

fn asked(prompt: &str) -> Result<String> {
    rpassword::prompt_password(prompt)
        .context("there is no terminal to ask for the password at; say --password-file FILE")
}

/// A password's file; `-` is standard input.
fn first_line(path: &Path) -> Result<String> {
    let text = match path == Path::new("-") {
        true => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(TEXT_BYTES)
                .read_to_string(&mut text)?;
            text
        }
        false => text(path)?,
    };
    let line = text.lines().next().unwrap_or_default();
    ensure!(!line.is_empty(), "the password is empty");
    Ok(line.to_owned())
}

fn text(path: &Path) -> Result<String> {
    let unreadable = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(unreadable)?;
    let mut text = String::new();
    file.take(TEXT_BYTES)
        .read_to_string(&mut text)
        .with_context(unreadable)?;
    Ok(text)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let file = options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    file.with_context(|| format!("cannot write {}", path.display()))
}
