//! What requests cost: `cost [LEVEL] [plain]`, with Debian's `modsecurity-crs`. `plain` turns the prefilter off.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clew_rules::engine::{
    Connection, MemoryCollections, Now, Options, RuleSet, Transaction, compile,
};

struct Sample {
    name: &'static str,
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

const PROSE: &str = "The quick brown fox jumps over the lazy dog and runs away into the forest where it sleeps. \
    Later that day it woke up hungry, looked around for some food and went home again; nobody had seen it. ";

fn samples() -> Vec<Sample> {
    let usual = |extra: &[(&str, &str)]| {
        let base = [
            ("Host", "www.example.com"),
            (
                "User-Agent",
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
            ),
            (
                "Accept",
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            ),
            ("Accept-Language", "en-US,en;q=0.5"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Connection", "keep-alive"),
            ("Referer", "https://www.example.com/start"),
            (
                "Cookie",
                "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark",
            ),
            ("Cache-Control", "max-age=0"),
            ("Upgrade-Insecure-Requests", "1"),
        ];
        base.iter()
            .chain(extra)
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
    };
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let post = |name, kind: (&'static str, &'static str), body: String| {
        let mut headers = usual(&[kind]);
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
        Sample {
            name,
            method: "POST",
            target: "/api/v1/users".to_owned(),
            headers,
            body,
        }
    };
    let long: String = PROSE
        .chars()
        .cycle()
        .take(10_000)
        .collect::<String>()
        .replace(' ', "+");
    let fields = "name=Alice+Miller&email=alice%40example.com&city=Berlin&zip=10115&street=Main+Street+12&phone=%2B49+30+123456&comment=Please+call+me+back+tomorrow&newsletter=yes";
    let item = |n: usize| {
        format!(
            "{{\"id\":{n},\"name\":\"Item number {n}\",\"price\":{}.99,\"tags\":[\"red\",\"large\"],\"description\":\"A very nice thing to have at home\"}}",
            n * 3
        )
    };
    let json = |count: usize| {
        format!(
            "{{\"items\":[{}]}}",
            (0..count).map(item).collect::<Vec<_>>().join(",")
        )
    };
    let cookies = (0..20)
        .map(|n| format!("cookie{n}=value{n}abc"))
        .collect::<Vec<_>>()
        .join("; ");
    let mut many = usual(&[]);
    many.retain(|(name, _)| name != "Cookie");
    many.push(("Cookie".to_owned(), cookies));
    vec![
        Sample {
            name: "GET, 10 headers",
            method: "GET",
            target: "/shop/items/42?sort=price&page=3".to_owned(),
            headers: usual(&[]),
            body: String::new(),
        },
        post(
            "POST, small form",
            form,
            "user=alice&password=secret123".to_owned(),
        ),
        post("POST, 10 KB argument", form, format!("text={long}")),
        post("form, 8 fields", form, fields.to_owned()),
        Sample {
            name: "GET, 20 cookies",
            method: "GET",
            target: "/".to_owned(),
            headers: many,
            body: String::new(),
        },
        post("JSON, 4 KB", ("Content-Type", "application/json"), json(32)),
        post(
            "JSON, 100 KB",
            ("Content-Type", "application/json"),
            json(800),
        ),
    ]
}

fn rules(level: &str, prefilter: bool) -> Arc<RuleSet> {
    let before = format!(
        "SecRuleEngine On\nSecRequestBodyAccess On\nSecArgumentsLimit 100000\nSecAction \"id:1,phase:1,nolog,pass,setvar:tx.paranoia_level={level}\"\n\
         SecRule REQUEST_HEADERS:Content-Type \"@rx ^application/json\" \"id:2,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON\"\n"
    );
    let path = std::env::temp_dir().join(format!("clew-cost-{}.conf", std::process::id()));
    std::fs::write(&path, before).unwrap();
    let ast = clew_rules::seclang::load(&[
        path,
        PathBuf::from("/usr/share/modsecurity-crs/owasp-crs.load"),
    ])
    .unwrap();
    let options = Options {
        collections: Some(Arc::new(MemoryCollections::default())),
        prefilter,
        ..Options::default()
    };
    Arc::new(compile(&ast, options).unwrap())
}

fn connection() -> Connection {
    let home = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    Connection {
        client: (home, 54_321),
        server: (home, 80),
    }
}

/// All phases; the answer is the number of rules that matched with a record.
fn once(transaction: &mut Transaction, sample: &Sample, target: &str) -> usize {
    let never = &mut || false;
    let now = Now {
        unix: Duration::from_secs(1_700_000_000),
        monotonic: Duration::ZERO,
    };
    transaction.reset(connection(), now, b"0190a5c4");
    transaction.request_line(sample.method.as_bytes(), target.as_bytes(), b"HTTP/1.1");
    for (name, value) in &sample.headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    transaction.request_headers_done(never);
    transaction.request_body(sample.body.as_bytes());
    transaction.request_body_done(never);
    transaction.response_head(
        200,
        b"HTTP/1.1",
        [(&b"Content-Type"[..], &b"text/html"[..])],
        never,
    );
    transaction.response_body_done(never);
    transaction.finish(never);
    transaction.matches().count()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let level = arguments.first().map_or("1", String::as_str);
    let prefilter = !arguments.iter().any(|a| a == "plain");
    let only = arguments.iter().skip(1).find(|a| *a != "plain");
    let start = Instant::now();
    let rules = rules(level, prefilter);
    println!(
        "loaded in {:?}; level {level}, prefilter {prefilter}",
        start.elapsed()
    );
    println!(
        "{} strings, {} KiB",
        rules.filter_size().0,
        rules.filter_size().1 / 1024
    );
    if only.is_some_and(|id| id.parse::<u64>().is_ok()) {
        for id in arguments.iter().skip(1).filter_map(|id| id.parse().ok()) {
            println!("{id}: {}", rules.explain(id).unwrap_or_default());
        }
        return;
    }
    let now = Now::default();
    let mut transaction = rules.transaction(connection(), now, b"");
    for sample in samples()
        .iter()
        .filter(|s| only.is_none_or(|o| s.name.contains(o.as_str())))
    {
        let matched = once(&mut transaction, sample, &sample.target);
        for m in transaction.matches() {
            println!("  {}", m.log_line());
        }
        let targets: Vec<String> = (0..64)
            .map(|n| sample.target.replace("42", &n.to_string()))
            .collect();
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let (mut count, start) = (0_u32, Instant::now());
            while start.elapsed()
                < Duration::from_millis(std::env::var("MS").map_or(100, |v| v.parse().unwrap()))
                || count < 4
            {
                let target = &targets[count as usize % targets.len()];
                assert_eq!(once(&mut transaction, sample, target), matched);
                count += 1;
            }
            best = best.min(start.elapsed() / count);
        }
        println!(
            "{:24} {:>10.2} µs  {matched} matches, {} rules in all",
            sample.name,
            best.as_nanos() as f64 / 1000.0,
            transaction.matched_rules().len()
        );
    }
}
