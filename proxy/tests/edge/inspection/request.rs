//! Heads and bodies of requests.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clew_protocol::request::EdgeFindings;
use clew_proxy::Rulebook;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{ATTACK, fingerprint, judged, noise, rules, whole};
use crate::stage::{Client, Response, Stage, echo, ok};
use crate::tls_stage::{Secure, on_runtime, request};

fn post(client: &mut Client, fields: &str, body: &[u8]) -> Result<Response> {
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    ))?;
    client.stream.write_all(body)?;
    client.response()
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

#[test]
fn heads_are_judged_before_a_backend_hears_of_them() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    let mut client = stage.client()?;
    let response = client.get("/?a=an%20attack")?;
    ensure!(response.status == 403 && response.body.contains("blocked"));
    ensure!(stage.try_upstream_head().is_none());
    // The connection is as good as before.
    ensure!(client.get("/?a=1")?.status == 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Head: attack\r\n\r\n")?;
    ensure!(client.response()?.status == 403);
    ensure!(stage.handle.counters().denied_requests == 2);
    Ok(())
}

#[test]
fn bodies_are_judged_in_each_form() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    let multipart = "Content-Type: multipart/form-data; boundary=b\r\n";
    let part = |text: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{text}\r\n--b--\r\n")
    };
    let cases = [
        (FORM, "a=1&b=attack".to_owned(), "a=1&b=2".to_owned()),
        (
            "Content-Type: application/json\r\n",
            "{\"a\": {\"b\": \"an att\\u0061ck\"}}".to_owned(),
            "{\"a\": 1}".to_owned(),
        ),
        (multipart, part("attack"), part("fine")),
    ];
    let mut client = stage.client()?;
    for (fields, bad, good) in &cases {
        ensure!(
            post(&mut client, fields, bad.as_bytes())?.status == 403,
            "{bad}"
        );
        ensure!(stage.try_upstream_head().is_none());
        ensure!(
            post(&mut client, fields, good.as_bytes())?.status == 200,
            "{good}"
        );
        stage.upstream_head()?;
    }
    Ok(())
}

#[test]
fn no_byte_reaches_a_backend_before_the_verdict() -> Result<()> {
    let stage = judged(whole, ATTACK, |_| {})?;
    let mut body = noise(200_000);
    let mut client = stage.client()?;
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200006\r\n{FORM}\r\n"
    ))?;
    client.stream.write_all(&body)?;
    ensure!(stage.try_upstream_head().is_none(), "the head is there");
    client.send("attack")?;
    ensure!(client.response()?.status == 403);
    ensure!(stage.try_upstream_head().is_none());
    body.extend_from_slice(b"chatty");
    ensure!(
        post(&mut client, FORM, &body)?.status == 200,
        "the connection goes on"
    );
    Ok(())
}

/// Sizes around pingora's buffers and the rules' limit.
const SIZES: [usize; 9] = [
    0, 1, 65_535, 65_536, 65_537, 131_072, 300_000, 1_048_576, 3_000_000,
];

#[test]
fn bodies_arrive_unchanged() -> Result<()> {
    let text = format!("{ATTACK}\nSecRequestBodyLimitAction ProcessPartial\n");
    let stage = judged(whole, &text, |_| {})?;
    for size in SIZES {
        let body = noise(size);
        let mut client = stage.client()?;
        for round in 0..2 {
            ensure!(post(&mut client, FORM, &body)?.status == 200);
            ensure!(
                stage
                    .upstream_head()?
                    .contains(&format!("ontent-Length: {size}\r\n"))
            );
            ensure!(
                stage.upstream_head()? == fingerprint(&body),
                "{size}, length, {round}"
            );
        }
        for round in 0..2 {
            client.send(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n{FORM}\r\n"
            ))?;
            for piece in body.chunks(50_000) {
                client.send(&format!("{:x}\r\n", piece.len()))?;
                client.stream.write_all(piece)?;
                client.send("\r\n")?;
            }
            client.send("0\r\n\r\n")?;
            ensure!(client.response()?.status == 200);
            stage.upstream_head()?;
            ensure!(
                stage.upstream_head()? == fingerprint(&body),
                "{size}, chunked, {round}"
            );
        }
    }
    Ok(())
}

