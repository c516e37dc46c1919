use super::*;

const CONTENT_TYPE: &[u8] = b"multipart/form-data; boundary=XX";
const NAMED: &str = "Content-Disposition: form-data; name=\"a\"";

/// A part with these headers and this content, lines ending in CRLF.
fn part(headers: &str, content: &str) -> String {
    format!("--XX\r\n{headers}\r\n\r\n{content}\r\n")
}

fn whole(headers: &str, content: &str) -> String {
    part(headers, content) + "--XX--\r\n"
}

/// Parts as `name[/filename[/extended]]=content`, and the outcome.
fn read(content_type: &[u8], body: &str) -> (String, Outcome) {
    let mut shown = Vec::new();
    let mut scratch = Scratch::default();
    let limits = BodyLimits::default();
    let outcome = parts(
        content_type,
        body.as_bytes(),
        &limits,
        &mut scratch,
        |part| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut name = text(part.name);
            for file in [part.filename, part.extended_filename]
                .into_iter()
                .flatten()
            {
                name = format!("{name}/{}", text(file));
            }
            shown.push(format!("{name}={}", text(part.content)));
            assert_eq!(
                &body.as_bytes()[part.offset..][..part.content.len()],
                part.content
            );
        },
    );
    (shown.join("|"), outcome)
}

fn flags(set: impl FnOnce(&mut Flags)) -> Flags {
    let mut flags = Flags::default();
    set(&mut flags);
    flags
}

#[test]
fn fields_and_files_are_given_with_their_headers() {
    let file = "Content-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain";
    let body = part(NAMED, "v1") + &whole(file, "one\r\ntwo\n\r\n");
    let (shown, outcome) = read(CONTENT_TYPE, &body);
    assert_eq!(shown, "a=v1|f/x.txt=one\r\ntwo\n\r\n");
    assert_eq!((outcome.fields, outcome.files, outcome.error), (1, 1, None));
    assert_eq!(outcome.flags, Flags::default());
    let mut headers = Vec::new();
    let limits = BodyLimits::default();
    parts(
        CONTENT_TYPE,
        body.as_bytes(),
        &limits,
        &mut Scratch::default(),
        |part| {
            headers.extend(
                part.headers()
                    .map(|line| String::from_utf8_lossy(line).into_owned()),
            );
        },
    );
    assert_eq!(headers[0], NAMED);
    assert_eq!(headers[2], "Content-Type: text/plain");
}

/// Well-formed enough to be read whole; flags as libmodsecurity 3.0.9 gives them.
#[test]
fn oddities_are_flagged() {
    let plain = whole(NAMED, "v");
    let cases: [(&str, String, Flags); 14] = [
        ("crlf", plain.clone(), Flags::default()),
        (
            "lf",
            plain.replace("\r\n", "\n"),
            flags(|f| f.lf_line = true),
        ),
        (
            "mixed",
            plain.replacen("\r\n", "\n", 2),
            flags(|f| (f.lf_line, f.crlf_lf_lines) = (true, true)),
        ),
        (
            "before",
            format!("pre\r\n{plain}"),
            flags(|f| f.data_before = true),
        ),
        (
            "after",
            format!("{plain}post"),
            flags(|f| f.data_after = true),
        ),
        (
            "after a line",
            format!("{plain}\r\n"),
            flags(|f| f.data_after = true),
        ),
        (
            "final twice",
            format!("{plain}--XX--\r\n"),
            flags(|f| f.data_after = true),
        ),
        (
            "no last line end",
            plain.trim_end().to_owned(),
            Flags::default(),
        ),
        (
            "foreign",
            whole(NAMED, "a\r\n--YY\r\nb"),
            flags(|f| f.unmatched_boundary = 2),
        ),
        (
            "dashes",
            whole(NAMED, "a\r\n-----\r\nb"),
            flags(|f| f.unmatched_boundary = 2),
        ),
        (
            "in a line",
            whole(NAMED, "a --XX b"),
            flags(|f| f.unmatched_boundary = 2),
        ),
        (
            "folded",
            whole(&format!("{NAMED}\r\nX: y\r\n\tz"), "v"),
            flags(|f| f.header_folding = true),
        ),
        (
            "folded with VT",
            whole(&format!("{NAMED}\r\nX: y\r\n\u{b}z"), "v"),
            flags(|f| (f.header_folding, f.invalid_header_folding) = (true, true)),
        ),
        (
            "single quotes",
            whole("Content-Disposition: form-data; name='a'", "v"),
            flags(|f| f.invalid_quoting = true),
        ),
    ];
    for (case, body, want) in cases {
        let (_, outcome) = read(CONTENT_TYPE, &body);
        assert_eq!(outcome.error, None, "{case}");
        assert_eq!(outcome.flags, want, "{case}");
        let strict =
            !["crlf", "no last line end", "foreign", "dashes", "in a line"].contains(&case);
        assert_eq!(outcome.flags.strict_error(), strict, "{case}");
    }
}

