//! The decoded inputs of a request: what a client wrote, as a backend would come to see it.

use clew_protocol::request::INPUT_LIMIT_BYTES;
use pingora::http::RequestHeader;

use crate::unescape::Coding;

/// Collects input bytes up to the bound; each input ends with a newline.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    bytes: Vec<u8>,
}

impl Inputs {
    /// The inputs in a request's head: the target, the authority where it is no header
    /// (HTTP/2), and each header value.
    pub(crate) fn of_head(request: &RequestHeader) -> Self {
        let mut inputs = Self {
            bytes: Vec::with_capacity(1024),
        };
        inputs.add(request.raw_path());
        if let Some(authority) = request.uri.authority() {
            inputs.add(authority.as_str().as_bytes());
        }
        for value in request.headers.values() {
            inputs.add(value.as_bytes());
        }
        inputs
    }

    /// One input, raw and, where it differs, percent-decoded with `+` as space.
    fn add(&mut self, input: &[u8]) {
        self.push(input);
        if input.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            let mut decoded = Vec::with_capacity(input.len());
            let rest = Coding::Form.decode(input, &mut decoded);
            decoded.extend_from_slice(rest);
            self.push(&decoded);
        }
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

/// The inputs in a body, piece by piece and without a break between the pieces: who splits a
/// body where it matters is not to escape the comparison.
///
/// A coded body (form, JSON) comes decoded as it arrives, and raw at its end if that differs.
#[derive(Debug)]
pub(crate) struct BodyInputs {
    coding: Coding,
    /// An escape that a piece began and did not end; at most [`Coding::LONGEST_ESCAPE`] bytes.
    begun: Vec<u8>,
    /// The body as it came, when it is coded.
    raw: Vec<u8>,
    is_coded: bool,
    /// Bytes that may still be reported.
    room: usize,
}

impl BodyInputs {
    /// For the body of `request`, of whose head `reported` bytes have been reported.
    pub(crate) fn new(request: &RequestHeader, reported: usize) -> Self {
        Self {
            coding: Coding::of(request),
            begun: Vec::new(),
            raw: Vec::new(),
            is_coded: false,
            room: INPUT_LIMIT_BYTES.saturating_sub(reported),
        }
    }

    /// What to report of the next piece of the body; may be empty.
    pub(crate) fn next(&mut self, piece: &[u8], is_last: bool) -> Box<[u8]> {
        let mut out = Vec::new();
        if self.room > 0 {
            self.decode(piece, &mut out);
            if is_last {
                self.finish(&mut out);
            }
        }
        out.truncate(self.room);
        self.room -= out.len();
        out.into()
    }

    fn decode(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.coding == Coding::Plain {
            out.extend_from_slice(&piece[..piece.len().min(self.room)]);
            return;
        }
        // Decoding shrinks: more than this cannot be needed to fill what room there is.
        let piece = &piece[..piece.len().min(self.room * Coding::LONGEST_ESCAPE)];
        let keep = INPUT_LIMIT_BYTES.saturating_sub(self.raw.len());
        self.raw.extend_from_slice(&piece[..piece.len().min(keep)]);
        let mut joined = std::mem::take(&mut self.begun);
        joined.extend_from_slice(piece);
        let rest = self.coding.decode(&joined, out);
        self.is_coded |= !joined.starts_with(out);
        self.begun = rest.to_vec();
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.begun);
        if self.is_coded {
            out.push(b'\n');
            out.append(&mut self.raw);
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str) -> RequestHeader {
        let mut request =
            RequestHeader::build("POST", b"/a?b=%2Fbin%2fsh+-c%zz%4", None).expect("head");
        request.insert_header("content-type", kind).expect("type");
        request
    }

    #[test]
    fn inputs_are_raw_and_decoded() {
        let inputs = Inputs::of_head(&request("x"));
        assert_eq!(
            &*inputs.into_bytes(),
            b"/a?b=%2Fbin%2fsh+-c%zz%4\n/a?b=/bin/sh -c%zz%4\nx\n"
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

    #[test]
    fn bodies_are_bounded() {
        for kind in [
            "text/plain",
            "application/json",
            "application/x-www-form-urlencoded",
        ] {
            for piece in [
                &b"x"[..],
                b"%41",
                b"\\u0041",
                &[b'\\'; 100_000],
                &[b'%'; 100_000],
            ] {
                let mut body = BodyInputs::new(&request(kind), 1000);
                let mut reported = 0;
                for _ in 0..20_000_000 / piece.len().max(1000) {
                    reported += body.next(piece, false).len();
                    assert!(body.begun.len() <= Coding::LONGEST_ESCAPE);
                    assert!(body.raw.len() <= INPUT_LIMIT_BYTES);
                }
                reported += body.next(b"", true).len();
                assert!(reported <= INPUT_LIMIT_BYTES - 1000, "{kind}: {reported}");
            }
        }
    }
}
