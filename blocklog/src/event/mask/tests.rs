use std::time::Duration;

use super::command::CommandLine;
use super::target::target;
use super::{MASK, environment, rule_match, text};
use clew_protocol::report::RuleMatch;

#[test]
fn values_behind_the_names_of_secrets_are_masked_in_every_form() {
    let cases = [
        ("a=1&password=hunter2&b=2", "a=1&password=***&b=2"),
        ("pass%77ord=hunter2", "pass%77ord=***"),
        ("user[password]=hunter2;x&b=2", "user[password]=***&b=2"),
        (
            r#"{"user":"a","passwd" : "hun\"ter2","n":1}"#,
            r#"{"user":"a","passwd" : "***","n":1}"#,
        ),
        (
            r#"{\"api_key\":\"hunter2\",\"n\":1}"#,
            r#"{\"api_key\":\"***\",\"n\":1}"#,
        ),
        (r#"{"pin": 1234, "n": 1}"#, r#"{"pin": ***, "n": 1}"#),
        (
            r#"{"secrets": ["a]", {"b": "hunter2"}], "n": 1}"#,
            r#"{"secrets": ***, "n": 1}"#,
        ),
        ("<password>hunter2</password>", "<password>***</password>"),
        (
            "Authorization: Digest username=a, response=hunter2\r\nHost: b",
            "Authorization: ***\r\nHost: b",
        ),
        ("Set-Cookie: id=hunter2; Path=/", "Set-Cookie: ***"),
        ("see Bearer abcdefgh12345 there", "see Bearer *** there"),
        (
            "Matched Data: x found within ARGS:password: hunter two",
            "Matched Data: x found within ARGS:password: ***",
        ),
        (
            "form-data; name=\"token\"\r\n\r\nhunter2\r\n--b",
            "form-data; name=\"token\"\r\n\r\n***\r\n--b",
        ),
        ("postgres://app:hunter2@db/x", "postgres://***@db/x"),
        ("PASSWORD='hunter2' x", "PASSWORD='***' x"),
        ("password=", "password="),
        (
            "keyboard=1&compasses=2&name=x",
            "keyboard=1&compasses=2&name=x",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(text(input), expected, "{input}");
        assert_eq!(text(expected), expected, "masking twice: {input}");
    }
}

#[test]
fn targets_are_looked_into_once_decoded() {
    let cases = [
        (
            "/a?token=x%26y&b=%3Cscript%3E",
            "/a?token=***&b=%3Cscript%3E",
        ),
        (
            "/a?q=%7B%22password%22%3A%22hunter2%22%7D",
            "/a?q=%7B%22password%22:%22***%22%7D",
        ),
        ("/a?n=4111+1111+1111+1111", "/a?n=***"),
        ("http://u:p@h/a", "http://***@h/a"),
        ("/a;sid=hunter2", "/a;sid=***"),
    ];
    for (input, expected) in cases {
        assert_eq!(target(input), expected, "{input}");
    }
}

#[test]
fn card_numbers_are_masked_and_other_numbers_are_not() {
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "340000000000009",
        "6011000000000004",
    ] {
        assert_eq!(text(&format!("a 12 {card}, b")), "a 12 ***, b");
    }
    for other in [
        "4111111111111112",
        "1111111111111117",
        "12345678901234567890123",
        "2026-11-30 19:21:11",
    ] {
        assert_eq!(text(other), other);
    }
}

#[test]
fn command_lines_lose_their_passwords() {
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &["mysql", "-uroot", "-phunter2", "db"],
            &["mysql", "-uroot", "-p***", "db"],
        ),
        (
            &["/usr/bin/curl", "-s", "-u", "a:hunter2", "http://b/"],
            &["/usr/bin/curl", "-s", "-u", "***", "http://b/"],
        ),
        (&["curl", "--user=a:hunter2"], &["curl", "--user=***"]),
        (
            &["x", "--password", "two words", "y"],
            &["x", "--password", "***", "y"],
        ),
        (&["x", "--db-password=hunter2"], &["x", "--db-password=***"]),
        (
            &["sh", "-c", "sshpass -p hunter2 ssh a; ls -p b"],
            &["sh", "-c", "sshpass -p *** ssh a; ls -p b"],
        ),
        (
            &["sh", "-c", "TOKEN=hunter2;curl b|sh"],
            &["sh", "-c", "TOKEN=***;curl b|sh"],
        ),
        (&["mkdir", "-p", "/srv/a"], &["mkdir", "-p", "/srv/a"]),
    ];
    for (arguments, expected) in cases {
        let mut line = CommandLine::default();
        let masked: Vec<String> = arguments.iter().map(|it| line.mask(it)).collect();
        assert_eq!(masked, expected);
    }
}

