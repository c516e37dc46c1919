//! Content codings undone, for the rules to look at; nobody else sees the result.

use std::io::{BufRead, ErrorKind, Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::HeaderValue;

/// Codings on top of one another; more than one is rare, more than three nobody needs.
const MOST: usize = 3;
/// What a body may expand to whatever its size: small bodies compress best.
const FREE_BYTES: usize = 64 * 1024;

/// A coding that can be undone (RFC 9110 §8.4.1, RFC 7932, RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// A coding that cannot be undone, or too many of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

/// How far decoding may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes that are wanted; what comes after is not decoded.
    pub(super) bytes: usize,
    /// How many times its size a body may expand to.
    pub(super) expansion: usize,
}

/// Decoded bytes, and how they end.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    pub(super) outcome: Outcome,
}

/// How decoding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The coded data and the body end together.
    Complete,
    /// As many bytes as were wanted.
    Full,
    /// The body ends first.
    Unfinished,
    /// Not in this coding, or something follows its end.
    Malformed,
    /// Expands too far.
    Bomb,
}

/// The codings of a body in the order in which they are to be undone.
pub(super) fn codings<'h>(
    values: impl IntoIterator<Item = &'h HeaderValue>,
) -> Result<Vec<Coding>, Unknown> {
    let mut codings = Vec::new();
    for value in values {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"" | b"identity" => {}
                b"gzip" | b"x-gzip" => codings.push(Coding::Gzip),
                b"deflate" => codings.push(Coding::Deflate),
                b"br" => codings.push(Coding::Brotli),
                b"zstd" => codings.push(Coding::Zstd),
                _ => return Err(Unknown),
            }
        }
    }
    codings.reverse();
    if codings.len() > MOST {
        return Err(Unknown);
    }
    Ok(codings)
}

/// Undoes `codings`, one after the other.
pub(super) fn decode<'p>(
    codings: &[Coding],
    pieces: impl Iterator<Item = &'p Bytes> + Clone,
    limits: Limits,
) -> Decoded {
    let size: usize = pieces.clone().map(Bytes::len).sum();
    let most = size.saturating_mul(limits.expansion).max(FREE_BYTES);
    let mut decoded: Option<Decoded> = None;
    for coding in codings {
        let next = match &decoded {
            None => undo(
                *coding,
                pieces.clone().map(|piece| &piece[..]),
                limits.bytes,
                most,
            ),
            Some(before) => {
                let mut next = undo(
                    *coding,
                    std::iter::once(&before.bytes[..]),
                    limits.bytes,
                    most,
                );
                next.outcome = worse(before.outcome, next.outcome);
                next
            }
        };
        decoded = Some(next);
        if decoded
            .as_ref()
            .is_some_and(|it| matches!(it.outcome, Outcome::Malformed | Outcome::Bomb))
        {
            break;
        }
    }
    decoded.unwrap_or(Decoded {
        bytes: Vec::new(),
        outcome: Outcome::Complete,
    })
}

/// Of the outcomes of two codings: what holds for both.
fn worse(outer: Outcome, inner: Outcome) -> Outcome {
    match (outer, inner) {
        // What was not wanted of the outer one is missing in the inner one.
        (Outcome::Full, Outcome::Unfinished) => Outcome::Full,
        (outer, Outcome::Complete) => outer,
        (_, inner) => inner,
    }
}

fn undo<'p>(
    coding: Coding,
    pieces: impl Iterator<Item = &'p [u8]>,
    wanted: usize,
    most: usize,
) -> Decoded {
    let mut input = Pieces { now: &[], pieces };
    let mut bytes = Vec::new();
    let read = match coding {
        Coding::Gzip => draw(MultiGzDecoder::new(&mut input), &mut bytes, wanted, most),
        Coding::Deflate => draw(Inflate::new(&mut input), &mut bytes, wanted, most),
        Coding::Brotli => draw(Unbrotli::new(&mut input), &mut bytes, wanted, most),
        Coding::Zstd => zstd(&mut input).and_then(|it| draw(it, &mut bytes, wanted, most)),
    };
    let outcome = match read {
        Ok(Outcome::Complete) if input.fill_buf().is_ok_and(|rest| !rest.is_empty()) => {
            Outcome::Malformed
        }
        Ok(outcome) => outcome,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Outcome::Unfinished,
        Err(_) => Outcome::Malformed,
    };
    Decoded { bytes, outcome }
}

