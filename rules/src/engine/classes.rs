//! Which classes of bytes a value has, and which classes a transformation can change at all.
//!
//! Benign values are unchanged by nearly every transformation. One pass over a value finds its
//! classes; a transformation none of whose triggers is among them leaves the value as it is and is
//! never called.

use crate::transformation::{Transformation, uneven_space};

/// Which bytes there are, as bits: one for each letter (either case), digit and punctuation mark, for
/// each blank, and a few for the rest; whether letters of either case are there, and a space that is
/// not alone. A set may have more than there is, never less.
pub(super) type Classes = u128;

/// In every value, empty ones too: the trigger of what changes all values.
pub(super) const ALWAYS: Classes = 1 << 127;
const UPPER: Classes = 1 << 84;
const LOWER: Classes = 1 << 85;
const DIGIT: Classes = 0x3ff << 26;
const HIGH: Classes = 0x1ff << 75;
/// What `isspace` accepts.
const SPACE: Classes = 0x1f << 68;
const NUL: Classes = 1 << 73;
const BLANK: Classes = bit(b' ');
/// What a space more may bring.
pub(super) const BLANKS: Classes = BLANK | UNEVEN;
/// A space before another, or before `/` or `(`: of spaces, only these are touched by `cmdLine` and `compressWhitespace`.
const UNEVEN: Classes = 1 << 86;

static TABLE: [Classes; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = bit(byte as u8) | case(byte as u8);
        byte += 1;
    }
    table
};

const fn case(byte: u8) -> Classes {
    match byte {
        b'A'..=b'Z' => UPPER,
        b'a'..=b'z' => LOWER,
        _ => 0,
    }
}

/// The bit of a byte; of a letter, that of both cases.
pub(super) const fn bit(byte: u8) -> Classes {
    let index = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a',
        b'0'..=b'9' => 26 + byte - b'0',
        b'!'..=b'/' => 36 + byte - b'!',
        b':'..=b'@' => 51 + byte - b':',
        b'['..=b'`' => 58 + byte - b'[',
        b'{'..=b'~' => 64 + byte - b'{',
        b' ' => 68,
        b'\t' => 69,
        b'\n' => 70,
        b'\r' => 71,
        0x0b | 0x0c => 72,
        0 => 73,
        1..=0x1f | 0x7f => 74,
        0x80..=0x9f => 75,
        0xa0 => 76,
        0xbc => 78,
        0xbe => 79,
        0xa1..=0xbf => 77,
        0xc0.. => 80 + (byte - 0xc0) / 16,
    };
    1 << index
}

/// The bits of some bytes.
const fn bits(bytes: &[u8]) -> Classes {
    let mut all = 0;
    let mut index = 0;
    while index < bytes.len() {
        all |= bit(bytes[index]);
        index += 1;
    }
    all
}

/// A rule's bit among the 64 that are kept for each value.
pub(super) fn bloom(place: u32) -> u64 {
    1 << (place % 64)
}

/// Without what only changes upper to lower case, or back.
pub(super) fn without_case(triggers: Classes) -> Classes {
    triggers & !(UPPER | LOWER)
}

/// Of values longer than this it is noted first which bytes there are, and what they are in the end.
const LONG: usize = 512;

/// The classes of the bytes in `value`.
pub(super) fn classes(value: &[u8]) -> Classes {
    let bytes = classes_of_bytes(value);
    let uneven = bytes & BLANK != 0 && uneven_space(value).is_some();
    bytes | if uneven { UNEVEN } else { 0 }
}

