//! What the correlator is told of a request's body.

use anyhow::{Result, ensure};

use crate::stage::{Stage, ok};

/// Sends `body` in chunks of `size` bytes; the inputs the correlator got for it.
fn inputs(kind: &str, body: &str, size: usize) -> Result<String> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ))?;
    for piece in body.as_bytes().chunks(size) {
        client.send(std::str::from_utf8(piece)?)?;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    ensure!(client.response()?.status == 200);
    stage.body_inputs()
}

/// A sender who splits the body where it matters must not escape the comparison.
#[test]
fn bodies_are_whole_however_they_are_split() -> Result<()> {
    let json = "Application/JSON; charset=utf-8";
    let cases = [
        ("text/plain", "touch /tmp/x", "touch /tmp/x"),
        (
            "application/x-www-form-urlencoded",
            "a=%2Fbin%2Fsh+-c",
            "a=/bin/sh -c",
        ),
        (
            "Application/X-WWW-Form-URLencoded",
            "a=%2Fbin%2Fsh",
            "a=/bin/sh",
        ),
        (
            json,
            r#"{"a":"\u002fbin\/sh \"x\""}"#,
            r#"{"a":"/bin/sh "x""}"#,
        ),
        (json, r#"["\ud83d\ude00/bin/sh"]"#, "[\"\u{1f600}/bin/sh\"]"),
    ];
    for (kind, body, wanted) in cases {
        for size in [1, 3, 1000] {
            let seen = inputs(kind, body, size)?;
            ensure!(seen.contains(wanted), "{kind} by {size}: {seen:?}");
            ensure!(
                seen.contains(body),
                "{kind} by {size}: raw form missing in {seen:?}"
            );
        }
    }
    Ok(())
}
