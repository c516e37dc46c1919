use std::io::Write;

use super::*;

const LIMIT: u64 = 1 << 20;

fn open(directory: &Path) -> Spool {
    Spool::open(directory, LIMIT, &["a", "b"]).expect("a spool")
}

fn read(reader: &mut Reader) -> Vec<String> {
    let batch = reader
        .batch(1000, 1 << 30, Duration::ZERO)
        .expect("more may come");
    let texts = batch.payloads.into_iter().map(String::from_utf8);
    texts.collect::<Result<_, _>>().expect("what was written")
}

#[test]
fn each_reader_goes_on_where_it_was() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    {
        let mut spool = open(directory.path());
        for number in 1..=3 {
            spool.append(format!("event {number}").as_bytes())?;
        }
        let mut a = Reader::new(spool.shared(), 0);
        assert_eq!(read(&mut a), ["event 1", "event 2", "event 3"]);
        a.taken();
        assert_eq!(spool.shared().waiting(0), (0, 0));
        assert_eq!(spool.shared().waiting(1).0, 3);
    }
    let mut spool = open(directory.path());
    spool.append(b"event 4")?;
    assert_eq!(read(&mut Reader::new(spool.shared(), 0)), ["event 4"]);
    // b was told of nothing.
    assert_eq!(read(&mut Reader::new(spool.shared(), 1)).len(), 4);
    Ok(())
}

#[test]
fn a_torn_tail_is_cut_and_written_over() -> io::Result<()> {
    for torn in [1, 7, 15, 16, 17, 20] {
        let directory = tempfile::tempdir()?;
        let mut spool = open(directory.path());
        spool.append(b"whole")?;
        let bytes = std::fs::metadata(segment::path(directory.path(), 1))?.len();
        spool.append(b"torn")?;
        drop(spool);
        let file = OpenOptions::new()
            .write(true)
            .open(segment::path(directory.path(), 1))?;
        file.set_len(bytes + torn.min(19))?;
        let mut spool = open(directory.path());
        spool.append(b"next")?;
        assert_eq!(read(&mut Reader::new(spool.shared(), 0)), ["whole", "next"]);
    }
    Ok(())
}

#[test]
fn garbage_is_no_record() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut spool = open(directory.path());
    spool.append(b"whole")?;
    drop(spool);
    let path = segment::path(directory.path(), 1);
    OpenOptions::new()
        .append(true)
        .open(&path)?
        .write_all(&[0xff; 4096])?;
    std::fs::write(segment::path(directory.path(), 2), b"CLEW")?;
    let mut spool = open(directory.path());
    spool.append(b"next")?;
    // The garbage is in a segment that is not the last: it is skipped, and no number is missing.
    let batch = Reader::new(spool.shared(), 0).batch(10, 1 << 20, Duration::ZERO);
    let batch = batch.expect("more may come");
    assert_eq!(batch.payloads, [b"whole".to_vec(), b"next".to_vec()]);
    assert_eq!(batch.missed, 0);
    Ok(())
}

#[test]
fn what_is_broken_in_the_middle_is_skipped_and_counted() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut spool = open(directory.path());
    let payload = vec![b'x'; 30_000];
    for _ in 0..9 {
        spool.append(&payload)?;
    }
    let second = spool.shared().state().segments[1].first;
    drop(spool);
    let path = segment::path(directory.path(), 1);
    let mut bytes = std::fs::read(&path)?;
    bytes[40_000] ^= 1;
    std::fs::write(&path, bytes)?;
    let spool = open(directory.path());
    let mut reader = Reader::new(spool.shared(), 0);
    let batch = reader
        .batch(100, 1 << 30, Duration::ZERO)
        .expect("more may come");
    assert_eq!(batch.missed, second - 2);
    assert_eq!(batch.payloads.len() as u64 + batch.missed, 9);
    Ok(())
}

#[test]
fn the_oldest_goes_beyond_the_bound_and_is_counted() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut spool = open(directory.path());
    let mut slow = Reader::new(spool.shared(), 0);
    let payload = vec![b'x'; 10_000];
    for _ in 0..500 {
        spool.append(&payload)?;
    }
    let (written, bytes, _) = spool.shared().totals();
    assert_eq!(written, 500);
    assert!(bytes <= LIMIT + 70_000, "{bytes}");
    let on_disk: u64 = segment::list(directory.path())?
        .iter()
        .map(|it| it.bytes)
        .sum();
    assert_eq!(on_disk, bytes);
    let batch = slow
        .batch(1000, 1 << 30, Duration::ZERO)
        .expect("more may come");
    assert_eq!(batch.missed + batch.payloads.len() as u64, 500);
    assert!(batch.missed > 300);
    Ok(())
}

#[test]
fn what_all_have_read_is_removed() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut spool = open(directory.path());
    let mut readers = [0, 1].map(|index| Reader::new(spool.shared(), index));
    for _ in 0..50 {
        spool.append(&vec![b'x'; 10_000])?;
    }
    for reader in &mut readers {
        assert_eq!(
            reader
                .batch(1000, 1 << 30, Duration::ZERO)
                .expect("some")
                .payloads
                .len(),
            50
        );
        reader.taken();
    }
    assert_eq!(segment::list(directory.path())?.len(), 1);
    Ok(())
}

#[test]
fn a_place_beyond_the_end_is_taken_back() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    open(directory.path()).append(b"one")?;
    std::fs::write(directory.path().join("a.next"), "900\n")?;
    std::fs::write(directory.path().join("b.next"), "\u{fffd}")?;
    std::fs::write(directory.path().join("gone.next"), "1\n")?;
    let mut spool = open(directory.path());
    spool.append(b"two")?;
    assert_eq!(read(&mut Reader::new(spool.shared(), 0)), ["two"]);
    assert_eq!(read(&mut Reader::new(spool.shared(), 1)), ["one", "two"]);
    assert!(!directory.path().join("gone.next").exists());
    Ok(())
}

#[test]
fn what_is_not_the_spools_is_left_alone() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let open = |path: &Path| Spool::open(path, LIMIT, &["a"]);
    let precious = directory.path().join("precious");
    std::fs::write(&precious, "text")?;
    assert!(matches!(open(directory.path()), Err(SpoolError::Foreign(path)) if path == precious));
    let spool = directory.path().join("spool");
    std::os::unix::fs::symlink(directory.path(), &spool)?;
    assert!(matches!(open(&spool), Err(SpoolError::Foreign(_))));
    std::fs::remove_file(&spool)?;
    std::fs::create_dir(&spool)?;
    std::os::unix::fs::symlink(&precious, segment::path(&spool, 1))?;
    let opened = open(&spool).and_then(|mut it| {
        it.append(b"one").map_err(|error| SpoolError::Io {
            path: spool.clone(),
            error,
        })
    });
    assert_eq!(std::fs::read_to_string(&precious)?, "text");
    drop(opened);
    Ok(())
}

#[test]
fn a_spool_has_one_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let _spool = open(directory.path());
    let second = Spool::open(directory.path(), LIMIT, &[]);
    assert!(matches!(second, Err(SpoolError::InUse(_))));
}
