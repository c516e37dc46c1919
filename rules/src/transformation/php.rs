//! `phpArgsNames`: the name under which PHP stores a variable.

use memchr::memchr;

use super::scan::is_space;

/// PHP drops leading spaces, makes `_` of a space and `.` before the first `[`, and of that `[`
/// where no `]` follows; what stands after the last `[index]` is lost. A name that begins with `[`
/// is no variable. Source: PHP's manual, "Variables From External Sources", and
/// `php_register_variable_ex`.
pub(super) fn name(value: &[u8], out: &mut Vec<u8>) -> bool {
    let trimmed = &value[value.iter().take_while(|&&byte| byte == b' ').count()..];
    let base = memchr(b'[', trimmed).unwrap_or(trimmed.len());
    if base == 0 {
        return !value.is_empty();
    }
    out.extend(trimmed[..base].iter().map(|&byte| {
        if matches!(byte, b' ' | b'.') {
            b'_'
        } else {
            byte
        }
    }));
    let mut rest = &trimmed[base..];
    let mut first = true;
    while rest.first() == Some(&b'[') {
        let Some(close) = memchr(b']', rest) else {
            if first {
                out.push(b'_');
                out.extend_from_slice(&rest[1..]);
            }
            break;
        };
        let index = &rest[1..close];
        out.push(b'[');
        // `[ ]` is `[]`.
        if !(index.len() == 1 && is_space(index[0])) {
            out.extend_from_slice(index);
        }
        out.push(b']');
        rest = &rest[close + 1..];
        first = false;
    }
    out != value
}
