//! What is said of requests when they are over.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clew_protocol::report::{Outcome, PackVersion, REPORT_MATCHES, Report};
use clew_proxy::{
    Accesses, Config, Excess, Offenders, RateKey, RateLimit, RateLimits, RateScope, Reports,
    Rulebook, Span, Tracing,
};

use crate::inspection::{ATTACK, judged, rules};
use crate::stage::{PATIENCE, Script, Stage, hang, localhost, ok, wait_until};

/// An edge that judges by `text`, and what it says.
fn told(
    script: Script,
    text: &str,
    adjust: impl FnOnce(&mut Config),
) -> Result<(Stage, Receiver<Report>)> {
    let (tell, reports) = channel();
    let stage = judged(script, text, |config| {
        config.reports = Some(Reports::new(move |report| {
            let _ = tell.send(report);
        }));
        adjust(config);
    })?;
    Ok((stage, reports))
}

#[test]
fn a_refused_request_is_told_whole() -> Result<()> {
    let (stage, reports) = told(ok, ATTACK, |config| {
        config.trusted_hops.networks = vec!["127.0.0.1/32".parse().expect("a network")];
    })?;
    let mut client = stage.client()?;
    client.send(
        "POST /a/b?x=1 HTTP/1.1\r\nHost: shop\r\nUser-Agent: me\r\nReferer: http://shop/\r\n\
         X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nContent-Length: 10\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\nq=attack+1",
    )?;
    let response = client.response()?;
    ensure!(response.status == 403);
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!(response.head.contains(&report.id.to_string()));
    ensure!(report.outcome == Outcome::Denied && report.status == Some(403));
    ensure!(report.client.address.to_string() == "203.0.113.9" && !report.client.shared);
    ensure!(report.peer == localhost() && report.server == stage.address);
    ensure!(report.forwarded == ["203.0.113.9", "198.51.100.1"]);
    ensure!(
        report
            .trace
            .is_some_and(|it| it.trace_id.starts_with("0af765"))
    );
    ensure!((report.method.as_str(), report.target.as_str()) == ("POST", "/a/b?x=1"));
    ensure!(report.version == "1.1" && report.authority == "shop" && report.tls.is_none());
    ensure!(report.user_agent.as_deref() == Some("me"));
    ensure!(report.referrer.as_deref() == Some("http://shop/"));
    ensure!(report.request_body_bytes == 10 && report.upstream.is_none());
    ensure!(report.timing.rules > Duration::ZERO && report.timing.total >= report.timing.rules);
    let [matched] = &report.matches[..] else {
        anyhow::bail!("{:?}", report.matches);
    };
    ensure!((matched.id, matched.message.as_str()) == (3, "body") && matched.disruptive);
    ensure!(
        matched.variable == "ARGS:q" && matched.line == 7,
        "{matched:?}"
    );
    Ok(())
}

#[test]
fn what_passes_is_told_only_if_a_rule_has_matched() -> Result<()> {
    let text = "SecRuleEngine DetectionOnly\nSecRule ARGS:a \"@streq b\" \"id:7,phase:1,deny\"\n";
    let (stage, reports) = told(ok, text, |_| {})?;
    let mut client = stage.client()?;
    ensure!(client.get("/?a=1")?.status == 200);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.send(&format!(
        "GET /?a=b HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\ntracestate: a=b\r\n\r\n"
    ))?;
    ensure!(client.response()?.status == 200);
    stage.upstream_head()?;
    // The trace goes on behind the edge as it came.
    let head = stage.upstream_head()?;
    ensure!(head.contains(&format!("traceparent: {parent}")) && head.contains("tracestate: a=b"));
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!(report.outcome == Outcome::Detected && report.target == "/?a=b");
    ensure!(report.status == Some(200) && report.response_body_bytes == 2);
    ensure!(report.upstream == Some(stage.upstream) && report.service.as_deref() == Some("test"));
    ensure!(report.timing.upstream.is_some());
    ensure!(
        report
            .trace
            .is_some_and(|it| it.parent_id.as_deref() == Some("b7ad6b7169203331"))
    );
    ensure!(reports.try_recv().is_err());
    Ok(())
}

#[test]
fn the_edge_s_own_refusals_are_told() -> Result<()> {
    let (stage, reports) = told(ok, ATTACK, |config| {
        config.trusted_hops.networks = vec!["127.0.0.1/32".parse().expect("a network")];
        config.limits.body_bytes = 10;
    })?;
    stage
        .handle
        .ban("192.0.2.7".parse::<std::net::IpAddr>()?, PATIENCE, None);
    let ask = |fields: &str| -> Result<u16> {
        let mut client = stage.client()?;
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))?;
        Ok(client.response()?.status)
    };
    ensure!(ask("X-Forwarded-For: 192.0.2.7\r\nContent-Length: 0\r\n")? == 403);
    ensure!(reports.recv_timeout(PATIENCE)?.outcome == Outcome::Banned);
    ensure!(ask("Content-Length: 11\r\n")? == 413);
    ensure!(reports.recv_timeout(PATIENCE)?.outcome == Outcome::Malformed);
    Ok(())
}

#[test]
fn a_verdict_is_told_with_its_incident() -> Result<()> {
    let (stage, reports) = told(hang, ATTACK, |_| {})?;
    let mut client = stage.client()?;
    client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let started = stage.started()?;
    wait_until("the verdict", || stage.cancel(started.sequence))?;
    ensure!(client.response()?.status == 403);
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!(report.outcome == Outcome::Cancelled && report.id == started.id);
    ensure!(report.incident.is_some() && report.status == Some(403));
    Ok(())
}

