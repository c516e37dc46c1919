//! Packs: archives, manifests, signatures and records that exceptions are made of, of any bytes.
#![no_main]

use std::io::Write;

use clew_packs::contents::Contents;
use clew_packs::signature::{Trust, Verifier};
use clew_packs::{Exception, Manifest, Record};
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;

/// The public key of minisign's own manual.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

fuzz_target!(|bytes: &[u8]| {
    let _ = Contents::of_archive(bytes);
    // As a tar, or the fuzzer would never come further than gzip's checksum.
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    if gzip.write_all(bytes).is_ok()
        && let Ok(archive) = gzip.finish()
        && let Ok(contents) = Contents::of_archive(&archive)
    {
        // What is taken once is taken again, as the same.
        let again = contents.to_archive().map(|it| Contents::of_archive(&it));
        assert!(matches!(again, Ok(Ok(same)) if same == contents));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Manifest::parse(text);
        let keys = Verifier::parse(KEY).into_iter().collect();
        let trust = Trust {
            keys,
            allow_unsigned: false,
        };
        assert!(trust.check(b"archive", Some(text)).is_err());
        let _ = Verifier::parse(text);
    }
    if let Ok(record) = Record::parse(bytes) {
        let _ = Exception::of(&record);
    }
});
