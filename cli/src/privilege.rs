//! Least privilege: what is done as root is done first, then root is given up for good.

use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;

use anyhow::{Context, Result};
use caps::CapSet;
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

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

/// Makes the state directory, and makes it and its files the account's.
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
    let owner = (Some(account.uid.as_raw()), Some(account.gid.as_raw()));
    chown(state, owner.0, owner.1).with_context(fail)?;
    for entry in std::fs::read_dir(state).with_context(fail)? {
        let entry = entry?;
        // A link could lead anywhere; none is ours.
        if entry.file_type()?.is_file() {
            chown(entry.path(), owner.0, owner.1).with_context(fail)?;
        }
    }
    Ok(())
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
