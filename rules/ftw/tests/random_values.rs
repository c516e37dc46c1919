//! Values thrown together at random, seen through lists of transformations: with the filter the same rules
//! match as when each rule is run.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fmt::Write;

use clew_ftw::Run;

use common::{Dice, compiled};

const SETS: u64 = 60;
const RULES: u64 = 60;
const REQUESTS: u64 = 60;

impl Dice {
    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.roll(of.len() as u64) as usize]
    }

    fn rule(&mut self, number: u64) -> String {
        let target = self.one(&[
            "QUERY_STRING",
            "REQUEST_BODY",
            "REQUEST_URI",
            "ARGS",
            "ARGS_NAMES",
            "REQUEST_HEADERS:X-A",
            "REQUEST_COOKIES",
        ]);
        let mut steps = String::new();
        for _ in 0..self.roll(4) {
            // Twice or more: those to which spaces matter.
            let step = self.one(&[
                "urlDecode",
                "urlDecodeUni",
                "urlDecodeUni",
                "urlDecodeUni",
                "removeWhitespace",
                "cmdLine",
                "lowercase",
                "uppercase",
                "cmdLine",
                "compressWhitespace",
                "removeWhitespace",
                "normalisePath",
                "replaceComments",
                "removeNulls",
                "trim",
                "htmlEntityDecode",
                "jsDecode",
            ]);
            write!(steps, "t:{step},").unwrap();
        }
        let operator = self.one(&[
            "@contains a b",
            "@contains a+b",
            "@contains a/b",
            "@contains ab(",
            "@contains xyz",
            "@rx x +y",
            "@rx x[ +]y",
            "@rx [ ,;~]",
            "@rx a[^a-y+]b",
            "@contains ab",
            "@contains xy",
            "@rx (?i)abc[/(]",
            "@rx ^[a-z ]+$",
            "@rx [+]",
            "@rx z b",
            "@pm abc xyz a/b",
            "@streq abc xyz",
            "@beginsWith a b",
            "@endsWith b",
            "@detectSQLi",
        ]);
        format!(
            "SecRule {target} \"{operator}\" \"id:{},phase:2,pass,nolog,t:none,{steps}ver:'1'\"",
            1000 + number
        )
    }

    /// Short, so that much of it matches; now and then long.
    fn value(&mut self) -> String {
        let pieces = if self.roll(8) == 0 { 200 } else { self.roll(9) };
        let pool = [
            "a", "b", "abc", "xyz", "x", "y", "z", "+", "+", "++", "%20", "%2b", "/", "+/", "(",
            "+(", "B", "AbC", ",", "'", "\\", "/*a*/", "%00", ".", "../", "1", "or", "--", "=",
        ];
        (0..pieces).map(|_| self.one(&pool)).collect()
    }

    fn request(&mut self) -> String {
        let (query, body, spaced) = (self.value(), self.value(), self.value());
        let (header, cookie) = (spaced.replace('+', " "), self.value());
        format!(
            "POST /?{query}&n={spaced} HTTP/1.1\r\nHost: a\r\nX-A: {header}\r\nCookie: c={cookie}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\nf={body}",
            body.len() + 2
        )
    }
}

#[test]
fn transformed_values_match_as_without_the_filter() {
    let mut matches = 0;
    for seed in 1..=SETS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut text = "SecRuleEngine On\nSecRequestBodyAccess On\n".to_owned();
        for number in 0..RULES {
            writeln!(text, "{}", dice.rule(number)).unwrap();
        }
        let [plain, quick] = compiled(&text);
        for _ in 0..REQUESTS {
            let request = dice.request();
            let want = Run::of_bytes(&plain, request.as_bytes());
            // The second time much is remembered.
            for _ in 0..2 {
                let have = Run::of_bytes(&quick, request.as_bytes());
                assert_eq!(want.matched, have.matched, "{request}\n{text}");
            }
            matches += want.matched.len() as u64;
        }
    }
    assert!(matches > SETS * REQUESTS, "{matches} rules matched");
}