/// All of these are errors; content is given all the same.
#[test]
fn broken_bodies_are_errors_and_still_shown() {
    let with = |line: &str| whole(&format!("{NAMED}\r\n{line}"), "v");
    let no_content = format!("--XX\r\n{NAMED}\r\n\r\n--XX--\r\n");
    let cases = [
        (part(NAMED, "v"), "a=v\r\n", "the final boundary is missing"),
        ("hello\r\n".to_owned(), "", "no boundary in the body"),
        (
            whole(NAMED, "a\r\n--XXY\r\nb"),
            "a=a\r\n--XXY\r\nb",
            "something follows a boundary on its line",
        ),
        (
            whole(NAMED, "a\r\n--  XX\r\nb"),
            "a=a\r\n--  XX\r\nb",
            "white space before a boundary",
        ),
        (with("junk"), "a=v", "no colon in a part's header"),
        (with(": x"), "a=v", "a part's header has no name"),
        (with("X: a\0"), "a=v", "a NUL in a part's header"),
        (with("x: a\r\nX: b"), "a=v", "a part's header appears twice"),
        (
            with(&format!("X: {}", "y".repeat(4093))),
            "a=v",
            "a part's header line is too long",
        ),
        (
            with(&"X:\r\n".repeat(40)),
            "a=\r\nv",
            "a part's header appears twice",
        ),
        (
            whole(&format!(" {NAMED}"), "v"),
            "=v",
            "a part's first header is folded",
        ),
        (
            whole("X: y", "v"),
            "=v",
            "a part has no Content-Disposition",
        ),
        (no_content, "a=", "a part has no content"),
        (
            format!("--XX\r\n{NAMED}\r\n"),
            "a=",
            "a part's headers do not end",
        ),
    ];
    for (body, shown, what) in cases {
        let (got, outcome) = read(CONTENT_TYPE, &body);
        assert_eq!(outcome.error.map(|error| error.what), Some(what), "{body}");
        assert!(outcome.flags.strict_error());
        assert_eq!(got, shown, "{body}");
    }
    let quoted = b"multipart/form-data; boundary=\"XX\"";
    let (_, outcome) = read(quoted, &whole(NAMED, "a\r\n--\"XX\"\r\nb"));
    assert_eq!(
        outcome.error.map(|error| error.what),
        Some("a boundary in quotes")
    );
}

#[test]
fn files_and_fields_are_limited() {
    let file = "Content-Disposition: form-data; name=\"f\"; filename=\"x\"";
    let (_, outcome) = read(CONTENT_TYPE, &(part(file, "v").repeat(101) + "--XX--\r\n"));
    assert!(outcome.flags.file_limit_exceeded && outcome.files == 100);
    let (_, outcome) = read(
        CONTENT_TYPE,
        &(part(NAMED, "v").repeat(1001) + "--XX--\r\n"),
    );
    assert!(outcome.over_limit && outcome.fields == 1000);
}