fn classes_of_bytes(value: &[u8]) -> Classes {
    if value.len() > LONG {
        let mut seen = [false; 256];
        for byte in value {
            seen[usize::from(*byte)] = true;
        }
        let seen = TABLE.iter().zip(seen).filter(|(_, seen)| *seen);
        return seen.fold(ALWAYS, |set, (class, _)| set | class);
    }
    let mut lanes = [ALWAYS, 0, 0, 0];
    let mut chunks = value.chunks_exact(4);
    for chunk in &mut chunks {
        for (lane, byte) in lanes.iter_mut().zip(chunk) {
            *lane |= TABLE[usize::from(*byte)];
        }
    }
    let rest = chunks
        .remainder()
        .iter()
        .fold(0, |set, byte| set | TABLE[usize::from(*byte)]);
    lanes.iter().fold(rest, |set, lane| set | lane)
}

/// Classes without which `transformation` leaves a value unchanged.
pub(super) fn triggers(transformation: Transformation) -> Classes {
    TRIGGERS[transformation as usize]
}

/// Whether the result may be longer than the value, where a transformation is triggered.
pub(super) fn may_grow(transformation: Transformation) -> bool {
    use Transformation as T;
    !matches!(
        transformation,
        T::Base64Decode
            | T::Base64DecodeExt
            | T::CmdLine
            | T::CompressWhitespace
            | T::CssDecode
            | T::EscapeSeqDecode
            | T::HexDecode
            | T::HtmlEntityDecode
            | T::JsDecode
            | T::Lowercase
            | T::NormalisePath
            | T::NormalisePathWin
            | T::RemoveComments
            | T::RemoveCommentsChar
            | T::RemoveNulls
            | T::RemoveWhitespace
            | T::ReplaceComments
            | T::ReplaceNulls
            | T::SqlHexDecode
            | T::Trim
            | T::TrimLeft
            | T::TrimRight
            | T::Uppercase
            | T::UrlDecode
            | T::UrlDecodeUni
    )
}

/// Of a transformation that only takes bytes away: what it may put in their place. `None`: anything.
pub(super) fn may_add(transformation: Transformation) -> Option<Classes> {
    use Transformation as T;
    match transformation {
        T::Lowercase => Some(LOWER),
        T::Uppercase => Some(UPPER),
        T::RemoveNulls
        | T::RemoveWhitespace
        | T::RemoveCommentsChar
        | T::Trim
        | T::TrimLeft
        | T::TrimRight => Some(0),
        T::CompressWhitespace | T::ReplaceNulls | T::ReplaceComments => Some(bit(b' ')),
        T::CmdLine => Some(LOWER | bit(b' ')),
        T::RemoveComments => Some(NUL | bit(b' ')),
        T::NormalisePath | T::NormalisePathWin => Some(bit(b'/')),
        _ => None,
    }
}

/// Classes among which are those of what a triggered transformation makes of a value of the classes `before`.
/// `None`: it may be any.
pub(super) fn after(transformation: Transformation, before: Classes) -> Option<Classes> {
    use Transformation as T;
    let taken = match transformation {
        T::Lowercase => UPPER,
        T::Uppercase => LOWER,
        T::RemoveNulls | T::ReplaceNulls => NUL,
        T::RemoveWhitespace => SPACE | bit(0xa0),
        T::CompressWhitespace => SPACE,
        T::CmdLine => UPPER | bits(b"\\\"'^,;\t\r\n"),
        _ => 0,
    };
    let after = before & !taken | may_add(transformation)?;
    let keeps_blanks = matches!(transformation, T::Lowercase | T::Uppercase);
    let uneven = after & BLANK != 0 && !keeps_blanks;
    Some(after | if uneven { UNEVEN } else { 0 })
}

static TRIGGERS: [Classes; Transformation::ALL.len()] = {
    let mut all = [0; Transformation::ALL.len()];
    let mut index = 0;
    while index < all.len() {
        all[Transformation::ALL[index] as usize] = triggers_of(Transformation::ALL[index]);
        index += 1;
    }
    all
};

