//! Requests: with the filter and without, the same rules match in the same order.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clew_ftw::{BEFORE, Run};
use clew_rules::engine::{Options, RuleSet, compile};
use libfuzzer_sys::fuzz_target;

/// Debian's `modsecurity-crs`, filtered and plain.
fn rules() -> &'static [Arc<RuleSet>; 2] {
    static RULES: OnceLock<[Arc<RuleSet>; 2]> = OnceLock::new();
    RULES.get_or_init(|| {
        let before = std::env::temp_dir().join(format!("clew-fuzz-{}.conf", std::process::id()));
        std::fs::write(&before, BEFORE).expect("a file");
        let crs = PathBuf::from("/usr/share/modsecurity-crs/owasp-crs.load");
        let ast = clew_rules::seclang::load(&[before.clone(), crs]).expect("modsecurity-crs");
        let _ = std::fs::remove_file(before);
        [true, false].map(|prefilter| {
            let options = Options {
                prefilter,
                ..Options::default()
            };
            Arc::new(compile(&ast, options).expect("modsecurity-crs"))
        })
    })
}

// Loading the rules is not the first input's time.
fuzz_target!(init: { rules(); }, |data: &[u8]| {
    // The head is given, so that most inputs are requests.
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let types = [
        "application/x-www-form-urlencoded",
        "application/json",
        "text/xml",
        "multipart/form-data; boundary=b",
    ];
    let kind = types[usize::from(*kind) % types.len()];
    let (target, body) = body.split_at(
        body.iter()
            .position(|it| *it == 0)
            .unwrap_or(body.len() / 2),
    );
    let target: Vec<u8> = target
        .iter()
        .map(|it| {
            if it.is_ascii_graphic() && *it != b'#' {
                *it
            } else {
                b'+'
            }
        })
        .collect();
    let mut request = b"POST /?".to_vec();
    request.extend_from_slice(&target);
    request.extend_from_slice(
        format!(
            " HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    request.extend_from_slice(body);
    let [filtered, plain] = rules();
    let (have, want) = (
        Run::of_bytes(filtered, &request),
        Run::of_bytes(plain, &request),
    );
    assert_eq!(have.matched, want.matched);
    assert_eq!(have.tx, want.tx);
});
