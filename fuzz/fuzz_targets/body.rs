//! Bodies, cookies and targets: no panic, and no more comes out than the limits say.
#![no_main]

use clew_rules::body::normal::Target;
use clew_rules::body::{BodyLimits, Scratch, cookies, graphql, json, multipart, urlencoded, xml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let (limits, mut scratch) = (BodyLimits::default(), Scratch::default());
    let most = limits.output_bytes(body.len());
    let mut sum = 0;
    match kind % 7 {
        0 => {
            urlencoded::arguments(body, b'&', &limits, &mut scratch, |it| {
                sum += it.name.len() + it.value.len();
            });
        }
        1 => {
            let _ = json::arguments(body, &limits, &mut scratch, |name, value| {
                sum += name.len() + value.len();
            });
        }
        2 => {
            let (kind, body) = body.split_at(body.iter().position(|it| *it == b'\n').unwrap_or(0));
            multipart::parts(kind, body, &limits, &mut scratch, |part| {
                sum += part.content.len()
            });
        }
        3 => {
            let mut document = xml::Document::default();
            let _ = document.read(body, &limits);
        }
        4 => {
            let _ = graphql::pairs(body, &limits, &mut scratch, |_, name, value| {
                sum += name.len() + value.len();
            });
        }
        5 => {
            cookies::netscape(body, limits.cookies, |name, value| {
                sum += name.len() + value.len()
            });
            cookies::version1(body, limits.cookies, |_, _| {});
        }
        _ => {
            let target = Target::new(body);
            sum += target.filename().len();
        }
    }
    assert!(sum <= most, "{sum} bytes came out of {}", body.len());
});
