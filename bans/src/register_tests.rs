use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy {
        measure: Measure {
            by_verdict: true,
            span: 60 * SECOND,
            escalation: 4,
            longest: 1000 * SECOND,
        },
        memory: 3600 * SECOND,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        never: vec![source("192.0.2.0/24")],
        shared: vec![source("198.51.100.0/24")],
        dry_run: false,
    }
}

fn register() -> Register {
    Register::new(policy(), 10)
}

fn source(text: &str) -> IpNet {
    text.parse().expect("a source")
}

fn at(seconds: u64) -> Wall {
    Wall(1_000_000_000_000 + seconds * 1000)
}

fn verdict(address: &str) -> Order {
    let incident = IncidentId(uuid::Uuid::nil());
    Order {
        cause: Cause::Verdict(address.parse().expect("an address"), incident),
        span: Span::Policy,
        reason: String::new(),
    }
}

fn hand(text: &str, span: Span) -> Order {
    Order {
        cause: Cause::Hand(source(text)),
        span,
        reason: "because".to_owned(),
    }
}

fn seconds_of(register: &mut Register, order: &Order, now: u64) -> u64 {
    let banned = register.ban(order, at(now)).expect("banned");
    banned.ban.until.since(at(now)).as_secs()
}

#[test]
fn offenders_who_come_back_are_banned_longer() {
    let mut register = register();
    let order = verdict("203.0.113.1");
    let mut now = 0;
    for expected in [60, 240, 960, 1000, 1000] {
        let span = seconds_of(&mut register, &order, now);
        assert_eq!(span, expected);
        now += span + 10;
    }
    // Another source is at its first.
    assert_eq!(seconds_of(&mut register, &verdict("203.0.113.2"), now), 60);
    // Whoever has been good for long enough, too.
    now += 3600;
    assert_eq!(seconds_of(&mut register, &order, now), 60);
}

#[test]
fn what_happens_during_a_ban_is_no_further_offence() {
    let mut register = register();
    let order = verdict("203.0.113.1");
    for now in [0, 1, 30] {
        assert_eq!(seconds_of(&mut register, &order, now), 60);
    }
    assert_eq!(
        register.get(source("203.0.113.1/32")).expect("ban").offence,
        1
    );
    assert_eq!(seconds_of(&mut register, &order, 100), 240);
}

#[test]
fn a_lifted_ban_is_forgiven() {
    let mut register = register();
    let order = verdict("203.0.113.1");
    register.ban(&order, at(0)).expect("banned");
    assert!(register.lift(source("203.0.113.1/32"), at(1)));
    assert!(!register.lift(source("203.0.113.1/32"), at(1)));
    assert_eq!(seconds_of(&mut register, &order, 2), 60);
}

#[test]
fn a_verdict_never_shortens_a_ban_and_a_hand_may() {
    let mut register = register();
    let long = hand("203.0.113.1/32", Span::Exactly(500 * SECOND));
    assert_eq!(seconds_of(&mut register, &long, 0), 500);
    assert_eq!(seconds_of(&mut register, &verdict("203.0.113.1"), 0), 500);
    let ban = register.get(source("203.0.113.1/32")).expect("ban");
    assert!(ban.incident.is_some() && ban.reason == "because");
    let short = hand("203.0.113.1/32", Span::Exactly(SECOND));
    assert_eq!(seconds_of(&mut register, &short, 0), 1);
    assert_eq!(register.len(), 1);
}

#[test]
fn prefixes_are_one_source() {
    let mut register = register();
    for address in ["2001:db8::1", "2001:db8::ffff:2"] {
        register.ban(&verdict(address), at(0)).expect("banned");
    }
    assert_eq!(register.len(), 1);
    assert!(register.get(source("2001:db8::/64")).is_some());
}

#[test]
fn who_is_never_banned_is_not() {
    let mut register = register();
    let exactly = Span::Exactly(SECOND);
    for (order, is_banned) in [
        (verdict("192.0.2.9"), false),
        (verdict("198.51.100.9"), false),
        (hand("192.0.2.9/32", exactly), false),
        (hand("192.0.0.0/16", exactly), false),
        (hand("0.0.0.0/0", exactly), false),
        (hand("::ffff:0.0.0.0/96", exactly), false),
        // A hand may ban those who share an address: it knows.
        (hand("198.51.100.9/32", exactly), true),
    ] {
        let banned = register.ban(&order, at(0));
        assert_eq!(banned.is_ok(), is_banned, "{order:?} {banned:?}");
    }
}

#[test]
fn a_dry_run_counts_no_offence_and_is_no_ban() {
    let mut register = Register::new(
        Policy {
            dry_run: true,
            ..policy()
        },
        10,
    );
    let order = verdict("203.0.113.1");
    for now in [0, 100] {
        let banned = register.ban(&order, at(now)).expect("entered");
        assert!(banned.ban.dry_run && banned.ban.offence == 1);
    }
    register.policy.dry_run = false;
    let banned = register.ban(&order, at(101)).expect("banned");
    assert!(!banned.ban.dry_run && banned.ban.offence == 1);
    assert_eq!(banned.ban.since, at(101));
}

