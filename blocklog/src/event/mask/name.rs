//! Names whose values are secrets.

use std::borrow::Cow;

/// Anywhere in a name.
const PARTS: [&str; 17] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "credential",
    "authorization",
    "cookie",
    "sessionid",
    "sessid",
    "cardnumber",
    "creditcard",
];
/// At the end of a name.
const ENDINGS: [&str; 6] = ["token", "pwd", "pass", "jwt", "signature", "auth"];
/// The whole of a name.
const WHOLE: [&str; 10] = [
    "pw", "psw", "pin", "otp", "cvc", "cvv", "cvv2", "sid", "sig", "pan",
];
/// Of a name that is longer, the end is looked at.
const LONGEST_BYTES: usize = 128;

/// Whether the value of a parameter, header, option or variable of this name is a secret. Case, `_`, `-`, `.`, brackets
/// and percent-encoding make no difference.
pub(super) fn is_secret(name: &str) -> bool {
    let name = percent_decoded(tail(name));
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    let bare: String = letters.map(|it| it.to_ascii_lowercase()).collect();
    let last = name
        .rsplit(['.', '[', ':'])
        .find(|it| !it.trim_end_matches(']').is_empty());
    let last = last
        .unwrap_or_default()
        .trim_end_matches(']')
        .trim_matches(['-', '_']);
    PARTS.iter().any(|it| bare.contains(it))
        || ENDINGS.iter().any(|it| bare.ends_with(it))
        || WHOLE.iter().any(|it| last.eq_ignore_ascii_case(it))
}

/// Whether a variable of the rule language, `REQUEST_HEADERS:Authorization`, is a secret.
pub(super) fn is_secret_variable(variable: &str) -> bool {
    let (collection, selector) = variable.split_once(':').unwrap_or((variable, ""));
    match collection.trim_start_matches(['!', '&']) {
        "REQUEST_COOKIES" | "AUTH_TYPE" => true,
        // Their values are names.
        "ARGS_NAMES" | "ARGS_GET_NAMES" | "ARGS_POST_NAMES" => false,
        "REQUEST_HEADERS_NAMES" | "REQUEST_COOKIES_NAMES" | "RESPONSE_HEADERS_NAMES" => false,
        _ => is_secret(selector),
    }
}

fn tail(name: &str) -> &str {
    let start = name.len().saturating_sub(LONGEST_BYTES);
    &name[name.ceil_char_boundary(start)..]
}

/// What is encoded as RFC 3986 §2.1 says, decoded; lossy UTF-8.
pub(super) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}
