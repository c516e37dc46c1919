//! Transformations: what is done to a value before an operator sees it.
//!
//! Names and results are those of the ModSecurity reference manual (v3, "Transformation
//! functions"); where that is silent, those of libmodsecurity 3.0.9. Each is linear in the value.
//!
//! Nearly every value of a benign request comes out of nearly every transformation as it went in,
//! so each first looks whether there is anything to do, with vector code where it can: 0.01 to 0.1 ns a
//! byte. Only what is changed is copied.

mod base64;
mod case;
mod command;
mod comment;
mod digest;
mod escape;
mod hex;
mod html;
mod null;
mod parity;
mod path;
mod php;
mod scan;
mod space;
mod unicode;
mod url;

pub(crate) use command::uneven_space;
pub(crate) use scan::position_of_pair;
pub use unicode::{UnicodeMap, UnicodeMapError};
pub(crate) use url::{next_escape, spaced};

/// One transformation. `none` is not among them: it empties the list before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "named as in the reference manual")]
pub enum Transformation {
    Base64Decode,
    Base64DecodeExt,
    Base64Encode,
    CmdLine,
    CompressWhitespace,
    CssDecode,
    EscapeSeqDecode,
    HexDecode,
    HexEncode,
    HtmlEntityDecode,
    JsDecode,
    Length,
    Lowercase,
    Md5,
    NormalisePath,
    NormalisePathWin,
    ParityEven7bit,
    ParityOdd7bit,
    ParityZero7bit,
    PhpArgsNames,
    RemoveComments,
    RemoveCommentsChar,
    RemoveNulls,
    RemoveWhitespace,
    ReplaceComments,
    ReplaceNulls,
    Sha1,
    SqlHexDecode,
    Trim,
    TrimLeft,
    TrimRight,
    Uppercase,
    UrlDecode,
    UrlDecodeUni,
    UrlEncode,
    Utf8ToUnicode,
}

