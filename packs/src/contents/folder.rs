//! Folders, read without following links, written so that a crash leaves nothing half.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{Contents, ContentsError, DEPTH, FILE_BYTES, FILES, disk};

impl Contents {
    /// Reads a folder. What begins with a dot (`.git`) is no part of a pack.
    ///
    /// # Errors
    ///
    /// It cannot be read, holds anything but files and folders, or breaks a bound.
    pub fn of_folder(root: &Path) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        let mut seen = 0;
        contents.gather(root, "", &mut seen)?;
        Ok(contents)
    }

    fn gather(
        &mut self,
        folder: &Path,
        prefix: &str,
        seen: &mut usize,
    ) -> Result<(), ContentsError> {
        if prefix.matches('/').count() > DEPTH {
            return Err(super::refused(prefix, "it is nested too deep"));
        }
        for entry in std::fs::read_dir(folder).map_err(disk(folder))? {
            let entry = entry.map_err(disk(folder))?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| super::refused(&name.to_string_lossy(), "it is not UTF-8"))?;
            if name.starts_with('.') {
                continue;
            }
            *seen += 1;
            if *seen > 2 * FILES {
                return Err(ContentsError::Large(format!(
                    "it has more than {} entries",
                    2 * FILES
                )));
            }
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            let kind = entry.file_type().map_err(disk(&path))?;
            if kind.is_dir() {
                self.gather(&path, &format!("{name}/"), seen)?;
            } else if kind.is_file() {
                self.insert(&name, file_bytes(&path, FILE_BYTES)?)?;
            } else {
                let kind = if kind.is_symlink() {
                    "a symbolic link"
                } else {
                    "a device, pipe or socket"
                };
                return Err(ContentsError::Kind { name, kind });
            }
        }
        Ok(())
    }

    /// Writes all files below `root`, which is made and must not be there; returns when they are on the
    /// disk. Files are 0600, folders 0700.
    ///
    /// # Errors
    ///
    /// The disk says no.
    pub fn write(&self, root: &Path) -> Result<(), ContentsError> {
        make(root)?;
        let mut folders = std::collections::BTreeSet::new();
        for (name, bytes) in self.iter() {
            for (at, _) in name.match_indices('/') {
                if folders.insert(root.join(&name[..at])) {
                    make(&root.join(&name[..at]))?;
                }
            }
            write_file(&root.join(name), bytes)?;
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        sync_folder(root)
    }
}

fn make(folder: &Path) -> Result<(), ContentsError> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .map_err(disk(folder))
}

/// A new file, on the disk when this returns.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ContentsError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(disk(path))?;
    file.write_all(bytes).map_err(disk(path))?;
    file.sync_all().map_err(disk(path))
}

/// Names in a folder are on the disk when this returns.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), ContentsError> {
    File::open(folder)
        .and_then(|it| it.sync_all())
        .map_err(disk(folder))
}

/// A regular file, no link, of at most `most` bytes.
pub(crate) fn file_bytes(path: &Path, most: usize) -> Result<Vec<u8>, ContentsError> {
    let mut options = OpenOptions::new();
    // A pipe would wait for its writer; whether it is one is known when it is open.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(disk(path))?;
    if !file.metadata().map_err(disk(path))?.is_file() {
        let name = path.display().to_string();
        return Err(ContentsError::Kind {
            name,
            kind: "no regular file",
        });
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(disk(path))?;
    match bytes.len() <= most {
        true => Ok(bytes),
        false => Err(ContentsError::Large(format!(
            "{} is larger than {most} bytes",
            path.display()
        ))),
    }
}
