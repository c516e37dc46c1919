//! Rule sets thrown together at random, of all that decides which rules are run: with the filter and with
//! what is settled when rules are loaded, the same rules match, in the same order, with the same `TX`,
//! as when each rule is run.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::fmt::Write;

use clew_ftw::Run;

use common::{Dice, compiled};

const SETS: u64 = 400;
const RULES: u64 = 40;
/// Rules between two markers.
const SECTION: u64 = 8;

impl Dice {
    fn variable(&mut self) -> String {
        format!("v{}", self.roll(6))
    }

    fn assignment(&mut self) -> String {
        let (to, from, number) = (self.variable(), self.variable(), self.roll(4));
        match self.roll(8) {
            0 => format!("setvar:!tx.{to}"),
            1 => format!("setvar:tx.{to}=%{{tx.{from}}}"),
            2 => format!("setvar:tx.{to}=+%{{tx.{from}}}"),
            3 => format!("setvar:tx.{to}=-{number}"),
            4 => format!("setvar:tx.{to}=text_%{{tx.{from}}}"),
            _ => format!("setvar:tx.{to}={number}"),
        }
    }

    /// What is asked of `TX`.
    fn question(&mut self) -> String {
        let (variable, other, number) = (self.variable(), self.variable(), self.roll(4));
        match self.roll(7) {
            0 => format!("&TX:{variable} \"@eq 0\""),
            1 => format!("TX:{variable} \"@ge {number}\""),
            2 => format!("TX:{variable} \"!@eq {number}\""),
            3 => format!("TX:{variable} \"@eq %{{tx.{other}}}\""),
            4 => format!("TX:{variable}|TX:{other} \"@lt {number}\""),
            5 => format!("TX:{variable} \"@contains ext_{number}\""),
            _ => format!("TX:{variable} \"@eq {number}\""),
        }
    }

    fn rule(&mut self, number: u64) -> String {
        let id = 1000 + number;
        let phase = [1, 1, 1, 2, 2, 3, 4, 5][self.roll(8) as usize];
        let head = format!("id:{id},phase:{phase}");
        let (assignment, question) = (self.assignment(), self.question());
        let argument = format!("ARGS:a \"@streq {}\"", self.roll(4));
        let marker = format!("skipAfter:M{}", (number + 1) / SECTION + self.roll(2));
        let whole = format!("{head},pass,nolog,{assignment}");
        match self.roll(40) {
            0..12 => format!("SecAction \"{whole}\""),
            12..22 => format!("SecRule {question} \"{whole},severity:{}\"", self.roll(8)),
            22..25 => format!("SecRule {argument} \"{whole}\""),
            25..27 => format!("SecRule {question} \"{head},pass,nolog,{marker}\""),
            27..29 => format!("SecRule {argument} \"{head},pass,nolog,{marker}\""),
            29 => format!(
                "SecRule {argument} \"{head},pass,nolog,ctl:ruleRemoveById={}\"",
                1000 + self.roll(RULES)
            ),
            30 => format!("SecRule {argument} \"{head},nolog,allow:phase\""),
            31 => format!("SecRule {argument} \"{head},nolog,allow:request\""),
            32 => format!(
                "SecRule {question} \"{head},pass,nolog,chain,{}\"\nSecRule {argument} \"{assignment}\"",
                self.assignment()
            ),
            33 => format!(
                "SecRule {question} \"{head},pass,nolog,chain\"\nSecRule {} \"{assignment}\"",
                self.question()
            ),
            34 => format!("SecRule {question} \"{head},pass,log,msg:'seen',{assignment}\""),
            35 => format!("SecRule MATCHED_VAR \"@eq {}\" \"{whole}\"", self.roll(4)),
            36 => format!(
                "SecRule HIGHEST_SEVERITY \"@lt {}\" \"{whole}\"",
                self.roll(8)
            ),
            37 => format!("SecRule {argument} \"{head},pass,nolog,setvar:'tx.%{{ARGS.a}}=1'\""),
            38 => format!("SecRule {argument} \"{head},deny,status:403,nolog\""),
            _ => format!("SecRule ARGS:a \"@rx (.)\" \"{whole},capture,setvar:tx.v1=%{{tx.1}}\""),
        }
    }

    fn rules(&mut self) -> String {
        let mut text = "SecRuleEngine On\n".to_owned();
        for number in 0..RULES {
            if number % SECTION == 0 {
                writeln!(text, "SecMarker M{}", number / SECTION).unwrap();
            }
            writeln!(text, "{}", self.rule(number)).unwrap();
        }
        writeln!(
            text,
            "SecMarker M{0}\nSecMarker M{1}",
            RULES / SECTION,
            RULES / SECTION + 1
        )
        .unwrap();
        text
    }
}

#[test]
fn what_is_settled_early_comes_to_the_same() {
    let mut settled = 0;
    for seed in 1..=SETS {
        let text = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rules();
        let [plain, quick] = compiled(&text);
        let ids = quick
            .rules()
            .iter()
            .filter_map(|rule| quick.explain(rule.id));
        settled += ids.filter(|it| it.contains("settled")).count();
        for query in ["", "?a=0", "?a=1", "?a=2", "?a=3"] {
            let request = format!("GET /{query} HTTP/1.1\r\nHost: a\r\n\r\n");
            let want = Run::of_bytes(&plain, request.as_bytes());
            let have = Run::of_bytes(&quick, request.as_bytes());
            assert_eq!(want.matched, have.matched, "{query}\n{text}");
            assert_eq!(want.tx, have.tx, "{query}\n{text}");
            assert_eq!(want.log, have.log, "{query}\n{text}");
            assert_eq!(want.status, have.status, "{query}\n{text}");
        }
    }
    assert!(settled > 2 * SETS as usize, "{settled} rules were settled");
}

/// `allow:request` says nothing about the response.
#[test]
fn the_response_to_an_allowed_request_is_judged() {
    let text = "SecRuleEngine On\n\
                SecAction \"id:1,phase:1,nolog,allow:request\"\n\
                SecAction \"id:2,phase:2,pass,nolog\"\n\
                SecAction \"id:3,phase:3,pass,nolog\"\n\
                SecAction \"id:4,phase:3,pass,nolog\"\n\
                SecRule RESPONSE_STATUS \"@eq 200\" \"id:5,phase:3,deny,status:403,nolog\"\n";
    for rules in compiled(text) {
        let run = Run::of_bytes(&rules, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let matched = run.matched.iter();
        let ids: Vec<u64> = matched.map(|it| rules.rules()[*it as usize].id).collect();
        assert_eq!(ids, [1, 3, 4, 5]);
    }
}
