//! Requests and responses that two parsers could read in two ways.

use anyhow::{Result, ensure};

use crate::stage::{Connection, Script, Stage, ok};

/// RFC 9112 §2.2, §6.1-6.3: each shape has been used to smuggle a request past a proxy.
#[test]
fn ambiguous_framing_is_refused() -> Result<()> {
    let stage = Stage::new(ok)?;
    let shapes = [
        ("bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n"),
        (
            "bare LF after the request line",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
        ),
        (
            "bare LF in the fields",
            "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        ),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks and length",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        ),
        (
            "one length twice",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        ),
        (
            "list of lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
        ),
        (
            "two codings",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ];
    let mut wrong = Vec::new();
    for (name, shape) in shapes {
        let mut client = stage.client()?;
        client.send(shape)?;
        let answer = client.rest().unwrap_or_else(|error| error.to_string());
        if !answer.is_empty()
            && !answer.starts_with("HTTP/1.1 400 ")
            && !answer.starts_with("HTTP/1.1 505 ")
        {
            wrong.push(format!("{name}: {:?}", answer.lines().next()));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(
        stage.try_upstream_head().is_none(),
        "something reached the backend"
    );
    Ok(())
}

#[test]
fn sound_framing_passes() -> Result<()> {
    let stage = Stage::new(ok)?;
    for shape in [
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /caf\u{e9}?q=%20 HTTP/1.1\r\nHost: a\r\nX: \t padded \t\r\nX-Empty:\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = stage.client()?;
        client.send(shape)?;
        ensure!(client.response()?.status == 200, "{shape:?}");
    }
    Ok(())
}

/// RFC 9112 §3.2: a request line with a space too many is not corrected.
#[test]
fn spaces_in_a_target_are_refused() -> Result<()> {
    let stage = Stage::new(ok)?;
    for target in ["/a b", "/a\tb", "/a HTTP/1.1", " /a", "/a "] {
        let mut client = stage.client()?;
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        ensure!(client.response()?.status == 400, "{target:?}");
    }
    ensure!(stage.try_upstream_head().is_none());
    Ok(())
}

/// What a backend lets into a field value must not become a line of its own for the client.
#[test]
fn responses_are_not_split() -> Result<()> {
    let scripts: [(&str, u16, Script); 4] = [
        ("CR", 502, |it| bad(it, "X: a\rSet-Cookie: stolen=1\r\n")),
        ("NUL", 502, |it| bad(it, "X: a\0b\r\n")),
        ("CTL", 502, |it| bad(it, "X: \x01\r\n")),
        // RFC 9112 §5.2: a proxy replaces the fold by spaces.
        ("fold", 200, |it| {
            bad(it, "X: a\r\n Set-Cookie: stolen=1\r\n")
        }),
    ];
    for (name, status, script) in scripts {
        let stage = Stage::new(script)?;
        let response = stage.client()?.get("/")?;
        ensure!(response.status == status, "{name}: {}", response.head);
        let head = response.head.to_ascii_lowercase();
        let mut lines = head.split(['\r', '\n']);
        let is_split = lines.any(|line| line.starts_with("set-cookie"));
        ensure!(!is_split && !head.contains('\0'), "{name}: {head}");
    }
    Ok(())
}

fn bad(connection: &mut Connection, field: &str) -> Result<()> {
    connection.head();
    connection.send(&format!(
        "HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n"
    ))
}