#[test]
fn bodies_over_http2_arrive_unchanged() -> Result<()> {
    let text = format!("{ATTACK}\nSecRequestBodyLimitAction ProcessPartial\n");
    for rules in [None, Some(rules(&text)?)] {
        let secure = Secure::with(whole, |config| {
            config.rules = rules.map(super::patient);
        })?;
        on_runtime(async {
            let mut client = secure.http2().await?;
            for size in SIZES {
                let body = noise(size);
                client = client.ready().await?;
                let (response, stream) = client.send_request(posted()?, false)?;
                upload(stream, Bytes::from(body.clone())).await?;
                ensure!(response.await?.status() == 200, "{size}");
                secure.stage.upstream_head()?;
                ensure!(
                    secure.stage.upstream_head()? == fingerprint(&body),
                    "{size}"
                );
            }
            Ok(())
        })?;
        let rest = secure.stage.try_upstream_head();
        ensure!(rest.is_none(), "{rest:?}");
    }
    Ok(())
}

/// Sends a body that ends, as many clients' do, with a frame of nothing.
async fn upload(mut stream: h2::SendStream<Bytes>, mut rest: Bytes) -> Result<()> {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.context("stream closed")??;
        stream.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

#[test]
fn bodies_over_http2_are_judged() -> Result<()> {
    let rules = rules(ATTACK)?;
    let secure = Secure::with(whole, |config| {
        config.rules = Some(super::patient(rules));
    })?;
    on_runtime(async {
        let (response, stream) = secure.http2().await?.send_request(posted()?, false)?;
        upload(stream, Bytes::from_static(b"a=attack")).await?;
        ensure!(response.await?.status() == 403);
        ensure!(secure.stage.try_upstream_head().is_none());
        Ok(())
    })
}

fn posted() -> Result<http::Request<()>> {
    let mut head = request("/")?;
    *head.method_mut() = http::Method::POST;
    let kind = http::HeaderValue::from_static("application/x-www-form-urlencoded");
    head.headers_mut().insert("content-type", kind);
    Ok(head)
}

#[test]
fn what_is_beyond_the_limit_is_refused_or_streamed() -> Result<()> {
    let limit = |action: &str| {
        format!(
            "{ATTACK}\nSecRequestBodyLimit 100000\nSecRequestBodyNoFilesLimit 100000\nSecRequestBodyLimitAction {action}\n"
        )
    };
    let mut body = noise(200_000);
    let strict = judged(whole, &limit("Reject"), |_| {})?;
    ensure!(post(&mut strict.client()?, FORM, &body)?.status == 413);
    ensure!(strict.try_upstream_head().is_none());
    ensure!(post(&mut strict.client()?, FORM, &body[..100_000])?.status == 200);
    let lax = judged(whole, &limit("ProcessPartial"), |_| {})?;
    body.extend_from_slice(b"&x=attack");
    ensure!(
        post(&mut lax.client()?, FORM, &body)?.status == 200,
        "beyond what is looked at"
    );
    lax.upstream_head()?;
    ensure!(lax.upstream_head()? == fingerprint(&body));
    body[..9].copy_from_slice(b"x=attack&");
    ensure!(post(&mut lax.client()?, FORM, &body)?.status == 403);
    ensure!(lax.try_upstream_head().is_none());
    Ok(())
}

fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

#[test]
fn coded_bodies_are_judged_decoded_and_passed_on_as_they_are() -> Result<()> {
    let stage = judged(whole, ATTACK, |_| {})?;
    let fields = format!("{FORM}Content-Encoding: gzip\r\n");
    let status =
        |body: &[u8]| -> Result<u16> { Ok(post(&mut stage.client()?, &fields, body)?.status) };
    ensure!(status(&gzip(b"a=attack")?)? == 403);
    ensure!(
        status(&gzip(&vec![b'0'; 900_000])?)? == 413,
        "expands 1000 times"
    );
    ensure!(
        status(&gzip(&noise(1_100_000))?)? == 413,
        "longer than the limit"
    );
    ensure!(status(b"a=attack")? == 400, "not gzip at all");
    ensure!(stage.try_upstream_head().is_none());
    let body = gzip(&noise(200_000))?;
    ensure!(status(&body)? == 200);
    stage.upstream_head()?;
    ensure!(stage.upstream_head()? == fingerprint(&body));
    let fields = format!("{FORM}Content-Encoding: compress\r\n");
    ensure!(post(&mut stage.client()?, &fields, b"a=1")?.status == 415);
    Ok(())
}

#[test]
fn clients_that_wait_are_told_to_go_on() -> Result<()> {
    let stage = judged(whole, ATTACK, |_| {})?;
    let mut client = stage.client()?;
    for _ in 0..2 {
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n{FORM}\r\n"
        ))?;
        ensure!(client.head()?.starts_with("HTTP/1.1 100 "));
        ensure!(stage.try_upstream_head().is_none());
        client.send("a=1")?;
        ensure!(client.response()?.status == 200);
        ensure!(
            !stage
                .upstream_head()?
                .to_ascii_lowercase()
                .contains("expect:")
        );
        ensure!(stage.upstream_head()? == fingerprint(b"a=1"));
    }
    Ok(())
}

