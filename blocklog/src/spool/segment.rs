//! A file of records: `CLEWLOG1`, then of each record its length (4 bytes), a CRC-32 of what follows (4), its
//! number (8), all little-endian, and its bytes.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Stored;
use crate::event::LINE_BYTES;

const MAGIC: &[u8; 8] = b"CLEWLOG1";
/// Bytes before the first record.
pub(super) const START: u64 = MAGIC.len() as u64;
/// Links are not followed: root opens what an account without rights may have put here.
pub(super) const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();
/// Bytes of a record before its own.
const HEAD_BYTES: usize = 16;

/// A record, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    bytes: u64,
    broken: bool,
}

impl Segment {
    /// A new one, for records from `first` on.
    pub(super) fn create(directory: &Path, first: u64) -> io::Result<Self> {
        let path = path(directory, first);
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        let mut file = options.custom_flags(NO_LINK).open(&path)?;
        if let Err(error) = file.write_all(MAGIC) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        // Its name survives a loss of power, too.
        File::open(directory)?.sync_all()?;
        Ok(Self {
            file,
            bytes: START,
            broken: false,
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was written last could not be cut off again: nothing more may follow.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// One write, so that a record is all there or, at a crash, cut.
    pub(super) fn append(&mut self, number: u64, payload: &[u8]) -> io::Result<()> {
        let record = encode(number, payload);
        if let Err(error) = self.file.write_all(&record) {
            let cut = self.file.set_len(self.bytes);
            let back = self.file.seek(SeekFrom::Start(self.bytes));
            self.broken = cut.is_err() || back.is_err();
            return Err(error);
        }
        self.bytes += record.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + payload.len());
    // An event is at most LINE_BYTES.
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(checksum(number, payload).to_le_bytes());
    record.extend(number.to_le_bytes());
    record.extend(payload);
    record
}

fn checksum(number: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Reads records one after the other.
#[derive(Debug)]
pub(super) struct Records {
    file: BufReader<File>,
    /// Where the next one begins.
    pub(super) offset: u64,
}

impl Records {
    pub(super) fn open(directory: &Path, first: u64) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path(directory, first))?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        match &magic == MAGIC {
            true => Ok(Self {
                file,
                offset: START,
            }),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The next record; none where it is cut or broken.
    pub(super) fn next(&mut self) -> Option<Record> {
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact(&mut head).ok()?;
        let (length, rest) = head.split_first_chunk::<4>()?;
        let (sum, number) = rest.split_first_chunk::<4>()?;
        let number = u64::from_le_bytes(number.try_into().ok()?);
        let length = u32::from_le_bytes(*length) as usize;
        if length > LINE_BYTES {
            return None;
        }
        let mut payload = vec![0; length];
        self.file.read_exact(&mut payload).ok()?;
        if checksum(number, &payload) != u32::from_le_bytes(*sum) {
            return None;
        }
        self.offset += (HEAD_BYTES + length) as u64;
        Some(Record { number, payload })
    }
}

/// All segments of a directory, oldest first.
pub(super) fn list(directory: &Path) -> io::Result<VecDeque<Stored>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let first = name.to_str().and_then(|it| it.strip_suffix(".seg"));
        if let Some(first) = first.and_then(|it| it.parse().ok()).filter(|it| *it > 0) {
            let bytes = entry.metadata()?.len();
            segments.push(Stored { first, bytes });
        }
    }
    segments.sort_unstable_by_key(|it| it.first);
    Ok(segments.into())
}

/// Cuts the last segment where it is broken; it, to be written on, and the number of the next record.
pub(super) fn recover(
    directory: &Path,
    segments: &VecDeque<Stored>,
) -> io::Result<(Option<Segment>, u64)> {
    let Some(last) = segments.back() else {
        return Ok((None, 1));
    };
    let mut next = last.first;
    let Ok(mut records) = Records::open(directory, last.first) else {
        // Not even its first bytes are there.
        std::fs::remove_file(path(directory, last.first))?;
        return Ok((None, next));
    };
    let mut end = records.offset;
    while let Some(record) = records.next() {
        if record.number != next {
            break;
        }
        next += 1;
        end = records.offset;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(NO_LINK)
        .open(path(directory, last.first))?;
    file.set_len(end)?;
    file.seek(SeekFrom::End(0))?;
    file.sync_data()?;
    let segment = Segment {
        file,
        bytes: end,
        broken: false,
    };
    Ok((Some(segment), next))
}

pub(super) fn remove(directory: &Path, first: u64) {
    let path = path(directory, first);
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "a segment of the log's spool cannot be removed");
    }
}

pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.seg"))
}