#[test]
fn a_request_is_judged_by_one_rulebook_and_says_by_which() -> Result<()> {
    let (stage, reports) = told(ok, ATTACK, |_| {})?;
    let pack = PackVersion {
        name: "p".to_owned(),
        version: "2.0.0".to_owned(),
    };
    let second = "SecRuleEngine On\nSecRule ARGS \"@contains bad\" \"id:9,phase:1,deny\"\n";
    let mut client = stage.client()?;
    ensure!(client.get("/?a=attack")?.status == 403);
    ensure!(reports.recv_timeout(PATIENCE)?.packs.is_empty());
    ensure!(stage.handle.set_rules(Rulebook {
        rules: rules(second)?,
        packs: Arc::new([pack.clone()]),
        limits: RateLimits::default(),
    }));
    ensure!(client.get("/?a=attack")?.status == 200);
    ensure!(client.get("/?a=bad")?.status == 403);
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!(report.packs[..] == [pack] && report.matches[0].id == 9);
    Ok(())
}

#[test]
fn matches_without_end_are_counted() -> Result<()> {
    let mut text = "SecRuleEngine DetectionOnly\n".to_owned();
    for id in 1..=REPORT_MATCHES + 5 {
        text += &format!("SecAction \"id:{id},phase:1,pass,log\"\n");
    }
    let (stage, reports) = told(ok, &text, |_| {})?;
    ensure!(stage.client()?.get("/")?.status == 200);
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!((report.matches.len(), report.matches_cut) == (REPORT_MATCHES, 5));
    Ok(())
}

#[test]
fn who_asks_too_often_is_told_to_wait() -> Result<()> {
    let (offend, offenders) = channel();
    let (stage, reports) = told(ok, "SecRuleEngine Off\n", |config| {
        let rules = config.rules.as_mut().expect("rules");
        let limit = RateLimit {
            name: "search".to_owned(),
            key: RateKey::Client,
            scope: RateScope::new("/search", |_, path| path.starts_with("/search")),
            requests: 3,
            window: Duration::from_secs(300),
            excess: Excess::Ban(429),
        };
        rules.rulebook.limits = RateLimits::new(vec![limit], &RateLimits::default());
        config.offenders = Some(Offenders::new(move |client, limit| {
            let _ = offend.send((client, limit.to_owned()));
        }));
    })?;
    let mut client = stage.client()?;
    for _ in 0..3 {
        ensure!(client.get("/search?q=a")?.status == 200);
    }
    let refused = client.get("/search?q=a")?;
    ensure!(refused.status == 429, "{refused:?}");
    ensure!(refused.head.to_lowercase().contains("retry-after: 300"));
    ensure!(client.get("/")?.status == 200);
    let report = reports.recv_timeout(PATIENCE)?;
    ensure!(report.outcome == Outcome::Limited && report.status == Some(429));
    ensure!(stage.handle.counters().limited_requests == 1);
    ensure!(offenders.try_recv()? == (localhost(), "search".to_owned()));
    Ok(())
}

#[test]
fn every_request_may_be_told() -> Result<()> {
    let (tell, told) = channel();
    let stage = Stage::with(ok, |config| {
        config.accesses = Some(Accesses::new(move |it| {
            let target = String::from_utf8_lossy(it.target).into_owned();
            let _ = tell.send((target, it.status, it.body_bytes, it.upstream, it.id));
        }));
    })?;
    let mut client = stage.client()?;
    for target in ["/a?b=c", "/d"] {
        let answer = client.get(target)?;
        let (seen, status, bytes, upstream, id) = told.recv_timeout(PATIENCE)?;
        ensure!((seen.as_str(), status, bytes) == (target, Some(200), 2));
        ensure!(upstream == Some(stage.upstream) && answer.head.contains(&id.to_string()));
    }
    Ok(())
}

#[test]
fn backends_are_told_of_the_edge_s_own_span() -> Result<()> {
    let (tell, told) = channel();
    let (stage, reports) = told_with_spans(move |span| {
        let _ = tell.send(span);
    })?;
    let mut client = stage.client()?;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.send(&format!(
        "GET /?a=b HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\ntracestate: a=b\r\n\r\n"
    ))?;
    ensure!(client.response()?.status == 200);
    let span = told.recv_timeout(PATIENCE)?.context("a span")?;
    let own = format!("00-{:032x}-{:016x}-01", span.trace_id, span.id);
    let head = stage.upstream_head()?;
    ensure!(head.contains(&format!("traceparent: {own}")) && head.contains("tracestate: a=b"));
    ensure!(span.parent_id == Some(0xb7ad_6b71_6920_3331) && span.is_sampled);
    let trace = reports.recv_timeout(PATIENCE)?.trace.context("a trace")?;
    ensure!(trace.span_id == Some(format!("{:016x}", span.id)));
    // Of a trace that begins here nobody can have said anything.
    client.send("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 1\r\ntracestate: a=b\r\n\r\n")?;
    ensure!(client.response()?.status == 200);
    let span = told.recv_timeout(PATIENCE)?.context("a span")?;
    let head = stage.upstream_head()?;
    let own = format!("00-{:032x}-{:016x}-00", span.trace_id, span.id);
    ensure!(head.matches("traceparent").count() == 1 && head.contains(&own));
    ensure!(!head.contains("tracestate") && span.parent_id.is_none());
    Ok(())
}

/// With spans, of which none are recorded that begin here.
fn told_with_spans(
    tell: impl Fn(Option<Span>) + Send + Sync + 'static,
) -> Result<(Stage, Receiver<Report>)> {
    let text = "SecRuleEngine DetectionOnly\nSecRule ARGS:a \"@streq b\" \"id:7,phase:1,deny\"\n";
    told(ok, text, |config| {
        config.accesses = Some(Accesses::new(move |it| tell(it.span)));
        config.tracing = Some(Tracing { share: 0.0 });
    })
}
