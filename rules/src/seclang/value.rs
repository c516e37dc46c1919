//! The small arguments of directives: numbers, words out of a few, ranges of ids.

use super::ast::{LimitAction, RuleEngine};
use super::errors::Faults;
use super::lexer::Word;
use super::table::Form;
use super::text::Span;

/// The text of an argument, escapes undone.
pub(super) fn text(word: Word<'_>) -> String {
    word.unescaped().span().as_str().to_owned()
}

/// A whole number in decimal digits.
pub(super) fn number(word: Word<'_>, faults: &mut Faults) -> Option<u64> {
    let span = word.span.trimmed();
    let number = digits(span.as_str());
    if number.is_none() {
        faults.add(
            span.first(),
            format!(
                "`{}` is no whole number up to 18446744073709551615",
                span.as_str()
            ),
        );
    }
    number
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// `On` or `Off`.
pub(super) fn switch(word: Word<'_>, faults: &mut Faults) -> Option<bool> {
    choice(word, &[("On", true), ("Off", false)], faults)
}

/// `SecRuleEngine`'s.
pub(super) fn rule_engine(word: Word<'_>, faults: &mut Faults) -> Option<RuleEngine> {
    use RuleEngine::{DetectionOnly, Off, On};
    choice(
        word,
        &[("On", On), ("Off", Off), ("DetectionOnly", DetectionOnly)],
        faults,
    )
}

/// `Sec*BodyLimitAction`'s.
pub(super) fn limit_action(word: Word<'_>, faults: &mut Faults) -> Option<LimitAction> {
    use LimitAction::{ProcessPartial, Reject};
    choice(
        word,
        &[("Reject", Reject), ("ProcessPartial", ProcessPartial)],
        faults,
    )
}

/// `SecCookieFormat`'s.
pub(super) fn cookie_format(word: Word<'_>, faults: &mut Faults) -> Option<u8> {
    choice(word, &[("0", 0), ("1", 1)], faults)
}

fn choice<T: Copy>(word: Word<'_>, choices: &[(&str, T)], faults: &mut Faults) -> Option<T> {
    let span = word.span.trimmed();
    let found = choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(span.as_str()));
    if found.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        faults.add(
            span.first(),
            format!("`{}` is not one of {}", span.as_str(), names.join(", ")),
        );
    }
    found.map(|&(_, value)| value)
}

/// One byte.
pub(super) fn byte(word: Word<'_>, faults: &mut Faults) -> Option<u8> {
    match *text(word).as_bytes() {
        [byte] => Some(byte),
        _ => {
            faults.add(
                word.span.first(),
                "a single ASCII character is expected, for example \"&\"",
            );
            None
        }
    }
}

/// A code page's number.
pub(super) fn codepage(word: Word<'_>, faults: &mut Faults) -> Option<u32> {
    let page = u32::try_from(number(word, faults)?).ok();
    if page.is_none() {
        faults.add(
            word.span.first(),
            "there is no code page of that number; 20127 is US-ASCII",
        );
    }
    page
}

/// Ids and ranges in words that may hold several, separated by blanks or commas.
pub(super) fn ids(words: &[Word<'_>], faults: &mut Faults) -> Vec<(u64, u64)> {
    let before = faults.count();
    let mut ids = Vec::new();
    for word in words {
        let mut rest = word.span.trimmed();
        while !rest.as_str().is_empty() {
            let length = rest
                .as_str()
                .find([' ', '\t', ','])
                .unwrap_or(rest.as_str().len());
            if length > 0 {
                ids.extend(range(rest.part(0, length), faults));
            }
            rest = rest.after(length + 1).trimmed();
        }
    }
    if let (Some(word), true) = (words.first(), ids.is_empty() && faults.count() == before) {
        faults.add(
            word.span.first(),
            "a rule's id or a range FIRST-LAST is expected",
        );
    }
    ids
}

fn range(span: Span<'_>, faults: &mut Faults) -> Option<(u64, u64)> {
    let text = span.as_str();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = digits(first).zip(digits(last));
    match range {
        None => faults.add(
            span.first(),
            format!("`{text}` is neither a rule's id nor a range FIRST-LAST"),
        ),
        Some((first, last)) if first > last => {
            faults.add(
                span.first(),
                format!("the range `{text}` is empty; write {last}-{first}"),
            );
        }
        Some(_) => return range,
    }
    None
}

/// `ID[:CHAIN_OFFSET]`.
pub(super) fn id_and_offset(word: Word<'_>, faults: &mut Faults) -> Option<(u64, u32)> {
    let span = word.span.trimmed();
    let (id, offset) = span
        .as_str()
        .split_once(':')
        .unwrap_or((span.as_str(), "0"));
    let both = digits(id).zip(digits(offset).and_then(|offset| u32::try_from(offset).ok()));
    if both.is_none() {
        faults.add(
            span.first(),
            format!("`{}` is no ID or ID:CHAIN_OFFSET", span.as_str()),
        );
    }
    both
}

/// Whether the word has the form; if not, that is noted.
pub(super) fn check(form: Form, word: Word<'_>, faults: &mut Faults) {
    let span = word.span.trimmed();
    let text = span.as_str();
    let problem = match form {
        Form::Text => return,
        Form::Number => {
            number(word, faults);
            return;
        }
        Form::Mode if text.eq_ignore_ascii_case("default") || octal(text) => return,
        Form::Words(words) if words.iter().any(|own| own.eq_ignore_ascii_case(text)) => return,
        Form::Letters(letters)
            if !text.is_empty() && text.chars().all(|part| letters.contains(part)) =>
        {
            return;
        }
        Form::Mode => "neither an octal mode nor `default`".to_owned(),
        Form::Words(words) => format!("not one of {}", words.join(", ")),
        Form::Letters(letters) => format!("not made of the letters {letters}"),
    };
    faults.add(span.first(), format!("`{text}` is {problem}"));
}

fn octal(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
}
