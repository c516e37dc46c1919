//! A view as a person sees it: on a screen, or as text.

use std::fmt::Write;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph};

use super::View;
use crate::show;

/// Sums that should not grow, and what it means that they do.
const LOSSES: &[(&str, &str)] = &[
    ("queue_full", "requests not followed"),
    ("lost_reads", "readers unknown"),
    ("lost_exec", "program starts not reported"),
    ("lost_connect", "connections not reported"),
    ("lost_file", "files not reported"),
    ("no_storage", "out of kernel memory"),
];

/// Fills the screen.
pub(super) fn screen(frame: &mut Frame<'_>, view: &View) {
    let [head, middle, incidents] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Percentage(50),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    let [edge, rules, bans] = Layout::horizontal([
        Constraint::Length(44),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas(middle);
    panel(
        frame,
        head,
        "clew top (q quits)",
        head_lines(view),
        is_well(view),
    );
    panel(frame, edge, "edge", edge_lines(view), true);
    panel(
        frame,
        rules,
        "rules that match most",
        rule_lines(view),
        true,
    );
    let title = format!("bans: {}", view.bans.total);
    panel(frame, bans, &title, ban_lines(view), true);
    panel(frame, incidents, "incidents", incident_lines(view), true);
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<String>, is_well: bool) {
    let colour = if is_well { Color::Reset } else { Color::Red };
    let block = Block::bordered()
        .title(title.bold())
        .border_style(Style::new().fg(colour));
    let lines: Vec<Line<'_>> = lines
        .into_iter()
        .map(|it| Line::raw(printable(&it)))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// The same without a screen.
pub(super) fn text(view: &View) -> String {
    let mut out = String::new();
    for (title, lines) in [
        ("", head_lines(view)),
        ("edge", edge_lines(view)),
        ("rules that match most", rule_lines(view)),
        ("bans", ban_lines(view)),
        ("incidents", incident_lines(view)),
    ] {
        if !title.is_empty() {
            let _ = writeln!(out, "\n{title}");
        }
        for line in lines {
            let _ = writeln!(out, "{}", printable(&line));
        }
    }
    out
}

fn is_well(view: &View) -> bool {
    let sensor = view.status.sensor.as_ref();
    view.status.accepting
        && sensor.is_none_or(|it| it.healthy)
        && view.status.bans.trouble.is_none()
}

fn head_lines(view: &View) -> Vec<String> {
    let (status, rates) = (&view.status, &view.rates);
    let uptime = status.uptime_seconds as u64;
    let sensor = match (&status.sensor, &status.mode) {
        (Some(sensor), Some(mode)) if sensor.healthy => format!("sensor: {mode}, healthy"),
        (Some(_), Some(mode)) => format!("sensor: {mode}, NOT TENDED"),
        _ => "no sensor".to_owned(),
    };
    let accepting = if status.accepting {
        ""
    } else {
        "   NOT ACCEPTING"
    };
    vec![
        format!(
            "clew {}   up {}:{:02}:{:02}   {sensor}   losses: {}{accepting}",
            status.version,
            uptime / 3600,
            uptime / 60 % 60,
            uptime % 60,
            losses(view),
        ),
        format!(
            "requests/s {:>9.1}   blocked/s {:>7.1}   failed/s {:>7.1}   connections/s {:>7.1}",
            rates.requests_per_second,
            rates.blocked_per_second,
            rates.failed_per_second,
            rates.connections_per_second,
        ),
        format!(
            "in flight {:>10}   bans {:>12}{}   incidents {:>6}",
            status.in_flight,
            status.bans.in_force,
            if status.bans.dry_run {
                " (dry run)"
            } else {
                ""
            },
            sum(view, "correlator", "incidents").unwrap_or_default(),
        ),
    ]
}

fn losses(view: &View) -> String {
    let found = LOSSES.iter().filter_map(|(name, what)| {
        let lost = sum(view, "sensor", name).filter(|it| *it > 0)?;
        Some(format!("{lost} {what}"))
    });
    let found: Vec<_> = found.collect();
    match found.is_empty() {
        true => "none".to_owned(),
        false => found.join(", "),
    }
}

fn sum(view: &View, part: &str, name: &str) -> Option<u64> {
    view.counters.kernel.as_ref()?.get(part)?.get(name).copied()
}

fn edge_lines(view: &View) -> Vec<String> {
    let ended = view.counters.requests.iter().filter(|it| it.count > 0);
    let ended = ended.map(|it| {
        format!(
            "{:28} {:>12}",
            format!("{} {}", it.outcome, it.status),
            it.count
        )
    });
    let sums = view.counters.edge.iter().filter(|it| *it.1 > 0);
    ended
        .chain(sums.map(|(name, sum)| format!("{name:28} {sum:>12}")))
        .collect()
}

fn rule_lines(view: &View) -> Vec<String> {
    let packs = view.status.packs.iter();
    let packs = packs.map(|it| format!("pack {} {}", it.name, it.version));
    let hits = view.hits.iter();
    let hits = hits.map(|it| {
        let (id, matches, stops) = (it.id, it.matches, it.stops);
        format!("{id:>9} {matches:>8} ({stops} stopped)  {}", it.message)
    });
    packs.chain(hits).collect()
}

fn ban_lines(view: &View) -> Vec<String> {
    let line = |ban: &crate::api::bans::BanEntry| {
        let why = match (&ban.incident, ban.reason.is_empty()) {
            (_, false) => ban.reason.clone(),
            (Some(incident), true) => incident.clone(),
            (None, true) => "by hand".to_owned(),
        };
        format!("{:24} {:>7} s  {why}", ban.source, ban.seconds_left)
    };
    view.bans.bans.iter().map(line).collect()
}

fn incident_lines(view: &View) -> Vec<String> {
    view.incidents
        .incidents
        .iter()
        .map(|it| show::line(it))
        .collect()
}

/// What others wrote does not move the cursor.
fn printable(text: &str) -> String {
    text.chars()
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect()
}
