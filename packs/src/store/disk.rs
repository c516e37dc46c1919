//! Changes to the folder, one at a time, each whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use semver::Version;

use super::{Active, Store, StoreError, active};
use crate::contents::disk;
use crate::contents::folder::{sync_folder, write_file};
use crate::{PackId, PackName};

/// What is being written.
const NEW: &str = ".new";
/// What is being deleted.
const OLD: &str = ".old";
/// The next `active.json`.
const NEXT: &str = ".active.new";

/// The right to change the store: nobody else has it meanwhile.
#[derive(Debug)]
pub(super) struct Change {
    root: PathBuf,
    /// Locked until this is dropped, or its process ends.
    _lock: File,
}

impl Store {
    /// Waits for whoever changes the store, and clears away what somebody has left half done.
    pub(super) fn change(&self) -> Result<Change, StoreError> {
        let root = self.root.clone();
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(disk(&root))?;
        let path = root.join(".lock");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&path).map_err(disk(&path))?;
        lock.lock().map_err(disk(&path))?;
        for name in [NEW, OLD] {
            let left = root.join(name);
            if left.exists() {
                std::fs::remove_dir_all(&left).map_err(disk(&left))?;
            }
        }
        let next = root.join(NEXT);
        if next.exists() {
            std::fs::remove_file(&next).map_err(disk(&next))?;
        }
        Ok(Change { root, _lock: lock })
    }

    /// What is installed, by name and version. Folders that are none of the store's are passed over.
    pub(super) fn installed(&self) -> Result<Vec<PackId>, StoreError> {
        let mut ids = Vec::new();
        for name in folders(&self.root)? {
            let Ok(pack) = name.parse::<PackName>() else {
                continue;
            };
            for version in folders(&self.root.join(&name))? {
                if let Ok(version) = Version::parse(&version) {
                    let name = pack.clone();
                    ids.push(PackId { name, version });
                }
            }
        }
        ids.sort();
        Ok(ids)
    }
}

impl Change {
    /// An empty folder to build something in.
    pub(super) fn fresh(&self) -> Result<PathBuf, StoreError> {
        let path = self.root.join(NEW);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(disk(&path))?;
        Ok(path)
    }

    /// Moves what was built to where it belongs, `NAME/VERSION`.
    pub(super) fn place(&self, fresh: &Path, to: &Path) -> Result<(), StoreError> {
        sync_folder(fresh)?;
        let parent = to.parent().unwrap_or(&self.root);
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(disk(parent))?;
        std::fs::rename(fresh, to).map_err(disk(to))?;
        sync_folder(parent)?;
        Ok(sync_folder(&self.root)?)
    }

    /// Writes down what is in force.
    pub(super) fn activate(&self, active: &Active) -> Result<(), StoreError> {
        let (next, path) = (self.root.join(NEXT), self.root.join(active::FILE));
        let text = serde_json::to_vec_pretty(active)
            .map_err(|error| StoreError::Refused(error.to_string()))?;
        write_file(&next, &text)?;
        std::fs::rename(&next, &path).map_err(disk(&path))?;
        Ok(sync_folder(&self.root)?)
    }

    /// Removes a folder: first out of sight, then from the disk.
    pub(super) fn remove(&self, folder: &Path) -> Result<(), StoreError> {
        let old = self.root.join(OLD);
        std::fs::rename(folder, &old).map_err(disk(folder))?;
        let parent = folder.parent().unwrap_or(&self.root);
        sync_folder(parent)?;
        sync_folder(&self.root)?;
        std::fs::remove_dir_all(&old).map_err(disk(&old))?;
        // Other versions may be in it.
        let _ = std::fs::remove_dir(parent);
        Ok(())
    }
}

/// Nothing that was not finished stays, when its maker lives to see it.
impl Drop for Change {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.root.join(NEW));
    }
}

/// Names of the folders in a folder; none where it is not there.
fn folders(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(disk(path)(error).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(disk(path))?;
        let is_folder = entry.file_type().map_err(disk(path))?.is_dir();
        names.extend(entry.file_name().into_string().ok().filter(|_| is_folder));
    }
    Ok(names)
}