#[test]
fn memory_for_bodies_is_bounded() -> Result<()> {
    let stage = judged(whole, ATTACK, |config| {
        if let Some(rules) = &mut config.rules {
            rules.kept_bodies_bytes = 300_000;
        }
    })?;
    let mut one = stage.client()?;
    one.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n{FORM}\r\n"
    ))?;
    let body = noise(100_000);
    one.stream.write_all(&body)?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(
        post(&mut stage.client()?, FORM, &body)?.status == 503,
        "both do not fit"
    );
    one.send("x")?;
    ensure!(one.response()?.status == 200);
    ensure!(
        post(&mut stage.client()?, FORM, &body)?.status == 200,
        "it was given back"
    );
    Ok(())
}

#[test]
fn without_memory_detection_passes_what_it_has_not_seen() -> Result<()> {
    let text = format!("{ATTACK}\nSecRuleEngine DetectionOnly\n");
    let stage = judged(whole, &text, |config| {
        if let Some(rules) = &mut config.rules {
            rules.kept_bodies_bytes = 50_000;
        }
    })?;
    for size in [10_000, 100_000, 500_000] {
        let body = noise(size);
        ensure!(post(&mut stage.client()?, FORM, &body)?.status == 200);
        stage.upstream_head()?;
        ensure!(stage.upstream_head()? == fingerprint(&body), "{size}");
    }
    Ok(())
}

#[test]
fn bodies_that_stall_are_a_408() -> Result<()> {
    let hurry = |config: &mut clew_proxy::Config| {
        config.limits.body_deadline = Duration::from_millis(300);
    };
    let stage = judged(ok, ATTACK, hurry)?;
    for declared in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut client = stage.client()?;
        client.send(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{declared}\r\n{FORM}\r\n1\r\nx\r\n"
        ))?;
        ensure!(client.response()?.status == 408, "{declared}");
    }
    let rules = rules(ATTACK)?;
    let secure = Secure::with(ok, |config| {
        config.rules = Some(super::patient(rules));
        hurry(config);
    })?;
    on_runtime(async {
        let (response, _stream) = secure.http2().await?.send_request(posted()?, false)?;
        ensure!(response.await?.status() == 408);
        Ok(())
    })
}