#[test]
fn both_tables_are_bounded() {
    let mut register = Register::new(policy(), 3);
    for n in 1..=4 {
        let order = verdict(&format!("203.0.113.{n}"));
        let banned = register.ban(&order, at(n)).expect("banned");
        assert_eq!(banned.evicted.is_some(), n == 4);
    }
    assert_eq!((register.len(), register.offences.len()), (3, 3));
    assert_eq!((register.ends.len(), register.oldest.len()), (3, 3));
    assert!(register.get(source("203.0.113.1/32")).is_none());
}

#[test]
fn many_that_end_at_once_hold_nobody_up() {
    let mut register = Register::new(policy(), 2000);
    for n in 0..1000_u32 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes()).to_string();
        register.ban(&verdict(&address), at(0)).expect("banned");
    }
    assert!(!register.sweep(at(60)));
    assert_eq!(register.len(), 1000 - SWEPT);
    // What is over is over, swept or not.
    let order = verdict("10.0.3.231");
    assert_eq!(seconds_of(&mut register, &order, 60), 240);
    assert!(!register.lift(source("10.0.3.230/32"), at(60)));
    while !register.sweep(at(60)) {}
    assert_eq!(register.len(), 1);
}

#[test]
fn changes_are_taken_once_and_bounded() {
    let mut register = Register::new(policy(), 3);
    for n in 1..=4 {
        let order = verdict(&format!("203.0.113.{n}"));
        register.ban(&order, at(n)).expect("banned");
    }
    let batch = register.take_changes(100);
    let removed = batch.entries.iter().filter(|it| it.ban.is_none());
    assert_eq!((batch.entries.len(), removed.count()), (4, 1));
    assert!(register.take_changes(100).is_empty());
    register.put_back(&batch);
    assert_eq!(register.pending(), 4);
    for n in 5..=100 {
        let order = verdict(&format!("203.0.113.{n}"));
        register.ban(&order, at(n)).expect("banned");
    }
    assert!(register.changes.sources.len() <= 6);
    let batch = register.take_changes(100);
    assert!(batch.anew && batch.entries.len() == 3);
}

#[test]
fn what_ended_meanwhile_is_not_restored() {
    let mut first = register();
    for (n, seconds) in [(1, 10), (2, 100)] {
        let order = hand(
            &format!("203.0.113.{n}/32"),
            Span::Exactly(seconds * SECOND),
        );
        first.ban(&order, at(0)).expect("banned");
    }
    let mut bans: Vec<Ban> = first.list(None).cloned().collect();
    bans.push(Ban {
        source: source("192.0.2.1/32"),
        ..bans[1].clone()
    });
    let mut second = register();
    second.restore(bans, Vec::new(), at(50));
    let left: Vec<IpNet> = second.list(None).map(|it| it.source).collect();
    assert_eq!(left, [source("203.0.113.2/32")]);
    assert_eq!(second.take_changes(100).entries.len(), 2);
}

#[test]
fn a_clock_that_was_set_back_makes_no_ban_longer() {
    let mut first = register();
    first
        .ban(&verdict("203.0.113.1"), at(1_000_000))
        .expect("banned");
    let mut second = register();
    second.restore(first.list(None).cloned().collect(), Vec::new(), at(0));
    let ban = second.get(source("203.0.113.1/32")).expect("ban");
    assert_eq!((ban.since, ban.until), (at(0), at(60)));
}

#[test]
fn in_a_dry_run_older_bans_refuse_nobody() {
    let mut first = register();
    first.ban(&verdict("203.0.113.1"), at(0)).expect("banned");
    let bans: Vec<Ban> = first.list(None).cloned().collect();
    let rehearsal = Policy {
        dry_run: true,
        ..policy()
    };
    let mut second = Register::new(rehearsal, 10);
    second.restore(bans, Vec::new(), at(1));
    assert!(second.list(None).all(|it| it.dry_run));
    assert_eq!(second.pending(), 0);
}

#[test]
fn hostile_reasons_and_spans_are_refused() {
    let mut register = register();
    let with = |reason: &str, span| Order {
        reason: reason.to_owned(),
        ..hand("203.0.113.1/32", span)
    };
    for (order, refusal) in [
        (with(&"x".repeat(257), Span::Policy), Refusal::Reason),
        (with("a\nb", Span::Policy), Refusal::Reason),
        (with("\u{1b}[2J", Span::Policy), Refusal::Reason),
        (with("", Span::Exactly(Duration::ZERO)), Refusal::Span),
        (with("", Span::Exactly(Duration::MAX)), Refusal::Span),
    ] {
        assert_eq!(register.ban(&order, at(0)), Err(refusal));
    }
    assert!(register.is_empty() && register.pending() == 0);
}

#[test]
fn the_list_goes_on_where_it_was_left() {
    let mut register = register();
    for n in 1..=5 {
        let order = verdict(&format!("203.0.113.{n}"));
        register.ban(&order, at(0)).expect("banned");
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page: Vec<IpNet> = register.list(after).take(2).map(|it| it.source).collect();
        let Some(last) = page.last() else { break };
        after = Some(*last);
        seen.extend(page);
    }
    assert_eq!(seen.len(), 5);
}
