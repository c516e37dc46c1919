//! Request lines that pingora does not take as they are.

use anyhow::{Context, Result, ensure};

use super::judged;
use crate::stage::{Stage, ok};

/// Bytes that browsers encode and attackers do not, in each part of a target.
const RAW: [&str; 13] = [
    "<", ">", "\"", "`", "{", "}", "|", "^", "\\", "'", "[", "\u{e9}", "<>\"`",
];

/// Rules that refuse an argument with a mark, and every target but `target`.
fn watched(target: &str) -> String {
    format!(
        "SecRuleEngine On\n\
         SecRule ARGS \"@contains attack\" \"id:1,phase:1,deny,status:403\"\n\
         SecRule REQUEST_URI_RAW \"!@within |{}|\" \"id:2,phase:1,deny,status:410\"\n",
        target.replace('"', "\\\"")
    )
}

fn decoded(target: &str) -> Result<String> {
    let (mut bytes, mut rest) = (Vec::new(), target.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (code, after) = rest.split_at_checked(2).context("a cut escape")?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code)?, 16)?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    Ok(String::from_utf8(bytes)?)
}

/// What the backend decodes is what the client wrote, and rules see that.
#[test]
fn raw_bytes_of_a_target_mean_the_same_to_rules_and_backend() -> Result<()> {
    for raw in RAW {
        for target in [format!("/a{raw}b"), format!("/a?b={raw}c&d={raw}")] {
            let stage = judged(ok, &watched(&target), |_| {})?;
            let mut client = stage.client()?;
            let status = client.get(&target)?.status;
            ensure!(status == 200, "{target}: {status}");
            let head = stage.upstream_head()?;
            let sent = head.split(' ').nth(1).context("no target")?;
            ensure!(decoded(sent)? == target, "{target}: {head}");
            ensure!(client.get(&format!("/?a={raw}attack"))?.status == 403);
            ensure!(client.get(&target)?.status == 200, "the next request");
        }
    }
    Ok(())
}

/// However the head is cut, and whatever follows it.
#[test]
fn a_raw_target_may_come_in_pieces() -> Result<()> {
    let stage = judged(ok, &watched("/<a>?b=\"c\""), |_| {})?;
    let request = "POST /<a>?b=\"c\" HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n<a>\"";
    for size in [1, 2, 7, 25, 60] {
        let mut client = stage.client()?;
        for piece in request.as_bytes().chunks(size) {
            client.send(std::str::from_utf8(piece)?)?;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        ensure!(client.response()?.status == 200, "{size}");
        let head = stage.upstream_head()?;
        ensure!(
            head.starts_with("POST /%3Ca%3E?b=%22c%22 HTTP/1.1\r\n"),
            "{head}"
        );
        ensure!(client.get("/<a>?b=\"c\"")?.status == 200);
        stage.upstream_head()?;
    }
    Ok(())
}

/// Rules see a line that is refused, and can refuse it in their own way; no backend does.
#[test]
fn rules_see_lines_that_are_refused() -> Result<()> {
    for (line, status) in [
        ("CONNECT a:80 HTTP/1.1", 405),
        ("CONNECT a HTTP/1.1", 400),
        ("GET / HTTP/3.0", 400),
        ("PRI * HTTP/2.0", 400),
        ("GET /", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
    ] {
        let text = format!(
            "SecRuleEngine On\nSecRule REQUEST_LINE \"@streq {line}\" \"id:1,phase:2,deny,status:418,chain\"\nSecRule REQUEST_HEADERS:X \"@streq attack\" \"t:none\"\n"
        );
        let stage = judged(ok, &text, |_| {})?;
        for (value, wanted) in [("attack", 418), ("fine", status)] {
            let mut client = stage.client()?;
            client.send(&format!("{line}\r\nHost: a\r\nX: {value}\r\n\r\n"))?;
            let seen = client.response()?.status;
            ensure!(seen == wanted, "{line}: {seen}");
        }
        ensure!(stage.try_upstream_head().is_none(), "{line}");
    }
    Ok(())
}

/// Nothing of what follows a refused line is taken for a request.
#[test]
fn a_refused_line_ends_its_connection() -> Result<()> {
    let stage = Stage::new(ok)?;
    for line in [
        "CONNECT a:80 HTTP/1.1",
        "POST / HTTP/3.0",
        "GET /a b HTTP/1.1",
    ] {
        let mut client = stage.client()?;
        client.send(&format!(
            "{line}\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        ))?;
        let answer = client.rest()?;
        ensure!(answer.matches("HTTP/1.").count() == 1, "{line}: {answer}");
        ensure!(stage.try_upstream_head().is_none(), "{line}");
    }
    Ok(())
}

/// Who answers is the edge, over and over: each head has a deadline of its own.
#[test]
fn refused_requests_leave_no_clock_behind() -> Result<()> {
    let stage = judged(ok, super::ATTACK, |config| {
        config.limits.head_deadline = std::time::Duration::from_millis(200);
    })?;
    let mut client = stage.client()?;
    for _ in 0..4 {
        ensure!(client.get("/?a=attack")?.status == 403);
        std::thread::sleep(std::time::Duration::from_millis(120));
    }
    Ok(())
}