/// Reads until the end, or until there is enough or too much.
fn draw(
    mut decoder: impl Read,
    bytes: &mut Vec<u8>,
    wanted: usize,
    most: usize,
) -> std::io::Result<Outcome> {
    let mut buffer = [0; 8192];
    loop {
        let count = decoder.read(&mut buffer)?;
        if count == 0 {
            return Ok(Outcome::Complete);
        }
        if bytes.len() + count > most {
            return Ok(Outcome::Bomb);
        }
        let room = wanted - bytes.len();
        bytes.extend_from_slice(&buffer[..count.min(room)]);
        if bytes.len() == wanted {
            return Ok(Outcome::Full);
        }
    }
}

/// With the window that RFC 9659 allows for the web, 8 MiB; the format allows 2 GiB.
fn zstd<R: BufRead>(input: R) -> std::io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(23)?;
    Ok(decoder)
}

/// Pieces of a body, read one after the other.
struct Pieces<'p, I> {
    now: &'p [u8],
    pieces: I,
}

impl<'p, I: Iterator<Item = &'p [u8]>> Read for Pieces<'p, I> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl<'p, I: Iterator<Item = &'p [u8]>> BufRead for Pieces<'p, I> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.now.is_empty()
            && let Some(next) = self.pieces.next()
        {
            self.now = next;
        }
        Ok(self.now)
    }

    fn consume(&mut self, count: usize) {
        self.now = &self.now[count..];
    }
}

/// `deflate`: zlib data (RFC 1950), or what many senders take it for, bare deflate data (RFC 1951).
///
/// flate2's own readers do not tell data that ends from data that is cut off.
struct Inflate<R> {
    input: R,
    state: Option<Decompress>,
    has_ended: bool,
}

