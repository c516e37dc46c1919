//! Lines in a file that is set aside when it is long: two of them are kept.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The file, open for appending: `NAME.jsonl`, and `NAME.jsonl.1` before it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit_bytes: u64,
}

impl Journal {
    /// Opens it, or makes it, for its owner alone. It is set aside at `limit_bytes`.
    pub(crate) fn open(path: PathBuf, limit_bytes: u64) -> Result<Self> {
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            bytes,
            limit_bytes,
        })
    }

    /// Appends a line of JSON.
    pub(crate) fn write(&mut self, entry: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        if self.bytes + line.len() as u64 > self.limit_bytes {
            std::fs::rename(&self.path, before(&self.path))?;
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// What was written is on disk when this returns.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

fn append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// All entries of both files, oldest first. A line cut short by a crash is not worth losing the others for.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, take: impl FnMut(T)) -> Result<()> {
    read_with(path, "", take)
}

/// The same, of lines alone that `word` is in.
pub(crate) fn read_with<T: DeserializeOwned>(
    path: &Path,
    word: &str,
    mut take: impl FnMut(T),
) -> Result<()> {
    for path in [before(path), path.to_owned()] {
        let Some(file) = open(&path)? else {
            continue;
        };
        for line in BufReader::new(file).lines() {
            let line = line?;
            if line.contains(word)
                && let Ok(entry) = serde_json::from_str(&line)
            {
                take(entry);
            }
        }
    }
    Ok(())
}

/// The entries in the last `bytes` of the file, oldest first.
pub(crate) fn tail<T: DeserializeOwned>(path: &Path, bytes: u64) -> Result<Vec<T>> {
    let Some(mut file) = open(path)? else {
        return Ok(Vec::new());
    };
    let from = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(from))?;
    let lines = BufReader::new(file.take(bytes)).split(b'\n');
    let mut entries = Vec::new();
    // What is left of the first line is no entry: unless the file begins with it.
    for line in lines.skip(usize::from(from > 0)) {
        entries.extend(serde_json::from_slice(&line?).ok());
    }
    Ok(entries)
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_are_kept_and_read_in_order() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("it.jsonl");
        let mut journal = Journal::open(path.clone(), 100).expect("journal");
        for n in 100..200 {
            journal.write(&n).expect("written");
        }
        drop(journal);
        let mut all: Vec<u32> = Vec::new();
        read(&path, |n| all.push(n)).expect("read");
        assert_eq!(all, (150..200).collect::<Vec<_>>());
        assert_eq!(
            tail::<u32>(&path, 10).expect("read"),
            [198, 199],
            "the first of three is cut"
        );
        for path in std::fs::read_dir(directory.path()).expect("directory") {
            assert!(path.expect("entry").metadata().expect("file").len() <= 100);
        }
    }

    #[test]
    fn a_line_that_is_cut_costs_itself_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("it.jsonl");
        std::fs::write(&path, "1\n{\"a\":\n2\n").expect("file");
        let mut all: Vec<u32> = Vec::new();
        read(&path, |n| all.push(n)).expect("read");
        assert_eq!(all, [1, 2]);
    }
}
