//! Least privilege: what is done as root is done first, then root is given up for good.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use caps::CapSet;
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use rustix::fs::{Dir, FileType, Mode, OFlags, fchown, fstat, open, openat};
use rustix::io::Errno;

/// Who Clew becomes.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl Account {
    /// The account named in the configuration; none when not started as root.
    pub(crate) fn find(name: &str) -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let user = User::from_name(name)
            .with_context(|| format!("cannot look up user {name:?}"))?
            .with_context(|| format!("there is no user {name:?}; set state.user"))?;
        Ok(Some(Self {
            uid: user.uid,
            gid: user.gid,
        }))
    }
}

/// Every file Clew keeps in its state directory.
const OURS: [&str; 9] = [
    "admin.sock",
    "audit.jsonl",
    "audit.jsonl.1",
    "bans.redb",
    "handover.sock",
    "incidents.jsonl",
    "incidents.jsonl.1",
    "profile.json",
    "profile.new",
];

/// Folders of the state directory, handed over with all that is in them.
const FOLDERS: [&str; 2] = ["log-spool", "packs"];

/// How deep they are: a version's files lie four folders down, and nest sixteen more at most.
const DEPTH: usize = 32;

/// Makes the state directory, and makes it and its files the account's.
///
/// A directory with anything else in it is refused: `--state /etc` would give it away. No link is
/// followed, and files are handed over by descriptor, for the account may have written here before.
pub(crate) fn prepare_state(state: &Path, account: Option<&Account>) -> Result<()> {
    let fail = || format!("cannot use the state directory {}", state.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .with_context(fail)?;
    let Some(account) = account else {
        return Ok(());
    };
    for entry in std::fs::read_dir(state).with_context(fail)? {
        let name = entry?.file_name();
        ensure!(
            OURS.iter().chain(&FOLDERS).any(|ours| name == *ours),
            "the state directory {} holds {name:?}, which is not Clew's; name a directory of its own",
            state.display()
        );
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(state, flags, Mode::empty()).with_context(fail)?;
    give(&directory, account).with_context(fail)?;
    for name in OURS {
        hand_over(&directory, name, account).with_context(fail)?;
    }
    for name in FOLDERS {
        hand_over_folder(&directory, name, account, DEPTH).with_context(fail)?;
    }
    Ok(())
}

/// Makes a folder the account's, with the files and folders in it; no link is followed.
fn hand_over_folder(parent: &OwnedFd, name: &str, account: &Account, depth: usize) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => folder,
        // None there; a link; or no folder.
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(()),
        Err(error) => return Err(error).with_context(|| name.to_owned()),
    };
    ensure!(depth > 0, "{name:?} is nested too deep; remove it");
    give(&folder, account)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "." | ".." => {}
            _ if entry.file_type() == FileType::Directory => {
                hand_over_folder(&folder, &name, account, depth - 1)?;
            }
            _ => hand_over(&folder, &name, account)?,
        }
    }
    Ok(())
}

/// Makes the file `name` the account's, if it is a file of one name.
fn hand_over(directory: &OwnedFd, name: &str, account: &Account) -> Result<()> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        // None there; a socket, which is handed over by itself; or a link.
        Err(Errno::NOENT | Errno::NXIO | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error).with_context(|| name.to_owned()),
    };
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
        give(&file, account)?;
    }
    Ok(())
}

fn give(file: &OwnedFd, account: &Account) -> Result<()> {
    let owner = rustix::fs::Uid::from_raw(account.uid.as_raw());
    let group = rustix::fs::Gid::from_raw(account.gid.as_raw());
    Ok(fchown(file, Some(owner), Some(group))?)
}

/// Gives up root and every capability, and the way back. To be called while there is one
/// thread: capabilities are a thread's own.
pub(crate) fn drop_all(account: Option<&Account>) -> Result<()> {
    if let Some(account) = account {
        caps::clear(None, CapSet::Bounding).context("cannot empty the bounding set")?;
        setgroups(&[]).context("cannot drop supplementary groups")?;
        setresgid(account.gid, account.gid, account.gid).context("cannot change group")?;
        setresuid(account.uid, account.uid, account.uid).context("cannot change user")?;
    }
    rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set).with_context(|| format!("cannot drop {set:?} capabilities"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            uid: Uid::current(),
            gid: Gid::current(),
        }
    }

    #[test]
    fn a_directory_of_others_is_refused() {
        let state = tempfile::tempdir().expect("directory");
        std::fs::write(state.path().join("passwd"), "root").expect("file");
        let error = prepare_state(state.path(), Some(&account())).expect_err("refused");
        assert!(error.to_string().contains("passwd"), "{error:#}");
    }

    #[test]
    fn packs_are_handed_over_with_all_that_is_in_them() -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        if !Uid::current().is_root() {
            // Nobody else may give files away: that a folder of one's own passes is all there is to see.
            let state = tempfile::tempdir()?;
            std::fs::create_dir_all(state.path().join("packs/a/1.0.0"))?;
            return prepare_state(state.path(), Some(&account()));
        }
        let state = tempfile::tempdir()?;
        let outside = tempfile::NamedTempFile::new()?;
        let inside = state.path().join("packs/a/1.0.0/files");
        std::fs::create_dir_all(&inside)?;
        std::fs::write(inside.join("pack.toml"), "x")?;
        std::os::unix::fs::symlink(outside.path(), inside.join("link"))?;
        std::os::unix::fs::symlink("/etc", inside.join("folder"))?;
        let other = Account {
            uid: Uid::from_raw(65534),
            gid: Gid::from_raw(65534),
        };
        prepare_state(state.path(), Some(&other))?;
        let owner = |path: &Path| std::fs::metadata(path).map(|it| it.uid());
        assert_eq!(owner(&inside.join("pack.toml"))?, 65534);
        assert_eq!(owner(&state.path().join("packs/a"))?, 65534);
        assert_eq!((owner(outside.path())?, owner(Path::new("/etc"))?), (0, 0));
        Ok(())
    }

    #[test]
    fn links_are_not_followed() {
        let state = tempfile::tempdir().expect("directory");
        let link = state.path().join("incidents.jsonl");
        std::os::unix::fs::symlink("/nowhere/at/all", link).expect("link");
        prepare_state(state.path(), Some(&account())).expect("prepared");
    }
}
