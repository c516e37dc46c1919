//! The parsers of `body` under mutated inputs: nothing panics, and what they give is linear.

use clew_rules::body::graphql;
use clew_rules::body::normal::Target;
use clew_rules::body::xml::{Document, XPath};
use clew_rules::body::{BodyLimits, Scratch, cookies, json, multipart, urlencoded};

const SEEDS: [&[u8]; 9] = [
    b"a=1&b=%41+%zz&c=d=e&&=f&%00=%",
    b"a=1; b=\"x;y\"; $Path=/; =z;;c = d ",
    br#"{"a":{"b":[1,-2.5e+3,true,null,"x\u0027\ud83d\ude00\n"]},"":[[{}]],"a":"b"}"#,
    b"<?xml version=\"1.0\"?><!DOCTYPE r><r a='1' b=\"&lt;&#65;\">t<c/><![CDATA[<d>]]>&amp;<!-- e --></r>",
    b"query Q($a: [Int!] = [1]) { n: user(id: \"x\\u0027\", in: {b: \"\"\"\n  y\n\"\"\"}) @d(e: 1) { ...F } }",
    b"--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nv\r\n--XX\r\n\
      Content-Disposition: form-data; name=\"f\"; filename=\"g\\\"h\"; filename*=UTF-8''i%27\r\n\
      Content-Type: text/plain;\r\n\tcharset=utf-8\r\n\r\nline\r\n--YY\n--XX--\r\nafter",
    b"http://host/a%2fb/..%5cc;d?e=%zz#f",
    b"Content-Type: multipart/form-data; boundary=\"XX\"",
    b"\xff\xfe<\0r\0>\0a\0<\0/\0r\0>\0",
];

/// xorshift64*: the same inputs in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        mixed as usize % end.max(1)
    }

    /// A seed with up to eight edits: bytes changed, cut, doubled, or taken from another seed.
    fn mutated(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.below(SEEDS.len())].to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            let to = (at + self.below(12)).min(bytes.len());
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                1 => drop(bytes.drain(at..to)),
                2 => drop(bytes.splice(at..at, bytes[at..to].to_vec().repeat(3))),
                3 => bytes.insert(at, b"\"'\\{}[]<>&;=%-\r\n\0:,#"[self.below(20)]),
                _ => {
                    let other = SEEDS[self.below(SEEDS.len())];
                    let from = self.below(other.len());
                    let end = (from + self.below(40)).min(other.len());
                    drop(bytes.splice(at..to, other[from..end].iter().copied()));
                }
            }
        }
        bytes
    }
}

/// Everything that the parsers give for `input`, counted; every bound asserted.
fn read_all(input: &[u8], scratch: &mut Scratch, document: &mut Document, paths: &[XPath]) {
    let limits = BodyLimits::default();
    let bound = limits.output_bytes(input.len());
    let mut given = 0;
    urlencoded::arguments(input, b'&', &limits, scratch, |argument| {
        given += argument.name.len() + argument.value.len();
        assert_eq!(
            argument.name_decoded,
            argument.name != &input[argument.raw_name.clone()]
                || input[argument.raw_name.clone()].contains(&b'%')
        );
    });
    assert!(given <= input.len());
    given = 0;
    cookies::netscape(input, 1000, |name, value| given += name.len() + value.len());
    assert!(given <= input.len());
    given = 0;
    cookies::version1(input, 1000, |name, value| given += name.len() + value.len());
    assert!(given <= input.len() * 34);
    given = 0;
    let _ = json::arguments(input, &limits, scratch, |name, value| {
        given += name.len() + value.len()
    });
    assert!(given <= bound);
    given = 0;
    let _ = graphql::pairs(input, &limits, scratch, |_, name, value| {
        given += name.len() + value.len();
    });
    assert!(given <= bound);
    read_multipart(input, scratch);
    let _ = document.read(input, &limits);
    for path in paths {
        given = 0;
        path.values(document, |value| given += value.len());
        assert!(
            given <= input.len() * 256 * 3,
            "UTF-16 and Latin-1 grow in UTF-8"
        );
    }
    let target = Target::new(input);
    assert!(target.uri().len() <= input.len() + 1);
    let _ = Target::basename(&target.filename());
}

fn read_multipart(input: &[u8], scratch: &mut Scratch) {
    let limits = BodyLimits::default();
    multipart::parts(input, input, &limits, scratch, |_| ());
    let content_type = b"multipart/form-data; boundary=XX";
    let mut given = 0;
    let outcome = multipart::parts(content_type, input, &limits, scratch, |part| {
        given += part.content.len() + part.headers().map(<[u8]>::len).sum::<usize>();
        given += part.name.len() + part.filename.map_or(0, <[u8]>::len);
        assert_eq!(&input[part.offset..][..part.content.len()], part.content);
    });
    assert!(
        given <= input.len() * 2,
        "names stand in the headers as well"
    );
    assert!(outcome.flags.strict_error() || outcome.error.is_none());
}

fn paths() -> Vec<XPath> {
    [
        "/*",
        "//@*",
        "//text()",
        "//*",
        "/r/c",
        "//c//@a",
        "/r//text()",
    ]
    .iter()
    .map(|expression| XPath::compile(expression).expect("supported"))
    .collect()
}

#[test]
fn mutated_inputs_neither_panic_nor_multiply() {
    let mut random = Random(0x5eed_1e55_0b0d_1e50);
    let (mut scratch, mut document, paths) = (Scratch::default(), Document::default(), paths());
    for _ in 0..100_000 {
        let input = random.mutated();
        read_all(&input, &mut scratch, &mut document, &paths);
    }
}

#[test]
fn every_prefix_of_every_seed_is_read() {
    let (mut scratch, mut document, paths) = (Scratch::default(), Document::default(), paths());
    for seed in SEEDS {
        for end in 0..=seed.len() {
            read_all(&seed[..end], &mut scratch, &mut document, &paths);
        }
    }
}

/// One byte or token, a hundred thousand times: whatever is looked for from each place anew would
/// take minutes.
#[test]
fn repeated_tokens_are_linear() {
    let tokens = [
        "&",
        "=",
        "%",
        "+",
        "%4",
        ";",
        ",",
        "\"",
        "\\",
        "[",
        "{",
        "{\"a\":",
        "[1,",
        "<",
        "<a>",
        "<a ",
        "&amp;",
        "<!--",
        "<![CDATA[",
        "<!DOCTYPE",
        "]]",
        "--",
        "--XX\r\n",
        "--XX",
        "\r\n--",
        "\n--XX",
        "-- ",
        "--\n",
        "\n",
        "\r",
        "'",
        "#",
        "...",
        "@a",
        "a(",
        "\"\"\"",
        "{a",
        "/",
        "?",
        "--XX\r\nA:b\r\n ",
        "--XX\r\nContent-Disposition:form-data;name=",
        "a=\"",
        "$a=\"",
        "\0",
    ];
    let (mut scratch, mut document, paths) = (Scratch::default(), Document::default(), paths());
    for token in tokens {
        let input = token.repeat(100_000 / token.len() * 3);
        read_all(input.as_bytes(), &mut scratch, &mut document, &paths);
    }
}
