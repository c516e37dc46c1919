//! Content proof: bytes of a request's inputs that appear in a kernel event.

use memchr::memmem;

/// Shortest stretch that counts. Twelve bytes of a command line that are also in a request, and
/// in no other, are no accident; eight often are ("upload.p", "/usr/bin").
pub(crate) const LEAST_BYTES: usize = 12;

/// Bytes compared at a time.
const WINDOW: usize = 8;

/// Text of an event, ready to be looked for in many inputs.
///
/// A bit table over all 8-byte windows of the text answers "not in it" for nearly every window
/// of an input; what is left is compared. Time is linear in text and input.
pub(crate) struct Needle<'a> {
    text: &'a [u8],
    bits: Box<[u64; BITS / 64]>,
}

const BITS: usize = 1 << 16;

impl<'a> Needle<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut bits = Box::new([0; BITS / 64]);
        for window in text.windows(WINDOW) {
            let bit = hash(window);
            bits[bit / 64] |= 1 << (bit % 64);
        }
        Self { text, bits }
    }

    /// The longest stretch of the text, at least [`LEAST_BYTES`], that lies within one input
    /// (inputs end with a newline).
    ///
    /// It may not break off within a word of both: where an input goes on with "m-1" and the text with
    /// "m-2", the text was made from another input, however long the part before is. So were then the
    /// shorter ones that seem whole, such as those between two escapes of the input as it was sent.
    pub(crate) fn longest_in<'b>(&self, inputs: &'b [u8]) -> Option<&'b [u8]> {
        let (mut best, mut longest_broken): (&[u8], usize) = (&[], 0);
        let mut at = 0;
        // Bounds the work on text made of one repeated letter: each extension is paid for by
        // what it covers, and there are only so many starts.
        let mut budget = inputs.len() * 4 + 4096;
        while at + WINDOW <= inputs.len() && budget > 0 {
            let window = &inputs[at..at + WINDOW];
            let bit = hash(window);
            if self.bits[bit / 64] & (1 << (bit % 64)) == 0 {
                at += 1;
                continue;
            }
            let around = self.around(inputs, at, &mut budget);
            longest_broken = longest_broken.max(around.longest_broken);
            if around.best.len() > best.len() {
                best = around.best;
            }
            at += (around.reach / 2).max(1);
        }
        (best.len() >= LEAST_BYTES.max(longest_broken)).then_some(best)
    }

    fn around<'b>(&self, inputs: &'b [u8], at: usize, budget: &mut usize) -> Around<'b> {
        let mut around = Around::default();
        for start in memmem::find_iter(self.text, &inputs[at..at + WINDOW]) {
            let (before, after) = (&self.text[..start], &self.text[start..]);
            let forth = common(after.iter(), inputs[at..].iter());
            let back = common(before.iter().rev(), inputs[..at].iter().rev());
            around.reach = around.reach.max(forth);
            let (from, to) = (at - back, at + forth);
            let broken_before = from > 0
                && start > back
                && is_of_word(inputs[from - 1])
                && is_of_word(self.text[start - back - 1]);
            let both_go_on = inputs.get(to).zip(self.text.get(start + forth));
            let broken_after = both_go_on.is_some_and(|(a, b)| is_of_word(*a) && is_of_word(*b));
            if broken_before || broken_after {
                around.longest_broken = around.longest_broken.max(to - from);
            } else if to - from > around.best.len() {
                around.best = &inputs[from..to];
            }
            *budget = budget.saturating_sub(back + forth + 1);
            if *budget == 0 {
                break;
            }
        }
        around
    }
}

/// What there is around one place of an input.
#[derive(Default)]
struct Around<'b> {
    /// How many bytes from there on are in the text too, one after the other, at most.
    reach: usize,
    /// The longest stretch that ends where a word does.
    best: &'b [u8],
    /// The length of the longest that does not.
    longest_broken: usize,
}

/// How many bytes at the start of both are the same, up to the end of an input or an argument.
fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other)
        .take_while(|(a, b)| a == b && **a != b'\n' && **a != 0)
        .count()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// FNV-like fold of 8 bytes to 16 bits.
