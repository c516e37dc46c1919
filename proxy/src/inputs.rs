//! The decoded inputs of a request: what a client wrote, as a backend would come to see it.

use clew_protocol::request::INPUT_LIMIT_BYTES;
use http::HeaderMap;

/// Collects input bytes up to the bound; each input ends with a newline.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    bytes: Vec<u8>,
}

impl Inputs {
    /// The inputs in a request's head: the target and each header value.
    pub(crate) fn of_head(target: &[u8], headers: &HeaderMap) -> Self {
        let mut inputs = Self {
            bytes: Vec::with_capacity(1024),
        };
        inputs.add(target);
        for value in headers.values() {
            inputs.add(value.as_bytes());
        }
        inputs
    }

    /// One input, raw and, where it differs, percent-decoded with `+` as space.
    pub(crate) fn add(&mut self, input: &[u8]) {
        self.push(input);
        if input.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            self.push(&percent_decoded(input));
        }
    }

    /// One input as it is.
    pub(crate) fn add_raw(&mut self, input: &[u8]) {
        self.push(input);
    }

    fn push(&mut self, input: &[u8]) {
        let room = INPUT_LIMIT_BYTES.saturating_sub(self.bytes.len());
        if input.is_empty() || room < 2 {
            return;
        }
        self.bytes
            .extend_from_slice(&input[..input.len().min(room - 1)]);
        self.bytes.push(b'\n');
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.bytes.into()
    }
}

/// Percent-decoding (RFC 3986 §2.1) with `+` as space (WHATWG URL §5.1); what is no valid
/// escape stays as it is.
fn percent_decoded(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(byte),
        }
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_raw_and_decoded() {
        let mut inputs = Inputs::default();
        inputs.add(b"/a?b=%2Fbin%2fsh+-c%zz%4");
        assert_eq!(
            &*inputs.into_bytes(),
            b"/a?b=%2Fbin%2fsh+-c%zz%4\n/a?b=/bin/sh -c%zz%4\n"
        );
    }

    #[test]
    fn inputs_are_bounded() {
        let mut inputs = Inputs::default();
        for _ in 0..100 {
            inputs.add(&[b'x'; 1000]);
        }
        assert!(inputs.len() <= INPUT_LIMIT_BYTES);
    }
}