#[test]
fn rules_choose_what_the_client_is_told() -> Result<()> {
    let text = r#"
SecRuleEngine On
SecRule ARGS:a "@streq teapot" "id:1,phase:1,deny,status:418"
SecRule ARGS:a "@streq away" "id:2,phase:1,redirect:http://example.com/away,status:302"
SecRule ARGS:a "@streq drop" "id:3,phase:1,drop"
"#;
    let stage = judged(ok, text, |_| {})?;
    let mut client = stage.client()?;
    ensure!(client.get("/?a=teapot")?.status == 418);
    let response = client.get("/?a=away")?;
    ensure!(response.status == 302);
    ensure!(
        response
            .head
            .to_ascii_lowercase()
            .contains("location: http://example.com/away\r\n")
    );
    client.send("GET /?a=drop HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(client.rest()?.is_empty());
    Ok(())
}

#[test]
fn detection_passes_and_is_logged() -> Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let text = format!("{ATTACK}\nSecRuleEngine DetectionOnly\n");
    let file = log.reopen()?;
    let stage = judged(whole, &text, |config| {
        if let Some(rules) = &mut config.rules {
            rules.log = Some(file);
        }
    })?;
    let mut client = stage.client()?;
    ensure!(post(&mut client, FORM, b"b=attack")?.status == 200);
    let mut lines = String::new();
    log.as_file().read_to_string(&mut lines)?;
    ensure!(
        lines
            .lines()
            .next()
            .is_some_and(|line| line.contains("[id \"3\"]")),
        "{lines}"
    );
    ensure!(lines.contains("[msg \"body\"]"), "{lines}");
    Ok(())
}

#[test]
fn a_request_is_judged_by_the_rules_in_force_when_it_began() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    let mut client = stage.client()?;
    client.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n{FORM}\r\n"
    ))?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(
        stage
            .handle
            .set_rules(Rulebook::new(rules("SecRuleEngine Off\n")?))
    );
    client.send("a=attack")?;
    ensure!(client.response()?.status == 403);
    ensure!(client.get("/?a=attack")?.status == 200);
    ensure!(
        !Stage::new(ok)?
            .handle
            .set_rules(Rulebook::new(rules(ATTACK)?))
    );
    Ok(())
}

#[test]
fn what_costs_too_much_is_ended() -> Result<()> {
    let stage = judged(ok, ATTACK, |config| {
        if let Some(rules) = &mut config.rules {
            rules.budget = Duration::ZERO;
        }
    })?;
    let body = noise(200_000);
    ensure!(post(&mut stage.client()?, FORM, &body)?.status == 503);
    ensure!(stage.try_upstream_head().is_none());
    Ok(())
}

#[test]
fn websockets_pass() -> Result<()> {
    let stage = judged(echo, ATTACK, |_| {})?;
    let mut client = stage.client()?;
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    ensure!(client.head()?.starts_with("HTTP/1.1 101"));
    client.send("a=attack")?;
    let mut back = [0; 8];
    client.stream.read_exact(&mut back)?;
    ensure!(&back == b"a=attack");
    let mut other = stage.client()?;
    other.send(
        "GET /?a=attack HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    ensure!(other.response()?.status == 403);
    Ok(())
}

/// What says that it upgrades, and has a body, is judged by its body.
#[test]
fn an_upgrade_hides_no_body() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    let fields = format!("{FORM}Connection: upgrade\r\nUpgrade: websocket\r\n");
    ensure!(post(&mut stage.client()?, &fields, b"a=attack")?.status == 403);
    ensure!(stage.try_upstream_head().is_none());
    Ok(())
}

/// What passes with a suspicion: the correlator hears of it before the backend reads a byte.
#[test]
fn findings_ride_on_the_record_of_the_request() -> Result<()> {
    let rules = r#"
SecRuleEngine On
SecRequestBodyAccess On
SecRule ARGS "@contains odd" "id:11,phase:1,pass,log,setvar:'tx.anomaly_score=+3'"
SecRule ARGS "@contains odd" "id:12,phase:2,pass,nolog,setvar:'tx.anomaly_score=+4'"
SecRule ARGS "@contains odder" "id:13,phase:2,pass,log"
"#;
    let stage = judged(ok, rules, |_| {})?;
    let mut client = stage.client()?;
    ensure!(client.get("/?a=plain")?.status == 200);
    ensure!(stage.started()?.edge == EdgeFindings::default());
    ensure!(client.get("/?a=odd")?.status == 200);
    let edge = stage.started()?.edge;
    ensure!(edge.score == 7 && *edge.rules == [11], "{edge:?}");
    ensure!(post(&mut client, FORM, b"a=odder")?.status == 200);
    let edge = stage.started()?.edge;
    ensure!(edge.score == 4 && *edge.rules == [13], "{edge:?}");
    Ok(())
}
