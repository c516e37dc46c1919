//! Rules in front of a backend: what they cost Clew, and what libmodsecurity costs nginx.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::load::{Request, fire};
use crate::pairs::{Comparison, compare};
use crate::side::{Proxy, Side};

/// The Core Rule Set as Debian installs it, at its default level, for both sides.
const RULES: &str = "SecRuleEngine On
SecRequestBodyAccess On
SecAuditEngine Off
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
";

/// What browsers send with a search.
const BROWSER: Request = Request {
    target: "/search?q=hiking+boots&category=outdoor&sort=price&page=2",
    headers: BROWSER_HEADERS,
};

const ATTACK: Request = Request {
    target: "/search?q=1%27+union+select+password+from+users--",
    headers: BROWSER_HEADERS,
};

const BROWSER_HEADERS: &[(&str, &str)] = &[
    ("Host", "shop.example.com"),
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    ),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Referer", "https://shop.example.com/outdoor"),
    (
        "Cookie",
        "session=8f14e45fceea167a5a36dedd4bea2543; theme=light",
    ),
    ("Upgrade-Insecure-Requests", "1"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
];

/// Clew with rules beside Clew without, and beside nginx with libmodsecurity.
pub(crate) fn compare_all(
    pairs: u32,
    span: Duration,
    binaries: &Path,
    work: &Path,
) -> Result<Vec<Comparison>> {
    std::fs::write(work.join("rules.conf"), RULES)?;
    let backend = Side::backend(0, work, None)?;
    let start = |proxy| Side::proxy(proxy, backend.port, binaries, work);
    let ours = start(Proxy::ClewWithRules)?;
    check(&ours, "Clew")?;
    let mut all = Vec::new();
    for (name, proxy, goal) in [
        (
            "clew with CRS / clew without rules",
            Proxy::ClewWithoutSensor,
            0.85,
        ),
        (
            "clew with CRS / nginx with libmodsecurity",
            Proxy::NginxWithRules,
            10.0,
        ),
    ] {
        let other = start(proxy)?;
        if proxy == Proxy::NginxWithRules {
            check(&other, "nginx")?;
        }
        all.push(compare(
            name,
            Some(goal),
            pairs,
            || fire(ours.port, &BROWSER, span, work),
            || fire(other.port, &BROWSER, span, work),
        )?);
    }
    Ok(all)
}

/// Both judge: what is harmless passes, what is not does not.
fn check(side: &Side, name: &str) -> Result<()> {
    for (request, wanted) in [(BROWSER, 200), (ATTACK, 403)] {
        let status = status(side.port, &request)?;
        ensure!(
            status == wanted,
            "{name}: {} is answered {status}",
            request.target
        );
    }
    Ok(())
}

fn status(port: u16, request: &Request) -> Result<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let lines = request.headers.iter();
    let lines: String = lines
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(
        stream,
        "GET {} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n",
        request.target
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).context("no answer")?;
    Ok(status.parse()?)
}