const fn triggers_of(transformation: Transformation) -> Classes {
    use Transformation as T;
    match transformation {
        T::UrlDecode | T::UrlDecodeUni => bits(b"%+"),
        T::HtmlEntityDecode => bits(b"&"),
        T::JsDecode | T::CssDecode | T::EscapeSeqDecode => bits(b"\\"),
        T::Lowercase => UPPER,
        T::Uppercase => LOWER,
        T::RemoveNulls | T::ReplaceNulls => NUL,
        T::Utf8ToUnicode => HIGH,
        T::CompressWhitespace => SPACE & !BLANK | UNEVEN,
        T::Trim | T::TrimLeft | T::TrimRight => SPACE,
        T::RemoveWhitespace => SPACE | bit(0xa0),
        T::NormalisePath => bits(b"/."),
        T::NormalisePathWin => bits(b"/\\."),
        T::RemoveComments | T::RemoveCommentsChar | T::ReplaceComments => bits(b"/*#-<!"),
        T::CmdLine => UPPER | UNEVEN | bits(b"\\\"'^,;\t\r\n"),
        T::SqlHexDecode => DIGIT,
        _ => ALWAYS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_bit() {
        assert!((0..=255).all(|byte| bit(byte).count_ones() == 1));
        assert_eq!(bit(b'a'), bit(b'A'));
        assert_ne!(bit(b'~'), bit(b' '));
        assert_eq!(bit(0xff), 1 << 83);
    }

    const ALL: &[Transformation] = &[
        Transformation::UrlDecode,
        Transformation::UrlDecodeUni,
        Transformation::HtmlEntityDecode,
        Transformation::JsDecode,
        Transformation::CssDecode,
        Transformation::EscapeSeqDecode,
        Transformation::Lowercase,
        Transformation::Uppercase,
        Transformation::RemoveNulls,
        Transformation::ReplaceNulls,
        Transformation::Utf8ToUnicode,
        Transformation::CompressWhitespace,
        Transformation::RemoveWhitespace,
        Transformation::Trim,
        Transformation::TrimLeft,
        Transformation::TrimRight,
        Transformation::NormalisePath,
        Transformation::NormalisePathWin,
        Transformation::RemoveComments,
        Transformation::RemoveCommentsChar,
        Transformation::ReplaceComments,
        Transformation::CmdLine,
        Transformation::SqlHexDecode,
    ];

    /// Lengths and bytes of results are as said.
    #[test]
    fn results_are_as_said() {
        let mut out = Vec::new();
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let pool = b"aZ09%+&#;\\x41u0\"'^,/*.-<! \t\0\x80\xa0\xff=lt";
        for transformation in Transformation::ALL {
            for round in 0..4000 {
                let value: Vec<u8> = (0..round % 30)
                    .map(|_| {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        pool[(seed % pool.len() as u64) as usize]
                    })
                    .collect();
                if !transformation.apply(&value, None, &mut out) {
                    continue;
                }
                assert!(
                    may_grow(transformation) || out.len() <= value.len(),
                    "{transformation:?}"
                );
                let bound = after(transformation, classes(&value));
                assert!(
                    bound.is_none_or(|bound| classes(&out) & !bound == 0),
                    "{transformation:?} {value:?}"
                );
            }
        }
    }

    /// Values made only of bytes outside of the triggers are never changed.
    #[test]
    fn without_a_trigger_nothing_changes() {
        let mut out = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for &transformation in ALL {
            let trigger = triggers(transformation);
            let free: Vec<u8> = (0..=255)
                .filter(|b| classes(&[*b]) & !ALWAYS & trigger == 0)
                .collect();
            for round in 0..2000 {
                let value: Vec<u8> = (0..round % 24)
                    .map(|_| {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        // A space often enough to stand beside what changes it.
                        let byte = free[(seed % free.len() as u64) as usize];
                        if seed >> 60 == 0 && trigger & BLANK == 0 {
                            b' '
                        } else {
                            byte
                        }
                    })
                    .collect();
                if classes(&value) & trigger != 0 {
                    continue;
                }
                let changed = transformation.apply(&value, None, &mut out);
                assert!(
                    !changed || out == value,
                    "{transformation:?} changes {value:?}"
                );
            }
        }
    }
}
