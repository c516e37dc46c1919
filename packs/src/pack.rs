//! A pack, opened: its files, its manifest, and where its files lie while it is looked at.

use std::path::{Path, PathBuf};

use crate::contents::{Contents, ContentsError};
use crate::{FILE, Manifest, ManifestError, PackId};

/// Why a pack cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its files.
    #[error("{}: {error}", path.display())]
    Contents {
        /// The pack.
        path: PathBuf,
        /// What is wrong with them.
        error: ContentsError,
    },
    /// It has no `pack.toml` of text.
    #[error("{}: it has no {FILE} of UTF-8; `clew packs new` makes one", path.display())]
    NoManifest {
        /// The pack.
        path: PathBuf,
    },
    /// What its `pack.toml` says.
    #[error("{}: {}", path.display(), lines(errors))]
    Manifest {
        /// The pack.
        path: PathBuf,
        /// All that is wrong with it.
        errors: Vec<ManifestError>,
    },
}

/// A pack.
#[derive(Debug)]
pub struct Pack {
    /// What its `pack.toml` says.
    pub manifest: Manifest,
    /// Its files.
    pub contents: Contents,
    /// Where its files lie: rules name others by their place.
    root: PathBuf,
    /// Of an archive: the folder that goes with this.
    _unpacked: Option<tempfile::TempDir>,
    /// `root` is nobody's choice, and not to be shown.
    own_root: bool,
}

impl Pack {
    /// Opens a folder, or an archive, which is unpacked for as long as this lives.
    ///
    /// # Errors
    ///
    /// Its files or its manifest are not those of a pack.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let failed = |error| PackError::Contents {
            path: path.to_owned(),
            error,
        };
        let contents = Contents::read(path).map_err(failed)?;
        if path.is_dir() {
            return Self::assemble(path, contents, path.to_owned(), None);
        }
        Self::of_contents(path, contents)
    }

    /// A pack of files in memory, which are written to a folder for as long as this lives. `path` is what
    /// errors call it.
    ///
    /// # Errors
    ///
    /// Its manifest is not that of a pack, or it cannot be unpacked.
    pub fn of_contents(path: &Path, contents: Contents) -> Result<Self, PackError> {
        let failed = |error| PackError::Contents {
            path: path.to_owned(),
            error,
        };
        let unpacked = tempfile::Builder::new().prefix("clew-pack-").tempdir();
        let unpacked = unpacked
            .map_err(crate::contents::disk(path))
            .map_err(failed)?;
        let root = unpacked.path().join("files");
        contents.write(&root).map_err(failed)?;
        Self::assemble(path, contents, root, Some(unpacked))
    }

    /// A pack whose files lie at `root` already.
    pub(crate) fn at(root: PathBuf, contents: Contents) -> Result<Self, PackError> {
        let path = root.clone();
        let pack = Self::assemble(&path, contents, root, None)?;
        Ok(Self {
            own_root: true,
            ..pack
        })
    }

    fn assemble(
        path: &Path,
        contents: Contents,
        root: PathBuf,
        unpacked: Option<tempfile::TempDir>,
    ) -> Result<Self, PackError> {
        let path = path.to_owned();
        let text = contents.get(FILE).map(std::str::from_utf8);
        let Some(Ok(text)) = text else {
            return Err(PackError::NoManifest { path });
        };
        let manifest =
            Manifest::parse(text).map_err(|errors| PackError::Manifest { path, errors })?;
        Ok(Self {
            manifest,
            contents,
            root,
            own_root: unpacked.is_some(),
            _unpacked: unpacked,
        })
    }

    /// Name and version.
    pub fn id(&self) -> PackId {
        self.manifest.id()
    }

    /// Where its files lie.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// An error's text with names as the pack has them, where its author does not know the folder they are in.
    pub(crate) fn shown(&self, text: &str) -> String {
        match self.own_root {
            true => text.replace(&format!("{}/", self.root.display()), ""),
            false => text.to_owned(),
        }
    }
}

fn lines(errors: &[ManifestError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
