//! `normalisePath` and `normalisePathWin`.

use memchr::{memchr, memchr_iter, memrchr};

/// Removes `//`, `/./` and, with the segment before them, `/../` (which stay where a relative
/// path has nothing before them; an absolute path does not rise above its root).
pub(super) fn normalise(value: &[u8], out: &mut Vec<u8>) -> bool {
    if is_normal(value) {
        return false;
    }
    rebuild(value, |byte| byte == b'/', out);
    out != value
}

/// As [`normalise`], after `\` has become `/`.
pub(super) fn normalise_win(value: &[u8], out: &mut Vec<u8>) -> bool {
    if is_normal(value) && memchr(b'\\', value).is_none() {
        return false;
    }
    rebuild(value, |byte| byte == b'/' || byte == b'\\', out);
    out != value
}

/// Whether no segment but the last is empty, and none begins with a dot. May be `false` of a normal path.
fn is_normal(value: &[u8]) -> bool {
    let begins_well = |at: usize| !matches!(value.get(at), Some(b'/' | b'.'));
    value.first() != Some(&b'.') && memchr_iter(b'/', value).all(|slash| begins_well(slash + 1))
}

fn rebuild(value: &[u8], slash: impl Fn(u8) -> bool + Copy, out: &mut Vec<u8>) {
    let absolute = value.first().copied().is_some_and(slash);
    let trailing = value.last().copied().is_some_and(slash);
    let root = usize::from(absolute);
    if absolute {
        out.push(b'/');
    }
    for segment in value.split(|&byte| slash(byte)) {
        match segment {
            b"" | b"." => {}
            b".." if rises(&out[root..]) => pop(out, root),
            b".." if absolute => {}
            _ => {
                if out.len() > root {
                    out.push(b'/');
                }
                out.extend_from_slice(segment);
            }
        }
    }
    if trailing && out.len() > root {
        out.push(b'/');
    }
}

/// Whether the last segment is one that `..` takes away.
fn rises(path: &[u8]) -> bool {
    !(path.is_empty() || path == b".." || path.ends_with(b"/.."))
}

fn pop(out: &mut Vec<u8>, root: usize) {
    let keep = memrchr(b'/', &out[root..]).unwrap_or(0);
    out.truncate(root + keep);
}
