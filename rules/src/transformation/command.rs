//! `cmdLine`: spellings of a command line that a shell takes for the same.

use super::scan;

/// Deletes `\`, `"`, `'`, `^`; makes one space of each run of spaces, `,`, `;`, tabs and line ends;
/// deletes the space before `/` and `(`; lower-cases ASCII.
pub(super) fn normalise(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = scan::position(value, is_touched) else {
        return false;
    };
    out.extend_from_slice(&value[..first]);
    let mut space = false;
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

/// Spaces, quotes, separators, capitals: written as ranges, which become vector code.
fn is_touched(byte: u8) -> bool {
    byte == b' '
        || byte == b'"'
        || byte == b'\''
        || byte == b','
        || byte == b';'
        || byte == b'\t'
        || byte == b'\n'
        || byte == b'\r'
        || byte == b'\\'
        || byte == b'^'
        || byte.is_ascii_uppercase()
}
