//! `cmdLine`: spellings of a command line that a shell takes for the same.

use super::scan;

/// Deletes `\`, `"`, `'`, `^`; makes one space of each run of spaces, `,`, `;`, tabs and line ends;
/// deletes the space before `/` and `(`; lower-cases ASCII.
pub(super) fn normalise(value: &[u8], out: &mut Vec<u8>) -> bool {
    let pair = uneven_space(value);
    let touched = scan::position(&value[..pair.unwrap_or(value.len())], is_touched);
    let Some(first) = touched.or(pair) else {
        return false;
    };
    out.extend_from_slice(&value[..first]);
    let mut space = value[..first].ends_with(b" ");
    for &byte in &value[first..] {
        match byte {
            b'"' | b'\'' | b'\\' | b'^' => continue,
            b' ' | b',' | b';' | b'\t' | b'\r' | b'\n' => {
                if !space {
                    out.push(b' ');
                }
                space = true;
                continue;
            }
            b'/' | b'(' if space => {
                out.pop();
                out.push(byte);
            }
            _ => out.push(byte.to_ascii_lowercase()),
        }
        space = false;
    }
    out != value
}

/// Where the first space stands that is changed.
pub(crate) fn uneven_space(value: &[u8]) -> Option<usize> {
    scan::position_of_pair(value, is_touched_pair)
}

/// A space is changed only before these.
fn is_touched_pair(first: u8, second: u8) -> bool {
    (first == b' ') & ((second == b' ') | (second == b'/') | (second == b'('))
}

/// Quotes, separators, capitals, which are changed wherever they stand.
fn is_touched(byte: u8) -> bool {
    (byte == b'"')
        | (byte == b'\'')
        | (byte == b',')
        | (byte == b';')
        | (byte == b'\t')
        | (byte == b'\n')
        | (byte == b'\r')
        | (byte == b'\\')
        | (byte == b'^')
        | byte.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_count_from_the_first_change_on() {
        let mut out = Vec::new();
        assert!(!normalise(b"a plain text 1", &mut out));
        for (value, want) in [
            ("a ,b", "a b"),
            ("a  b", "a b"),
            ("a \"/b", "a/b"),
            ("a b (c", "a b(c"),
            ("a B", "a b"),
        ] {
            out.clear();
            assert!(normalise(value.as_bytes(), &mut out));
            assert_eq!(out, want.as_bytes(), "{value}");
        }
    }
}
