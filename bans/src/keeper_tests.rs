use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clew_protocol::IncidentId;
use redb::StorageBackend;
use redb::backends::FileBackend;
use uuid::Uuid;

use super::*;
use crate::register::Span;

const PATIENCE: Duration = Duration::from_secs(60);

/// A table that remembers whom it refuses.
#[derive(Clone, Default)]
struct Barred(Arc<Mutex<BTreeSet<IpNet>>>);

impl Table for Barred {
    fn refuse(&self, ban: &Ban, left: Duration) {
        assert!(!left.is_zero());
        self.0.lock().expect("no panic").insert(ban.source);
    }

    fn admit(&self, source: IpNet) {
        self.0.lock().expect("no panic").remove(&source);
    }

    fn sweep(&self) {}
}

fn policy() -> Policy {
    Policy {
        measure: Measure {
            by_verdict: true,
            span: Duration::from_secs(60),
            escalation: 4,
            longest: Duration::from_secs(1000),
        },
        memory: Duration::from_secs(3600),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        never: Vec::new(),
        shared: Vec::new(),
        dry_run: false,
    }
}

fn clock(time: &Arc<AtomicU64>) -> impl Fn() -> Wall + Send + Sync + 'static {
    let time = time.clone();
    move || Wall(time.load(Ordering::SeqCst))
}

fn keeper(path: &Path, table: &Barred, clock: impl Fn() -> Wall + Send + Sync + 'static) -> Keeper {
    let store = Store::open(path).expect("store");
    let keeper = Keeper::open(store, policy(), 200_000, table.clone(), clock).expect("keeper");
    keeper.start().expect("thread");
    keeper
}

fn verdict(n: u32) -> Order {
    Order {
        cause: Cause::Verdict(IpAddr::from(n.to_be_bytes()), IncidentId(Uuid::nil())),
        span: Span::Policy,
        reason: String::new(),
    }
}

#[test]
fn bans_and_offences_outlive_the_process() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    let time = Arc::new(AtomicU64::new(1_000_000_000_000));
    let table = Barred::default();
    let first = keeper(&path, &table, clock(&time));
    let (_, stamp) = first.ban(&verdict(0x0a00_0001)).expect("banned");
    assert_eq!(first.wait_durable(stamp, PATIENCE), Durability::Durable);
    first.stop();
    drop(first);

    let table = Barred::default();
    let second = keeper(&path, &table, clock(&time));
    let ban = second.list(None, 10).0.remove(0);
    assert_eq!(table.0.lock().expect("no panic").len(), 1);
    assert!(ban.incident.is_some() && ban.offence == 1);
    second.stop();
    drop(second);

    // Over while nobody was there; not forgotten.
    time.fetch_add(61_000, Ordering::SeqCst);
    let table = Barred::default();
    let third = keeper(&path, &table, clock(&time));
    assert!(third.is_empty() && table.0.lock().expect("no panic").is_empty());
    let (banned, _) = third.ban(&verdict(0x0a00_0001)).expect("banned");
    assert_eq!(banned.ban.offence, 2);
    third.stop();
}

#[test]
fn a_lifted_ban_does_not_come_back() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    let table = Barred::default();
    let first = keeper(&path, &table, Wall::now);
    let (banned, _) = first.ban(&verdict(1)).expect("banned");
    let stamp = first.lift(banned.ban.source).expect("was banned");
    assert_eq!(first.wait_durable(stamp, PATIENCE), Durability::Durable);
    assert!(first.lift(banned.ban.source).is_none());
    assert!(table.0.lock().expect("no panic").is_empty());
    first.stop();
    drop(first);
    assert!(keeper(&path, &table, Wall::now).is_empty());
}

#[test]
fn a_hundred_thousand_are_back_at_once() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    let first = keeper(&path, &Barred::default(), Wall::now);
    let mut last = None;
    for n in 1..=100_000 {
        last = Some(first.ban(&verdict(n)).expect("banned").1);
    }
    let last = last.expect("a ban");
    assert_eq!(first.wait_durable(last, PATIENCE), Durability::Durable);
    first.stop();
    drop(first);
    let begun = Instant::now();
    let second = keeper(&path, &Barred::default(), Wall::now);
    let span = begun.elapsed();
    eprintln!("100,000 bans loaded in {span:?}");
    assert_eq!(second.len(), 100_000);
    // Ten times what it takes.
    assert!(span < Duration::from_secs(4), "{span:?}");
    second.stop();
}

/// A disk that is full while it is told to be.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> std::io::Result<()> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
}

#[test]
fn on_a_full_disk_bans_are_in_force_and_written_when_there_is_room() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    let is_full = Arc::new(AtomicBool::new(false));
    let (full, at) = (is_full.clone(), path.clone());
    let store = Store::over(move || {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let file = FileBackend::new(file.open(&at).expect("file")).expect("backend");
        let is_full = full.clone();
        let disk = Disk { file, is_full };
        let database = redb::Database::builder().create_with_backend(disk);
        database.map_err(|error| StoreError::Disk(error.into()))
    });
    let table = Barred::default();
    let store = store.expect("store");
    let keeper = Keeper::open(store, policy(), 10, table.clone(), Wall::now).expect("keeper");
    keeper.start().expect("thread");
    is_full.store(true, Ordering::SeqCst);
    let (_, stamp) = keeper.ban(&verdict(1)).expect("banned");
    assert!(matches!(
        keeper.wait_durable(stamp, PATIENCE),
        Durability::InForce(_)
    ));
    assert!(keeper.trouble().is_some() && keeper.pending() == 1);
    assert_eq!(table.0.lock().expect("no panic").len(), 1);
    is_full.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while keeper.trouble().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(keeper.wait_durable(stamp, PATIENCE), Durability::Durable);
    keeper.stop();
    drop(keeper);
    let again = Store::open(&path).expect("store").read().expect("bans");
    assert_eq!(again.bans.len(), 1);
}

#[test]
fn what_is_no_store_is_left_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    std::fs::write(&path, "not a database at all").expect("file");
    let error = Store::open(&path).err().expect("refused").to_string();
    assert!(error.contains("move it away"), "{error}");
    assert_eq!(
        std::fs::read(&path).expect("file"),
        b"not a database at all"
    );
}

#[test]
fn one_file_one_keeper() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bans.redb");
    let _first = Store::open(&path).expect("store");
    assert!(Store::open(&path).is_err());
}
