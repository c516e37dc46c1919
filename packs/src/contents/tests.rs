use std::io::Write;

use super::*;

fn contents(files: &[(&str, &str)]) -> Contents {
    let mut contents = Contents::default();
    for (name, text) in files {
        contents.insert(name, text.as_bytes().to_vec()).expect(name);
    }
    contents
}

/// An archive of one entry, as a hostile writer would make it.
fn hostile(name: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o6777);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, content).expect("tar");
    gzip(&tar.into_inner().expect("tar"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(bytes).expect("gzip");
    gzip.finish().expect("gzip")
}

fn refusal(bytes: &[u8]) -> String {
    Contents::of_archive(bytes)
        .expect_err("refused")
        .to_string()
}

#[test]
fn the_same_files_give_the_same_archive() {
    let files = [
        ("pack.toml", "a"),
        ("rules/b.conf", "b"),
        ("rules/a.conf", "c"),
    ];
    let one = contents(&files);
    let mut turned = files;
    turned.reverse();
    let archive = one.to_archive().expect("archive");
    assert_eq!(archive, contents(&turned).to_archive().expect("archive"));
    assert_eq!(Contents::of_archive(&archive).expect("read"), one);
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("pack");
    one.write(&root).expect("written");
    std::fs::write(root.join(".hidden"), "x").expect("hidden");
    let again = Contents::of_folder(&root).expect("read");
    assert_eq!(again.to_archive().expect("archive"), archive);
}

#[test]
fn names_that_leave_the_pack_are_refused() {
    for name in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        ".git/x",
        "a/./b",
        "a\\b",
        "a\nb",
        "a/..",
    ] {
        let text = refusal(&hostile(name, tar::EntryType::Regular, b"x"));
        assert!(text.contains("is refused"), "{name}: {text}");
    }
}

#[test]
fn links_devices_and_extensions_are_refused() {
    use tar::EntryType as E;
    for kind in [
        E::Symlink,
        E::Link,
        E::Char,
        E::Block,
        E::Fifo,
        E::GNULongName,
        E::XHeader,
        E::XGlobalHeader,
        E::GNUSparse,
        E::Continuous,
    ] {
        let text = refusal(&hostile("x", kind, b"y"));
        assert!(
            text.contains("files and folders, nothing else"),
            "{kind:?}: {text}"
        );
    }
}

#[test]
fn names_that_come_twice_are_refused() {
    let mut twice = contents(&[("a/b", "1")]);
    assert!(twice.insert("a/b", Vec::new()).is_err());
    assert!(contents(&[("a/b", "1")]).insert("a", Vec::new()).is_err());
    assert!(contents(&[("a", "1")]).insert("a/b", Vec::new()).is_err());
    assert!(contents(&[("a", "1")]).insert("a-b", Vec::new()).is_ok());
}

#[test]
fn what_expands_without_end_is_refused() {
    let zeros = hostile("zeros", tar::EntryType::Regular, &vec![0; 8 << 20]);
    assert!(zeros.len() < 20_000);
    assert!(refusal(&zeros).contains("times its size"));
}

#[test]
fn sizes_that_lie_cost_nothing() {
    let mut tar = vec![0; 1024];
    let mut header = tar::Header::new_ustar();
    header.set_path("x").expect("path");
    header.set_size(u64::from(u32::MAX));
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    assert!(Contents::of_archive(&gzip(&tar)).is_err());
    header.set_size(5000);
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    assert!(Contents::of_archive(&gzip(&tar)).is_err());
}

#[test]
fn too_many_files_are_refused() {
    let mut many = Contents::default();
    let result = (0..=FILES).try_for_each(|number| many.insert(&number.to_string(), Vec::new()));
    assert!(result.expect_err("too many").to_string().contains("4096"));
}

#[test]
fn every_damage_is_an_error_or_harmless() {
    let archive = contents(&[("pack.toml", "name"), ("rules/a.conf", "SecRuleEngine On")])
        .to_archive()
        .expect("archive");
    for at in 0..archive.len() {
        assert!(Contents::of_archive(&archive[..at]).is_err(), "cut at {at}");
        let mut damaged = archive.clone();
        damaged[at] ^= 0x55;
        // Whatever it is taken for, it is not taken for another pack without the checksum failing.
        if let Ok(read) = Contents::of_archive(&damaged) {
            assert_eq!(
                read,
                Contents::of_archive(&archive).expect("read"),
                "at {at}"
            );
        }
    }
    let mut longer = archive;
    longer.push(0);
    assert!(refusal(&longer).contains("follows the archive's end"));
}

#[test]
fn links_in_folders_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("x")).expect("link");
    let text = Contents::of_folder(folder.path())
        .expect_err("refused")
        .to_string();
    assert!(text.contains("symbolic link"), "{text}");
}
