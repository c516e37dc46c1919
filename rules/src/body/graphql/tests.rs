use super::*;

fn read(document: &str) -> (Vec<(Kind, String)>, Result<Parsed, BodyError>) {
    let mut found = Vec::new();
    let limits = BodyLimits::default();
    let mut scratch = Scratch::default();
    let outcome = pairs(
        document.as_bytes(),
        &limits,
        &mut scratch,
        |kind, name, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((kind, format!("{}={}", text(name), text(value))));
        },
    );
    (found, outcome)
}

fn of_kind(document: &str, kind: Kind) -> String {
    let (found, outcome) = read(document);
    assert_eq!(outcome.err(), None, "{document}");
    let shown: Vec<_> = found
        .into_iter()
        .filter(|pair| pair.0 == kind)
        .map(|pair| pair.1)
        .collect();
    shown.join("|")
}

#[test]
fn literals_stand_under_fields_and_arguments() {
    let cases = [
        ("{ user(id: \"1\\u0027\") { name } }", "graphql.user.id=1'"),
        (
            "query Q($a: [Int!]! = [1, 2], $b: In = {c: 3}) { u(in: {a: [2, {b: X}], c: \"\"}) { n: posts(first: 3) } }",
            "graphql.$a.array_0=1|graphql.$a.array_1=2|graphql.$b.c=3|graphql.u.in.a.array_0=2|\
             graphql.u.in.a.array_1.b=X|graphql.u.in.c=|graphql.u.posts.first=3",
        ),
        (
            "{ a(x: 1) @include(if: true) @s { b(y: \"\"\"\n  <z>\n\"\"\") } c(z: null) }",
            "graphql.a.x=1|graphql.a.if=true|graphql.a.b.y=<z>|graphql.c.z=null",
        ),
        (
            "mutation @d(e: 1) { a } fragment F on T @g(h: 2) { b(c: 3) }",
            "graphql.e=1|graphql.h=2|graphql.b.c=3",
        ),
        (
            "{ ...F ... on T { a(b: 1) } ... @i(if: 2) { c(d: 3) } }",
            "graphql.a.b=1|graphql.if=2|graphql.c.d=3",
        ),
        (
            "query($a: Int @d(x: 1), $b: Int) { f(a: $a) }",
            "graphql.x=1",
        ),
        (
            "# comment\n,,{a(b:[[1]2])}",
            "graphql.a.b.array_0.array_0=1|graphql.a.b.array_1=2",
        ),
    ];
    for (document, want) in cases {
        assert_eq!(of_kind(document, Kind::Literal), want, "{document}");
    }
}

#[test]
fn names_aliases_and_variables_are_told_apart() {
    let document = "query Q($v: ID) { n: user(id: $v) { ...F } __schema { types } }";
    let names = "graphql=Q|graphql.user=user|graphql.user=F|graphql.__schema=__schema|\
                 graphql.__schema.types=types";
    assert_eq!(of_kind(document, Kind::Name), names);
    assert_eq!(of_kind(document, Kind::Alias), "graphql.user=n");
    assert_eq!(of_kind(document, Kind::Variable), "graphql.user.id=v");
}

#[test]
fn what_is_no_executable_document_is_an_error() {
    let cases = [
        "",
        "laptop",
        "type A { b: C }",
        "{ a",
        "{ a(b: ) }",
        "{ a(b 1) }",
        "{ a } x",
        "query Q",
        "fragment F { a }",
        "{ a(b: \"c }",
        "query ($a: Int { b }",
        "{ 1 }",
        "{ a(b: 1}",
        "]",
    ];
    for document in cases {
        assert!(read(document).1.is_err(), "{document}");
    }
    let partial = read("{ a(b: \"x\") c(");
    assert!(partial.1.is_err() && partial.0.iter().any(|pair| pair.1 == "graphql.a.b=x"));
}

#[test]
fn documents_are_told_from_other_texts() {
    for text in [
        "{a}",
        " query Q{a}",
        "mutation{a}",
        "# c\n{a}",
        "\u{feff}fragment F on T{a}",
    ] {
        assert!(looks_like(text.as_bytes()), "{text}");
    }
    for text in ["", "laptop", "queryQ", "query", "select 1", "mutations"] {
        assert!(!looks_like(text.as_bytes()), "{text}");
    }
}

#[test]
fn depth_and_output_are_limited() {
    let limits = BodyLimits {
        depth: 64,
        ..BodyLimits::default()
    };
    let read = |document: String| {
        pairs(
            document.as_bytes(),
            &limits,
            &mut Scratch::default(),
            |_, _, _| (),
        )
        .map_err(|error| error.what)
    };
    let nested = |depth: usize| format!("{}b{}", "{a".repeat(depth), "}".repeat(depth));
    assert!(read(nested(64)).is_ok());
    assert_eq!(read(nested(65)), Err("nested too deep"));
    assert_eq!(
        read(format!("{{a(b: {}", "[".repeat(100_000))),
        Err("nested too deep")
    );
    let long = format!("{{{}(b: [{}])}}", "a".repeat(100_000), "1 ".repeat(900));
    assert!(read(long).is_err());
}