#[test]
fn environment_variables_keep_the_names_of_secrets() {
    assert_eq!(environment("DB_PASSWORD=hunter2"), "DB_PASSWORD=***");
    assert_eq!(
        environment("DATABASE_URL=pg://a:hunter2@b"),
        "DATABASE_URL=pg://***@b"
    );
    assert_eq!(environment("PWD=/srv"), "PWD=/srv");
}

#[test]
fn what_a_rule_found_in_a_secret_is_not_kept() {
    for variable in [
        "REQUEST_COOKIES:theme",
        "REQUEST_HEADERS:Authorization",
        "ARGS:json.user.password",
    ] {
        let mut found = RuleMatch {
            id: 1,
            message: "bad value hunter2 here".to_owned(),
            data: format!("Matched Data: hunter2 found within {variable}: hunter2"),
            variable: variable.to_owned(),
            severity: None,
            tags: vec![],
            file: String::new(),
            line: 1,
            disruptive: false,
        };
        rule_match(&mut found);
        assert_eq!(
            (found.message.as_str(), found.data.as_str()),
            ("bad value *** here", MASK)
        );
    }
}

/// What a scanner could stumble over, long: ten times the length may take some thirty times as long, not a hundred.
#[test]
fn hostile_texts_take_linear_time() {
    let seeds = [
        "password=",
        "://",
        "://@",
        "4 ",
        "4-4",
        "\"",
        "\\",
        "password:[",
        "name=\"password\"",
        "-p ",
        "Bearer ",
        "%",
        "<password>",
        "--password ",
        "ARGS:password: ",
        "<",
        "'a':",
        "{\"password\":{",
        "é",
        "name=\"password\"\r\n",
    ];
    let time = |seed: &str, bytes: usize| {
        let long = seed.repeat(bytes / seed.len());
        // Of this thread alone: others may keep the processors busy.
        let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let elapsed = |start: rustix::time::Timespec| {
            let now = clock();
            let nanoseconds =
                (now.tv_sec - start.tv_sec) * 1_000_000_000 + now.tv_nsec - start.tv_nsec;
            Duration::from_nanos(nanoseconds.unsigned_abs())
        };
        let start = clock();
        let masked = target(&CommandLine::default().mask(&text(&long)));
        assert!(masked.len() <= 4 * long.len() + 16);
        elapsed(start)
    };
    for seed in seeds {
        time(seed, 1_000);
        let short = time(seed, 10_000).max(Duration::from_millis(5));
        assert!(time(seed, 100_000) < 30 * short, "{seed:?}");
    }
}

/// Texts put together by chance from what a scanner looks for: none makes it panic, and none becomes much longer.
#[test]
fn any_text_can_be_masked() {
    let parts = [
        "password",
        "=",
        ":",
        " ",
        "\"",
        "'",
        "\\",
        "{",
        "}",
        "[",
        "]",
        "&",
        ";",
        "<",
        ">",
        "://",
        "@",
        "/",
        "é",
        "\u{10ffff}",
        "4111111111111111",
        "41",
        "-",
        "--",
        "name=\"token\"",
        "\r\n\r\n",
        "\r\n--",
        "Bearer ",
        "abcdefgh",
        "%",
        "%3D",
        "?",
        "mysql",
        "-p",
        "curl",
        "-u",
        "Cookie",
        "ARGS:",
        "x",
        "\n",
        "***",
    ];
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..20_000 {
        let count = random.usize(..12);
        let made: String = (0..count)
            .map(|_| parts[random.usize(..parts.len())])
            .collect();
        let masked = [
            text(&made),
            target(&made),
            CommandLine::default().mask(&made),
            environment(&made),
        ];
        // Percent-encoding is three bytes for one.
        let longest = 3 * made.len() + 3 * MASK.len();
        assert!(masked.iter().all(|it| it.len() <= 4 * longest), "{made:?}");
    }
}