impl Transformation {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::Base64Decode,
        Self::Base64DecodeExt,
        Self::Base64Encode,
        Self::CmdLine,
        Self::CompressWhitespace,
        Self::CssDecode,
        Self::EscapeSeqDecode,
        Self::HexDecode,
        Self::HexEncode,
        Self::HtmlEntityDecode,
        Self::JsDecode,
        Self::Length,
        Self::Lowercase,
        Self::Md5,
        Self::NormalisePath,
        Self::NormalisePathWin,
        Self::ParityEven7bit,
        Self::ParityOdd7bit,
        Self::ParityZero7bit,
        Self::PhpArgsNames,
        Self::RemoveComments,
        Self::RemoveCommentsChar,
        Self::RemoveNulls,
        Self::RemoveWhitespace,
        Self::ReplaceComments,
        Self::ReplaceNulls,
        Self::Sha1,
        Self::SqlHexDecode,
        Self::Trim,
        Self::TrimLeft,
        Self::TrimRight,
        Self::Uppercase,
        Self::UrlDecode,
        Self::UrlDecodeUni,
        Self::UrlEncode,
        Self::Utf8ToUnicode,
    ];

    /// The transformation of this name, compared without regard to case.
    pub fn named(name: &str) -> Option<Self> {
        let american = |name: &str| match name.to_ascii_lowercase().as_str() {
            "normalizepath" => Some(Self::NormalisePath),
            "normalizepathwin" => Some(Self::NormalisePathWin),
            _ => None,
        };
        let found = Self::ALL
            .into_iter()
            .find(|one| one.name().eq_ignore_ascii_case(name));
        found.or_else(|| american(name))
    }

    /// The name as documented, for example `urlDecodeUni`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base64Decode => "base64Decode",
            Self::Base64DecodeExt => "base64DecodeExt",
            Self::Base64Encode => "base64Encode",
            Self::CmdLine => "cmdLine",
            Self::CompressWhitespace => "compressWhitespace",
            Self::CssDecode => "cssDecode",
            Self::EscapeSeqDecode => "escapeSeqDecode",
            Self::HexDecode => "hexDecode",
            Self::HexEncode => "hexEncode",
            Self::HtmlEntityDecode => "htmlEntityDecode",
            Self::JsDecode => "jsDecode",
            Self::Length => "length",
            Self::Lowercase => "lowercase",
            Self::Md5 => "md5",
            Self::NormalisePath => "normalisePath",
            Self::NormalisePathWin => "normalisePathWin",
            Self::ParityEven7bit => "parityEven7bit",
            Self::ParityOdd7bit => "parityOdd7bit",
            Self::ParityZero7bit => "parityZero7bit",
            Self::PhpArgsNames => "phpArgsNames",
            Self::RemoveComments => "removeComments",
            Self::RemoveCommentsChar => "removeCommentsChar",
            Self::RemoveNulls => "removeNulls",
            Self::RemoveWhitespace => "removeWhitespace",
            Self::ReplaceComments => "replaceComments",
            Self::ReplaceNulls => "replaceNulls",
            Self::Sha1 => "sha1",
            Self::SqlHexDecode => "sqlHexDecode",
            Self::Trim => "trim",
            Self::TrimLeft => "trimLeft",
            Self::TrimRight => "trimRight",
            Self::Uppercase => "uppercase",
            Self::UrlDecode => "urlDecode",
            Self::UrlDecodeUni => "urlDecodeUni",
            Self::UrlEncode => "urlEncode",
            Self::Utf8ToUnicode => "utf8toUnicode",
        }
    }

    /// Transforms `value`. `true`: the result is in `out` (which is cleared first). `false`: the
    /// result is `value` itself, and what is in `out` has no meaning.
    ///
    /// `unicode` is the map of `SecUnicodeMapFile`; only `urlDecodeUni` looks at it.
    ///
    /// Cost: linear in `value`; the result is at most three times as long (`urlEncode`), for
    /// values shorter than 20 bytes at most 20 bytes (`sha1`).
    pub fn apply(self, value: &[u8], unicode: Option<&UnicodeMap>, out: &mut Vec<u8>) -> bool {
        out.clear();
        match self {
            Self::Base64Decode => base64::decode(value, out),
            Self::Base64DecodeExt => base64::decode_ext(value, out),
            Self::Base64Encode => base64::encode(value, out),
            Self::CmdLine => command::normalise(value, out),
            Self::CompressWhitespace => space::compress(value, out),
            Self::CssDecode => escape::css(value, out),
            Self::EscapeSeqDecode => escape::c(value, out),
            Self::HexDecode => hex::decode(value, out),
            Self::HexEncode => hex::encode(value, out),
            Self::HtmlEntityDecode => html::decode(value, out),
            Self::JsDecode => escape::js(value, out),
            Self::Length => digest::length(value, out),
            Self::Lowercase => case::lower(value, out),
            Self::Md5 => digest::md5(value, out),
            Self::NormalisePath => path::normalise(value, out),
            Self::NormalisePathWin => path::normalise_win(value, out),
            Self::ParityEven7bit => parity::even(value, out),
            Self::ParityOdd7bit => parity::odd(value, out),
            Self::ParityZero7bit => parity::zero(value, out),
            Self::PhpArgsNames => php::name(value, out),
            Self::RemoveComments => comment::remove(value, out),
            Self::RemoveCommentsChar => comment::remove_marks(value, out),
            Self::RemoveNulls => null::remove(value, out),
            Self::RemoveWhitespace => space::remove(value, out),
            Self::ReplaceComments => comment::replace(value, out),
            Self::ReplaceNulls => null::replace(value, out),
            Self::Sha1 => digest::sha1(value, out),
            Self::SqlHexDecode => hex::sql_decode(value, out),
            Self::Trim => space::trim(value, out),
            Self::TrimLeft => space::trim_left(value, out),
            Self::TrimRight => space::trim_right(value, out),
            Self::Uppercase => case::upper(value, out),
            Self::UrlDecode => url::decode(value, out),
            Self::UrlDecodeUni => url::decode_uni(value, unicode, out),
            Self::UrlEncode => url::encode(value, out),
            Self::Utf8ToUnicode => unicode::to_unicode(value, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_known() {
        for one in Transformation::ALL {
            assert_eq!(Transformation::named(one.name()), Some(one));
            assert_eq!(
                Transformation::named(&one.name().to_ascii_uppercase()),
                Some(one)
            );
        }
        assert_eq!(
            Transformation::named("normalizePath"),
            Some(Transformation::NormalisePath)
        );
        assert_eq!(
            Transformation::named("normalizePathWin"),
            Some(Transformation::NormalisePathWin)
        );
        assert_eq!(
            Transformation::named("base64decode"),
            Some(Transformation::Base64Decode)
        );
        assert_eq!(Transformation::named("none"), None);
    }

    /// `false` must mean equal, `true` must mean different: the engine caches by it.
    #[test]
    fn changed_means_different() {
        let alphabet = b"aA0 \t\n\0/\\.%u+&#x;*-<![]_'\"^,(\xc3\xa9\xa0=";
        let mut seed = 7_u64;
        let mut out = Vec::new();
        for _ in 0..50_000 {
            let mut value = Vec::new();
            for _ in 0..seed % 9 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                value.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 1;
            for one in Transformation::ALL {
                if one.apply(&value, None, &mut out) {
                    assert_ne!(out, value, "{}", one.name());
                }
            }
        }
    }
}
