//! Archives: tar (POSIX.1-1988 `ustar`) in gzip (RFC 1952). Extensions of tar are refused: nothing that
//! a pack holds needs them, and each is one more way to say something else to another reader.

use std::io::{Cursor, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};
use tar::{Archive, Builder, EntryType, Header};

use super::{
    ARCHIVE_BYTES, Contents, ContentsError, EXPANSION, FILE_BYTES, FILES, TOTAL_BYTES, refused,
};

/// A block, and the unit that file contents are padded to.
const BLOCK: usize = 512;

impl Contents {
    /// Reads an archive.
    ///
    /// # Errors
    ///
    /// It is no archive, is damaged, holds anything but files and folders, or breaks a bound.
    pub fn of_archive(bytes: &[u8]) -> Result<Self, ContentsError> {
        let tar = inflated(bytes)?;
        let mut archive = Archive::new(Cursor::new(tar.as_slice()));
        let mut contents = Self::default();
        let entries = archive.entries().map_err(|error| broken(&error))?;
        let mut count = 0_usize;
        // Raw: extension headers come as entries of their own, and are refused by their type.
        for entry in entries.raw(true) {
            let mut entry = entry.map_err(|error| broken(&error))?;
            count += 1;
            if count > 2 * FILES {
                return Err(ContentsError::Large(format!(
                    "it has more than {} entries",
                    2 * FILES
                )));
            }
            let name = name(&entry.path_bytes())?;
            match entry.header().entry_type() {
                EntryType::Directory => continue,
                EntryType::Regular => {}
                other => {
                    return Err(ContentsError::Kind {
                        name,
                        kind: kind(other),
                    });
                }
            }
            let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
            if size > FILE_BYTES {
                return Err(ContentsError::Large(format!(
                    "{name:?} is larger than {FILE_BYTES} bytes"
                )));
            }
            let mut content = Vec::with_capacity(size.min(tar.len()));
            entry
                .read_to_end(&mut content)
                .map_err(|error| broken(&error))?;
            if content.len() != size {
                return Err(ContentsError::Broken(format!("{name:?} is cut short")));
            }
            contents.insert(&name, content)?;
        }
        Ok(contents)
    }

    /// The one archive of these files: the same files give the same bytes, whoever packs them and when
    /// (with one build of Clew: another version of the compressor may choose other codes).
    ///
    /// # Errors
    ///
    /// It would be larger than archives may be.
    pub fn to_archive(&self) -> Result<Vec<u8>, ContentsError> {
        let memory = |error: std::io::Error| ContentsError::Broken(error.to_string());
        let mut tar = Builder::new(Vec::new());
        for (name, content) in self.iter() {
            let mut header = Header::new_ustar();
            header
                .set_path(name)
                .map_err(|_| refused(name, "a part of it is too long for an archive"))?;
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_cksum();
            tar.append(&header, content).map_err(memory)?;
        }
        let tar = tar.into_inner().map_err(memory)?;
        // No name and no time in the header; "unknown" for the system (RFC 1952 section 2.3.1).
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .operating_system(255)
            .write(Vec::new(), Compression::best());
        gzip.write_all(&tar).map_err(memory)?;
        let bytes = gzip.finish().map_err(memory)?;
        match bytes.len() <= ARCHIVE_BYTES {
            true => Ok(bytes),
            false => Err(ContentsError::Large(format!(
                "its archive is larger than {ARCHIVE_BYTES} bytes"
            ))),
        }
    }
}

/// What is in the gzip member, which has to be the only one.
fn inflated(bytes: &[u8]) -> Result<Vec<u8>, ContentsError> {
    if bytes.len() > ARCHIVE_BYTES {
        return Err(ContentsError::Large(format!(
            "it is larger than {ARCHIVE_BYTES} bytes"
        )));
    }
    // Each file has a header and padding, and writers pad the end to 20 blocks.
    let most = TOTAL_BYTES + (2 * FILES + 20) * 2 * BLOCK;
    let most = most.min((bytes.len() * EXPANSION).max(1 << 20));
    let mut decoder = GzDecoder::new(bytes);
    let mut tar = Vec::new();
    (&mut decoder)
        .take(most as u64 + 1)
        .read_to_end(&mut tar)
        .map_err(|error| broken(&error))?;
    if tar.len() > most {
        return Err(ContentsError::Large(format!(
            "it expands to more than {EXPANSION} times its size, or {TOTAL_BYTES} bytes"
        )));
    }
    if !decoder.into_inner().is_empty() {
        return Err(ContentsError::Broken(
            "something follows the archive's end".to_owned(),
        ));
    }
    Ok(tar)
}

fn broken(error: &std::io::Error) -> ContentsError {
    ContentsError::Broken(format!(
        "{error}; a pack is a folder or a .clewpack archive"
    ))
}

/// `./a/b` as `a/b`; of folders, the slash at the end is taken off.
fn name(bytes: &[u8]) -> Result<String, ContentsError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| refused(&String::from_utf8_lossy(bytes), "it is not UTF-8"))?;
    let plain = text.strip_prefix("./").unwrap_or(text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    // The folder of the pack itself.
    if !plain.is_empty() && plain != "." {
        super::checked_name(plain)?;
    }
    Ok(plain.to_owned())
}

fn kind(entry: EntryType) -> &'static str {
    match entry {
        EntryType::Link => "a hard link",
        EntryType::Symlink => "a symbolic link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a pipe",
        EntryType::GNULongName
        | EntryType::GNULongLink
        | EntryType::XHeader
        | EntryType::XGlobalHeader => {
            "an extension of tar (a name over 100 bytes? pack it with `clew packs pack`)"
        }
        _ => "of an unknown kind",
    }
}
