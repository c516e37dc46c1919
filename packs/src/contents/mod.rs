//! The files of a pack, in memory: read from a folder or an archive, written to either.
//!
//! A pack may come from anybody: nothing is believed that an archive says of itself, and all that it
//! can cost is bounded before it is paid.

mod archive;
pub(crate) mod folder;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Most files of a pack.
pub const FILES: usize = 4096;
/// Most bytes of all files of a pack: the whole of CRS 4 is 2 MB.
pub const TOTAL_BYTES: usize = 64 << 20;
/// Most bytes of one file, as of a rule file.
pub const FILE_BYTES: usize = 16 << 20;
/// Most bytes of an archive.
pub const ARCHIVE_BYTES: usize = 16 << 20;
/// So many times larger than it is may an archive become. Rules compress to a fifth or a tenth.
pub const EXPANSION: usize = 100;
/// Longest name, bytes: what a tar header holds without extensions.
pub const NAME_BYTES: usize = 255;
/// Most folders above a file.
pub const DEPTH: usize = 16;

/// Why the files of a pack cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// The disk says no.
    #[error("{}: {error}", path.display())]
    Disk {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is neither a folder nor an archive.
    #[error("this is no pack: {0}")]
    Broken(String),
    /// A name that no file of a pack may have.
    #[error("the name {name:?} is refused: {reason}")]
    Name {
        /// As it was given, at most 100 characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that is neither a file nor a folder.
    #[error("{name:?} is {kind}; a pack holds files and folders, nothing else")]
    Kind {
        /// Which.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than packs may be.
    #[error("{0}; a pack that needs more is to be split")]
    Large(String),
}

/// The files of a pack, by name. Names are relative, of plain components, with `/` between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    files: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Contents {
    /// Reads a folder, or an archive.
    ///
    /// # Errors
    ///
    /// The first thing that a pack may not be or hold.
    pub fn read(path: &Path) -> Result<Self, ContentsError> {
        match path.is_dir() {
            true => Self::of_folder(path),
            false => Self::of_archive(&archive_bytes(path)?),
        }
    }

    /// All files, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// One file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Adds a file, within the bounds.
    pub(crate) fn insert(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), ContentsError> {
        checked_name(name)?;
        if self.files.len() >= FILES {
            return Err(ContentsError::Large(format!(
                "it has more than {FILES} files"
            )));
        }
        self.bytes = self.bytes.saturating_add(bytes.len());
        if bytes.len() > FILE_BYTES || self.bytes > TOTAL_BYTES {
            return Err(ContentsError::Large(format!(
                "it is larger than {FILE_BYTES} bytes in one file, or {TOTAL_BYTES} in all"
            )));
        }
        if self.files.insert(name.to_owned(), bytes).is_some() || self.blocks(name) {
            return Err(refused(
                name,
                "it is there twice, or as a file and as a folder",
            ));
        }
        Ok(())
    }

    /// Whether `name` is a folder of another file, or lies in one.
    fn blocks(&self, name: &str) -> bool {
        let parents = name.match_indices('/').map(|(at, _)| &name[..at]);
        let below = format!("{name}/");
        let after = self.files.range(below.clone()..).next();
        after.is_some_and(|(other, _)| other.starts_with(&below))
            || parents.into_iter().any(|it| self.files.contains_key(it))
    }
}

/// Reads an archive's bytes, at most [`ARCHIVE_BYTES`].
///
/// # Errors
///
/// It cannot be read, or is larger.
pub fn archive_bytes(path: &Path) -> Result<Vec<u8>, ContentsError> {
    folder::file_bytes(path, ARCHIVE_BYTES)
}

/// Whether a file of a pack may be called so.
fn checked_name(name: &str) -> Result<(), ContentsError> {
    let reason = if name.is_empty() || name.len() > NAME_BYTES {
        "it is empty, or longer than 255 bytes"
    } else if name.starts_with('/') {
        "it is absolute"
    } else if name.contains('\\') || name.contains(char::is_control) {
        "a backslash or a control character is in it"
    } else if name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.'))
    {
        "a part of it is empty, or begins with a dot"
    } else if name.split('/').count() > DEPTH {
        "it is nested too deep"
    } else {
        return Ok(());
    };
    Err(refused(name, reason))
}

fn refused(name: &str, reason: &'static str) -> ContentsError {
    let name = name.chars().take(100).collect();
    ContentsError::Name { name, reason }
}

pub(crate) fn disk(path: &Path) -> impl FnOnce(io::Error) -> ContentsError {
    let path = path.to_owned();
    move |error| ContentsError::Disk { path, error }
}

#[cfg(test)]
mod tests;