fn hash(window: &[u8]) -> usize {
    let mut bytes = [0; WINDOW];
    bytes.copy_from_slice(window);
    (u64::from_le_bytes(bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

/// Whether `stretch` is in `inputs`.
pub(crate) fn contains(inputs: &[u8], stretch: &[u8]) -> bool {
    memmem::find(inputs, stretch).is_some()
}

/// Whether `stretch` is no more than the path of a program that a distribution installs. Anybody may
/// name one of those: long as it is, it is not rare.
pub(crate) fn is_installed_program(stretch: &[u8]) -> bool {
    const FOLDERS: [&[u8]; 7] = [
        b"/bin/",
        b"/sbin/",
        b"/usr/bin/",
        b"/usr/sbin/",
        b"/usr/local/bin/",
        b"/usr/lib/",
        b"/usr/local/lib/",
    ];
    let is_of_path = |byte: u8| is_of_word(byte) || b"/.-_+".contains(&byte);
    let from = stretch.iter().position(|it| *it == b'/').unwrap_or(0);
    let path = stretch[from..].trim_ascii();
    FOLDERS.iter().any(|it| path.starts_with(it))
        && path.iter().all(|it| is_of_path(*it))
        && !stretch[..from].iter().any(|it| is_of_word(*it))
}

/// Whether `stretch` is in `inputs` by itself: "10.0.0.1:80" is not in "http://10.0.0.1:8080/".
pub(crate) fn contains_whole(inputs: &[u8], stretch: &[u8]) -> bool {
    memmem::find_iter(inputs, stretch).any(|at| {
        let before = at.checked_sub(1).map(|it| inputs[it]);
        let after = inputs.get(at + stretch.len()).copied();
        !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_longest_stretch() {
        let needle = Needle::new(b"/bin/sh\0-c\0ping -c1 127.0.0.1; touch /tmp/marker-17\0");
        let inputs = b"/ping?host=127.0.0.1; touch /tmp/marker-17\ncurl/8.0\n";
        assert_eq!(
            needle.longest_in(inputs),
            Some(&b"127.0.0.1; touch /tmp/marker-17"[..])
        );
        assert_eq!(needle.longest_in(b"/ping?host=127.0.0.1\n"), None);
        assert_eq!(needle.longest_in(b""), None);
    }

    /// The first part of another attacker's command line, up to where the two differ, named him.
    #[test]
    fn what_goes_on_otherwise_is_no_match() {
        let needle = Needle::new(b"sh\0-c\0echo ping 127.0.0.1;touch /srv/marks/m-2a\0");
        let other = b"/ping?host=127.0.0.1;touch /srv/marks/m-1b\n";
        assert_eq!(needle.longest_in(other), None);
        let as_sent_too = b"/?h=127.0.0.1%3Btouch%20%2Fsrv-marks-of-long-name%2Fm-1b\n\
            h=127.0.0.1;touch /srv-marks-of-long-name/m-1b\n";
        let needle_of_both = Needle::new(b"touch /srv-marks-of-long-name/m-2a\0");
        assert_eq!(needle_of_both.longest_in(as_sent_too), None);
        let own = b"/ping?host=127.0.0.1;touch /srv/marks/m-2a&x=1\n";
        let whole = &b"127.0.0.1;touch /srv/marks/m-2a"[..];
        assert_eq!(needle.longest_in(own), Some(whole));
    }

    #[test]
    fn the_path_of_a_program_is_not_rare() {
        assert!(is_installed_program(b"/usr/bin/python3.11"));
        assert!(is_installed_program(b"=/usr/lib/jvm/bin/java "));
        assert!(!is_installed_program(b"/usr/bin/touch /srv/marker"));
        assert!(!is_installed_program(b"/srv/uploads/shell.sh"));
        assert!(!is_installed_program(b"id;/usr/bin/nc"));
    }

    #[test]
    fn a_target_is_found_whole() {
        assert!(contains_whole(b"u=http://10.0.0.1:80/\n", b"10.0.0.1:80"));
        assert!(!contains_whole(
            b"u=http://10.0.0.1:8080/\n",
            b"10.0.0.1:80"
        ));
        assert!(!contains_whole(b"u=http://110.0.0.1:80/\n", b"10.0.0.1:80"));
    }

    #[test]
    fn hostile_repetition_costs_linear_time() {
        let text = vec![b'a'; 8192];
        let input = vec![b'a'; 16 * 1024];
        let needle = Needle::new(&text);
        let start = std::time::Instant::now();
        for _ in 0..10 {
            assert!(needle.longest_in(&input).is_some());
        }
        assert!(
            start.elapsed() < std::time::Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
}
