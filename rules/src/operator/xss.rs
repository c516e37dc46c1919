//! `@detectXSS`: libinjection.

use memchr::memchr2;

use super::Found;

/// Whether libinjection takes `value` for cross-site scripting; the value is group 0.
///
/// Cost: linear in `value`; the slowest known text (`ononon `, again and again) takes 70 ns a byte.
pub(super) fn matches(value: &[u8], found: &mut Found) -> bool {
    found.clear();
    if !is_xss(value) {
        return false;
    }
    found.push(0..value.len());
    true
}

/// libinjection finds tags, which begin with `<`, and attributes, which have `=`. Without either it
/// is not asked.
fn is_xss(value: &[u8]) -> bool {
    memchr2(b'<', b'=', value).is_some() && libinjectionrs::detect_xss(value).is_injection()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_does_not_match() {
        const ATOMS: [&[u8]; 24] = [
            b"<",
            b">",
            b"/",
            b"=",
            b"'",
            b"\"",
            b"`",
            b" ",
            b"a",
            b"onload",
            b"style",
            b"href",
            b"javascript:",
            b"!",
            b"--",
            b"?",
            b"%",
            b"svg",
            b"script",
            b"xmlns",
            b"\0",
            b"&#106;",
            b"[CDATA[",
            b"doctype",
        ];
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize
        };
        let mut matched = 0;
        for _ in 0..60_000 {
            let mut value = Vec::new();
            for _ in 0..random() % 10 {
                value.extend_from_slice(ATOMS[random() % ATOMS.len()]);
            }
            let detected = libinjectionrs::detect_xss(&value).is_injection();
            assert_eq!(
                is_xss(&value),
                detected,
                "{:?}",
                String::from_utf8_lossy(&value)
            );
            matched += usize::from(detected);
        }
        assert!(matched > 1_000, "{matched}");
    }

    /// A megabyte, which would take minutes if it cost the square.
    #[test]
    fn long_values_cost_linear_time() {
        for unit in ["<a ", "ononon ", "<!--", "a=&#00", "</"] {
            is_xss(&unit.as_bytes().repeat((1 << 20) / unit.len()));
        }
    }
}
