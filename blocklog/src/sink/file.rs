//! A file, a line an event: set aside when it is large, opened anew when somebody else has set it aside.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// How often it is looked whether the file is still where it was.
const LOOK: Duration = Duration::from_millis(250);

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    /// 0: it may grow without end.
    rotate_bytes: u64,
    keep: u32,
    file: File,
    bytes: u64,
    looked: Instant,
}

impl LogFile {
    /// Opens, or makes, it; what is in it stays.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn open(path: &Path, rotate_bytes: u64, keep: u32) -> io::Result<Self> {
        let file = append(path)?;
        Ok(Self {
            path: path.to_owned(),
            rotate_bytes,
            keep,
            bytes: file.metadata()?.len(),
            file,
            looked: Instant::now(),
        })
    }

    /// Appends a line; of one that does not fit on the disk nothing is left.
    ///
    /// # Errors
    /// When it could not be written whole.
    pub(crate) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.look();
        }
        let length = line.len() as u64 + 1;
        if self.rotate_bytes > 0 && self.bytes > 0 && self.bytes + length > self.rotate_bytes {
            self.rotate();
        }
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend(line);
        whole.push(b'\n');
        if let Err(error) = self.file.write_all(&whole) {
            if self.file.metadata()?.len() > self.bytes {
                self.file.set_len(self.bytes)?;
            }
            return Err(error);
        }
        self.bytes += length;
        Ok(())
    }

    /// Somebody else may have moved it away, or emptied it. Where it cannot be opened anew it is written where it is.
    fn look(&mut self) {
        let looked = match self.was_moved() {
            true => self.reopen(),
            false => self.file.metadata().map(|it| self.bytes = it.len()),
        };
        if let Err(error) = looked {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the log was moved away, and cannot be opened anew");
        }
    }

    fn was_moved(&self) -> bool {
        let identity = |it: std::fs::Metadata| (it.dev(), it.ino());
        let there = std::fs::metadata(&self.path).map(identity);
        match (there, self.file.metadata().map(identity)) {
            (Ok(there), Ok(ours)) => there != ours,
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = append(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    /// Where the directory cannot be written the file goes on: too large is better than gone.
    fn rotate(&mut self) {
        if let Err(error) = self.set_aside() {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the log is not rotated: its directory must be writable");
            // Tried again when it has grown by as much.
            self.rotate_bytes = self.rotate_bytes.saturating_add(self.bytes);
        }
    }

    fn set_aside(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            let older = self.numbered(number + 1);
            match std::fs::rename(self.numbered(number), older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))?;
        self.reopen()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Root opens what an account without rights may have put in its directory.
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    options.create(true).append(true).mode(0o600);
    options.custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_the_last_files_and_every_line_whole() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("block.json");
        let mut file = LogFile::open(&path, 100, 2)?;
        for number in 0..10 {
            file.write(format!("{number:039}").as_bytes())?;
        }
        let names = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display()));
        let lines = |text: String| -> Vec<u32> {
            text.lines()
                .map(|it| it.parse().expect("a number"))
                .collect()
        };
        assert_eq!(lines(names("")?), [8, 9]);
        assert_eq!(lines(names(".1")?), [6, 7]);
        assert_eq!(lines(names(".2")?), [4, 5]);
        assert!(names(".3").is_err());
        Ok(())
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("block.json");
        let mut file = LogFile::open(&path, 0, 1)?;
        file.write(b"one")?;
        std::fs::rename(&path, directory.path().join("moved"))?;
        std::thread::sleep(LOOK);
        file.write(b"two")?;
        assert_eq!(std::fs::read_to_string(&path)?, "two\n");
        assert_eq!(
            std::fs::read_to_string(directory.path().join("moved"))?,
            "one\n"
        );
        Ok(())
    }
}
