//! Request targets and URLs: parameters by name, and what is percent-encoded in them.

use super::name::{is_secret, percent_decoded};
use super::{MASK, text};

/// Masks a request target, or a URL.
pub(super) fn target(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return component(target);
    };
    let mut masked = component(path);
    masked.push('?');
    for parameter in query.split_inclusive(['&', ';']) {
        let bare = parameter.trim_end_matches(['&', ';']);
        masked.push_str(&self::parameter(bare));
        masked.push_str(&parameter[bare.len()..]);
    }
    masked
}

fn parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, "")) => format!("{}=", component(name)),
        Some((name, _)) if is_secret(name) => format!("{name}={MASK}"),
        Some((name, value)) => format!("{}={}", component(name), component(value)),
        None => component(parameter),
    }
}

/// A part that may be encoded: where a secret is seen once it is decoded, it is written anew.
fn component(part: &str) -> String {
    if !part.contains(['%', '+']) {
        return text(part);
    }
    let decoded = percent_decoded(part).replace('+', " ");
    let masked = text(&decoded);
    match masked == decoded {
        true => text(part),
        false => encoded(&masked),
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'0'..=b'9'
            | b'a'..=b'z'
            | b'A'..=b'Z'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'/'
            | b'*'
            | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
