//! Where each sink is.

use std::io;
use std::path::{Path, PathBuf};

/// The place of one sink.
#[derive(Debug)]
pub(super) struct Cursor {
    name: String,
    /// Number of the record that it gets next.
    pub(super) next: u64,
    /// The segment that this is in, as far as is known, and where.
    pub(super) segment: u64,
    pub(super) offset: u64,
}

impl Cursor {
    /// Writes it down, in place of what was there. It takes effect all at once, or not at all.
    ///
    /// # Errors
    /// When it cannot be written: after a restart, some events come again.
    pub(super) fn save(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{}.new", self.name));
        std::fs::write(&new, format!("{}\n", self.next))?;
        std::fs::rename(new, path(directory, &self.name))
    }
}

/// The places of the sinks `names`, between `first` and `next`; of a sink that has none, or none that can be
/// read, the first. Places of others are forgotten, or they would begin there if they came back.
pub(super) fn load(
    directory: &Path,
    names: &[&str],
    first: u64,
    next: u64,
) -> io::Result<Vec<Cursor>> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|it| it.to_str());
        let is_place = path
            .extension()
            .is_some_and(|it| it == "next" || it == "new");
        if is_place && stem.is_none_or(|it| !names.contains(&it)) {
            std::fs::remove_file(&path)?;
        }
    }
    let cursor = |name: &&str| {
        let text = std::fs::read_to_string(path(directory, name)).unwrap_or_default();
        // Not clamped from below: what was dropped meanwhile is to be counted.
        let place = text.trim().parse().unwrap_or(first);
        Cursor {
            name: (*name).to_owned(),
            next: place.clamp(1, next),
            segment: first,
            offset: 0,
        }
    };
    Ok(names.iter().map(cursor).collect())
}

fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.next"))
}
