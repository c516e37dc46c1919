//! `utf8toUnicode`, and the map that `urlDecodeUni` may use.

use super::scan::{self, hex_byte, hex_code};

/// `SecUnicodeMapFile`: which byte of a code page stands for a code point.
#[derive(Clone)]
pub struct UnicodeMap {
    code_page: u32,
    /// By code point; [`UNMAPPED`] where there is none. 128 KiB.
    bytes: Box<[u16]>,
}

/// No byte of the code page stands for this code point.
const UNMAPPED: u16 = u16::MAX;

/// Why a map file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnicodeMapError {
    /// The file does not have the code page.
    #[error("the Unicode map file has no code page {0}")]
    NoCodePage(u32),
    /// A pair is not `HHHH:HH`.
    #[error("line {line} of the Unicode map file: '{pair}' is not a pair HHHH:HH")]
    Pair {
        /// 1-based.
        line: usize,
        /// What stands there.
        pair: String,
    },
}

impl UnicodeMap {
    /// Reads code page `code_page` from the content of a map file (`unicode.mapping`): a line that
    /// begins with the page's number, and after it lines of pairs `HHHH:HH` until an empty one.
    ///
    /// # Errors
    ///
    /// See [`UnicodeMapError`].
    pub fn parse(content: &[u8], code_page: u32) -> Result<Self, UnicodeMapError> {
        let text = String::from_utf8_lossy(content);
        let mut lines = text.lines().enumerate();
        let names_page = |line: &str| {
            line.split_ascii_whitespace()
                .next()
                .and_then(|number| number.parse().ok())
                == Some(code_page)
        };
        lines
            .find(|(_, line)| names_page(line))
            .ok_or(UnicodeMapError::NoCodePage(code_page))?;
        let mut bytes = vec![UNMAPPED; 1 << 16].into_boxed_slice();
        for (number, line) in lines.take_while(|(_, line)| !line.trim().is_empty()) {
            for pair in line.split_ascii_whitespace() {
                let (code, byte) = read_pair(pair).ok_or_else(|| UnicodeMapError::Pair {
                    line: number + 1,
                    pair: pair.to_owned(),
                })?;
                bytes[usize::from(code)] = u16::from(byte);
            }
        }
        Ok(Self { code_page, bytes })
    }

    /// The byte that stands for `code`.
    pub fn byte(&self, code: u16) -> Option<u8> {
        u8::try_from(self.bytes[usize::from(code)]).ok()
    }
}

impl std::fmt::Debug for UnicodeMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnicodeMap")
            .field("code_page", &self.code_page)
            .finish_non_exhaustive()
    }
}

fn read_pair(pair: &str) -> Option<(u16, u8)> {
    match pair.split_once(':')? {
        (code, byte) if code.len() == 4 && byte.len() == 2 => {
            Some((hex_code(code.as_bytes())?, hex_byte(byte.as_bytes())?))
        }
        _ => None,
    }
}

/// Each UTF-8 sequence of two to four bytes becomes `%uHHHH` (more digits past U+FFFF); what is
/// none stays as it is. After a sequence that UTF-8 forbids (overlong, surrogate), its first byte
/// stays too, as in ModSecurity: a rule sees the `/` of `c0 af`, and that something was wrong with
/// it.
pub(super) fn to_unicode(value: &[u8], out: &mut Vec<u8>) -> bool {
    let mut at = 0;
    let mut changed = false;
    while let Some(offset) = scan::position(&value[at..], |byte| byte >= 0x80) {
        out.extend_from_slice(&value[at..at + offset]);
        at += offset;
        let Some((code, length, allowed)) = sequence(&value[at..]) else {
            out.push(value[at]);
            at += 1;
            continue;
        };
        push_code(code, out);
        if !allowed {
            out.push(value[at]);
        }
        at += length;
        changed = true;
    }
    out.extend_from_slice(&value[at..]);
    changed
}

/// The code point that `rest` begins with, the length of its sequence, and whether RFC 3629 allows it.
fn sequence(rest: &[u8]) -> Option<(u32, usize, bool)> {
    let (length, first) = match rest[0] {
        lead @ 0xc0..=0xdf => (2, lead & 0x1f),
        lead @ 0xe0..=0xef => (3, lead & 0x0f),
        lead @ 0xf0..=0xf4 => (4, lead & 0x07),
        _ => return None,
    };
    let mut code = u32::from(first);
    for &byte in rest.get(1..length)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        code = code << 6 | u32::from(byte & 0x3f);
    }
    Some((code, length, std::str::from_utf8(&rest[..length]).is_ok()))
}

fn push_code(code: u32, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let count = (8 - code.leading_zeros() / 4).max(4);
    out.extend_from_slice(b"%u");
    out.extend(
        (0..count)
            .rev()
            .map(|place| DIGITS[(code >> (4 * place) & 15) as usize]),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"1250 (ANSI - Central Europe)\n\
        00a1:21 00a2:63\n\
        \n\
        20127 (US-ASCII)\n\
        00a0:20 00e9:65 ff41:61\n";

    #[test]
    fn a_page_ends_at_the_empty_line() {
        let map = UnicodeMap::parse(FILE, 1250).expect("the page is there");
        assert_eq!(map.byte(0xa1), Some(b'!'));
        assert_eq!(map.byte(0xe9), None);
        let map = UnicodeMap::parse(FILE, 20127).expect("the page is there");
        assert_eq!(map.byte(0xe9), Some(b'e'));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(
            UnicodeMap::parse(FILE, 7).err(),
            Some(UnicodeMapError::NoCodePage(7))
        );
        let broken = UnicodeMap::parse(b"7 (x)\n00a1:21 zz:1\n", 7).err();
        assert_eq!(
            broken,
            Some(UnicodeMapError::Pair {
                line: 2,
                pair: "zz:1".into()
            })
        );
    }
}
