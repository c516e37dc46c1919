//! Bans on disk: a redb file, which is whole after a kill or a power cut.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clew_protocol::IncidentId;
use ipnet::IpNet;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
    TableError,
};
use thiserror::Error;
use uuid::Uuid;

use crate::Wall;
use crate::register::{Ban, Batch, Entry, Offences};

/// The source; since, until (milliseconds since the Unix epoch), offence, dry run, incident, reason.
const BANS: TableDefinition<&str, BanRow> = TableDefinition::new("bans");
/// The source; how often it has offended, and when the last ban ends.
const OFFENCES: TableDefinition<&str, (u32, u64)> = TableDefinition::new("offences");

type BanRow = (u64, u64, u32, bool, Option<u128>, &'static str);

/// redb's cache, bytes: all of the file that 131,072 bans make.
const CACHE_BYTES: usize = 32 << 20;

/// Why bans cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened, or is none of Clew's.
    #[error("cannot use {path}: {reason}; to start without the bans in it, move it away")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nothing can be written, or read.
    #[error("bans cannot be kept on disk: {0}")]
    Disk(#[from] redb::Error),
}

/// The file, open; nobody else can open it meanwhile.
pub struct Store {
    open: Box<dyn Fn() -> Result<Database, StoreError> + Send>,
    /// None after a failure: redb wants a file opened anew then.
    database: Option<Database>,
}

pub(crate) struct Kept {
    pub(crate) bans: Vec<Ban>,
    pub(crate) offences: Vec<(IpNet, Offences)>,
}

impl Store {
    /// Opens the file, or makes it, for its owner alone.
    ///
    /// # Errors
    ///
    /// It is another's, damaged, or may not be opened.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        Self::over(move || {
            open(&path).map_err(|error| StoreError::Open {
                path: path.clone(),
                reason: error.to_string(),
            })
        })
    }

    pub(crate) fn over(
        open: impl Fn() -> Result<Database, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let database = Some(open()?);
        Ok(Self {
            open: Box::new(open),
            database,
        })
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)()?,
        };
        Ok(self.database.insert(database))
    }

    /// Everything that was kept. A line that makes no sense is passed over.
    pub(crate) fn read(&mut self) -> Result<Kept, StoreError> {
        let transaction = self.database()?.begin_read().map_err(redb::Error::from)?;
        let mut kept = Kept {
            bans: Vec::new(),
            offences: Vec::new(),
        };
        if let Some(table) = present(transaction.open_table(BANS))? {
            for row in table.iter().map_err(redb::Error::from)? {
                let (source, row) = row.map_err(redb::Error::from)?;
                kept.bans.extend(ban_of(source.value(), row.value()));
            }
        }
        if let Some(table) = present(transaction.open_table(OFFENCES))? {
            for row in table.iter().map_err(redb::Error::from)? {
                let (source, row) = row.map_err(redb::Error::from)?;
                let (count, last) = row.value();
                let last = Wall(last);
                let source = source.value().parse().ok();
                kept.offences
                    .extend(source.map(|it| (it, Offences { count, last })));
            }
        }
        Ok(kept)
    }

    /// Writes in one transaction, which is on disk when this returns.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let written = commit(self.database()?, batch);
        if written.is_err() {
            self.database = None;
        }
        Ok(written?)
    }
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(0o600).open(path).map_err(StorageError::from)?;
    Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(FileBackend::new(file)?)
}

fn commit(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    if batch.anew {
        transaction.delete_table(BANS)?;
        transaction.delete_table(OFFENCES)?;
    }
    {
        let mut bans = transaction.open_table(BANS)?;
        let mut offences = transaction.open_table(OFFENCES)?;
        for Entry {
            source,
            ban,
            offences: known,
        } in &batch.entries
        {
            let name = source.to_string();
            match ban {
                Some(ban) => bans.insert(name.as_str(), row_of(ban)).map(drop)?,
                None => bans.remove(name.as_str()).map(drop)?,
            }
            match known {
                Some(it) => offences
                    .insert(name.as_str(), (it.count, it.last.0))
                    .map(drop)?,
                None => offences.remove(name.as_str()).map(drop)?,
            }
        }
    }
    Ok(transaction.commit()?)
}

/// None of a table that nothing was ever written to.
fn present<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn row_of(ban: &Ban) -> (u64, u64, u32, bool, Option<u128>, &str) {
    let incident = ban.incident.map(|it| it.0.as_u128());
    let (since, until) = (ban.since.0, ban.until.0);
    (
        since,
        until,
        ban.offence,
        ban.dry_run,
        incident,
        &ban.reason,
    )
}

fn ban_of(source: &str, row: (u64, u64, u32, bool, Option<u128>, &str)) -> Option<Ban> {
    let (since, until, offence, dry_run, incident, reason) = row;
    Some(Ban {
        source: source.parse().ok()?,
        since: Wall(since),
        until: Wall(until),
        reason: reason.to_owned(),
        incident: incident.map(|it| IncidentId(Uuid::from_u128(it))),
        offence,
        dry_run,
    })
}