impl<R: BufRead> Inflate<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            state: None,
            has_ended: false,
        }
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while !self.has_ended {
            let input = self.input.fill_buf()?;
            let is_last = input.is_empty();
            let state = self
                .state
                .get_or_insert_with(|| Decompress::new(is_zlib(input)));
            let (before_in, before_out) = (state.total_in(), state.total_out());
            let status = state.decompress(input, out, FlushDecompress::None)?;
            let taken = (state.total_in() - before_in) as usize;
            let made = (state.total_out() - before_out) as usize;
            self.has_ended = status == Status::StreamEnd;
            self.input.consume(taken);
            if made > 0 || out.is_empty() {
                return Ok(made);
            }
            if !self.has_ended && is_last {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if !self.has_ended && taken == 0 {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Ok(0)
    }
}

/// `br` (RFC 7932). The crate's own reader reads on where the data has ended.
struct Unbrotli<R> {
    input: R,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    has_ended: bool,
}

impl<R: BufRead> Unbrotli<R> {
    fn new(input: R) -> Self {
        let alloc = StandardAlloc::default;
        Self {
            input,
            state: BrotliState::new(alloc(), alloc(), alloc()),
            has_ended: false,
        }
    }
}

impl<R: BufRead> Read for Unbrotli<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while !self.has_ended {
            let input = self.input.fill_buf()?;
            let is_last = input.is_empty();
            let (mut available_in, mut taken) = (input.len(), 0);
            let (mut available_out, mut made, mut total) = (out.len(), 0, 0);
            let result = BrotliDecompressStream(
                &mut available_in,
                &mut taken,
                input,
                &mut available_out,
                &mut made,
                out,
                &mut total,
                &mut self.state,
            );
            self.input.consume(taken);
            match result {
                BrotliResult::ResultSuccess => self.has_ended = true,
                BrotliResult::ResultFailure => return Err(ErrorKind::InvalidData.into()),
                BrotliResult::NeedsMoreInput if is_last && made == 0 => {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
            if made > 0 || out.is_empty() {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

/// RFC 1950 §2.2: method 8, and a multiple of 31. A piece of one byte is taken for zlib by its
/// method alone.
fn is_zlib(start: &[u8]) -> bool {
    let method = start
        .first()
        .is_some_and(|byte| byte & 0x0f == 8 && byte >> 4 <= 7);
    let check = match start {
        [first, second, ..] => (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0,
        _ => true,
    };
    method && check
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 1 << 20,
        expansion: 100,
    };

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("gzip");
        encoder.finish().expect("gzip")
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("zlib");
        encoder.finish().expect("zlib")
    }

    fn bare(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("deflate");
        encoder.finish().expect("deflate")
    }

    fn zst(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 3).expect("zstd")
    }

    /// `a=1` repeated is what tests use; a stored meta-block (RFC 7932 §9.2) holds any text.
    fn brotli(text: &[u8]) -> Vec<u8> {
        // WBITS 16 (one 0 bit), then ISLAST 0, MNIBBLES 4 (00), MLEN-1 (16 bits), ISUNCOMPRESSED 1.
        let length = (text.len() - 1) as u32;
        let head = (length << 4) | (1 << 20);
        let mut bytes = head.to_le_bytes()[..3].to_vec();
        bytes.extend_from_slice(text);
        // ISLAST 1, ISLASTEMPTY 1.
        bytes.push(3);
        bytes
    }

    fn all(coding: Coding, coded: &[u8], size: usize) -> Decoded {
        let pieces: Vec<Bytes> = coded.chunks(size).map(Bytes::copy_from_slice).collect();
        decode(&[coding], pieces.iter(), LIMITS)
    }

    #[test]
    fn each_coding_is_undone_in_pieces_of_any_size() {
        let text = b"file=../../etc/passwd&x=1".repeat(40);
        for (coding, coded) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, bare(&text)),
            (Coding::Brotli, brotli(&text)),
            (Coding::Zstd, zst(&text)),
        ] {
            for size in [1, 7, 100_000] {
                let decoded = all(coding, &coded, size);
                assert_eq!(decoded.outcome, Outcome::Complete, "{coding:?} {size}");
                assert!(decoded.bytes == text, "{coding:?} {size}");
            }
        }
    }

    #[test]
    fn what_is_cut_or_followed_is_told() {
        let text = b"a=1&b=2".repeat(40);
        for (coding, coded) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, bare(&text)),
            (Coding::Brotli, brotli(&text)),
            (Coding::Zstd, zst(&text)),
        ] {
            let cut = all(coding, &coded[..coded.len() - 1], 64).outcome;
            assert!(
                matches!(cut, Outcome::Unfinished | Outcome::Malformed),
                "{coding:?}: {cut:?}"
            );
            let followed = [&coded[..], b"&file=/etc/passwd"].concat();
            let outcome = all(coding, &followed, 64).outcome;
            assert_eq!(outcome, Outcome::Malformed, "{coding:?}");
            let outcome = all(coding, b"file=/etc/passwd", 64).outcome;
            assert!(
                matches!(outcome, Outcome::Malformed | Outcome::Unfinished),
                "{coding:?}: {outcome:?}"
            );
        }
    }

    #[test]
    fn bombs_stop_early() {
        let zeros = vec![0; 50 << 20];
        for (coding, coded) in [(Coding::Gzip, gzip(&zeros)), (Coding::Zstd, zst(&zeros))] {
            let pieces = [Bytes::from(coded)];
            let limits = Limits {
                bytes: 1 << 30,
                expansion: 100,
            };
            let decoded = decode(&[coding], pieces.iter(), limits);
            assert_eq!(decoded.outcome, Outcome::Bomb);
            assert!(decoded.bytes.len() <= 100 * pieces[0].len().max(FREE_BYTES));
            let limits = Limits {
                bytes: 1000,
                expansion: 1_000_000,
            };
            let decoded = decode(&[coding], pieces.iter(), limits);
            assert_eq!(
                (decoded.outcome, decoded.bytes.len()),
                (Outcome::Full, 1000)
            );
        }
    }

    #[test]
    fn codings_are_undone_in_reverse() {
        let value = HeaderValue::from_static("gzip, zstd");
        let order = codings([&value]).expect("known");
        assert_eq!(order, [Coding::Zstd, Coding::Gzip]);
        let pieces = [Bytes::from(zst(&gzip(b"a=1")))];
        let decoded = decode(&order, pieces.iter(), LIMITS);
        assert_eq!(
            (&decoded.bytes[..], decoded.outcome),
            (&b"a=1"[..], Outcome::Complete)
        );
        for unknown in ["compress", "gzip, foo", "gzip, gzip, gzip, gzip"] {
            assert_eq!(
                codings([&HeaderValue::from_static(unknown)]),
                Err(Unknown),
                "{unknown}"
            );
        }
        assert_eq!(
            codings([&HeaderValue::from_static("identity, ")]),
            Ok(Vec::new())
        );
    }

    #[test]
    fn any_bytes_are_taken() {
        let coded = gzip(b"some text that is not long");
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            for at in 0..coded.len() {
                let mut changed = coded.clone();
                changed[at] ^= 0xff;
                all(coding, &changed, 5);
                all(coding, &coded[at..], 3);
            }
        }
    }
}
