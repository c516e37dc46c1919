//! How long an event may be, and what is cut of one that is longer.

use clew_protocol::incident::{Incident, IncidentRequest, Step, StepKind};
use clew_protocol::report::Report;

use super::Event;

/// Most bytes of a line, its end not counted, and of an event that waits on disk.
pub const LINE_BYTES: usize = 64 * 1024;

/// What each text and each list may have.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Bytes of a text.
    text: usize,
    /// Entries of a list.
    items: usize,
}

/// Taken in turn until the event fits. JSON writes a byte as six at most, so that the last one fits into
/// [`LINE_BYTES`] whatever the texts are.
const STEPS: [Bounds; 5] = [
    Bounds {
        text: 2048,
        items: 64,
    },
    Bounds {
        text: 512,
        items: 32,
    },
    Bounds {
        text: 128,
        items: 16,
    },
    Bounds { text: 64, items: 8 },
    Bounds { text: 24, items: 4 },
];

/// What is left where a line must be shorter than that (a datagram of syslog): who, what and when.
const CORE: Bounds = Bounds { text: 20, items: 1 };

impl Event {
    /// The event within the widest bounds, and short enough to wait on disk.
    pub(super) fn bounded(self) -> Self {
        self.fitted(LINE_BYTES, |event| {
            serde_json::to_vec(event).unwrap_or_default()
        })
        .0
    }

    /// The event cut so that `write` makes at most `limit` bytes of it, and these bytes. First the far ends of
    /// texts and lists go, step by step; then, of what is left, all but who, what and when.
    pub(crate) fn fitted(
        mut self,
        limit: usize,
        write: impl Fn(&Self) -> Vec<u8>,
    ) -> (Self, Vec<u8>) {
        for bounds in STEPS {
            self.cut |= self.shrink(bounds);
            let line = write(&self);
            if line.len() <= limit {
                return (self, line);
            }
        }
        self.strip();
        let line = write(&self);
        (self, line)
    }

    /// Whether anything was cut.
    fn shrink(&mut self, bounds: Bounds) -> bool {
        let mut cutter = Cutter { bounds, cut: false };
        if let Some(report) = &mut self.report {
            cutter.report(report);
        }
        if let Some(incident) = &mut self.incident {
            cutter.incident(incident);
        }
        cutter.cut
    }

    fn strip(&mut self) {
        self.cut = true;
        if let Some(report) = &mut self.report {
            report.forwarded.clear();
            (report.user_agent, report.referrer, report.content_type) = (None, None, None);
            report.packs = [].into();
            (report.tls, report.trace) = (None, None);
            for found in &mut report.matches {
                found.data.clear();
                found.tags.clear();
                found.file.clear();
            }
        }
        if let Some(incident) = &mut self.incident {
            incident.evidence = None;
            incident.candidates.truncate(1);
            incident.degraded.clear();
            for step in &mut incident.steps {
                step.written_by.clear();
                if let StepKind::Exec(exec) = &mut step.what {
                    exec.env_vars.clear();
                    exec.filename.clear();
                    exec.working_directory.clear();
                    exec.container_id = None;
                    exec.args.clear();
                    exec.ancestry.clear();
                }
            }
        }
        self.shrink(CORE);
        // JSON writes six bytes for one of these.
        let plain = |text: &mut String| text.retain(|it| !it.is_control());
        if let Some(report) = &mut self.report {
            plain(&mut report.target);
            plain(&mut report.method);
            plain(&mut report.authority);
            report
                .matches
                .iter_mut()
                .for_each(|it| plain(&mut it.message));
        }
        for step in self.incident.iter_mut().flat_map(|it| &mut it.steps) {
            match &mut step.what {
                StepKind::Exec(exec) => plain(&mut exec.executable),
                StepKind::Connect { comm, .. } => plain(comm),
                StepKind::File { path, .. } => plain(path),
            }
        }
    }
}

/// Cuts, and remembers that it did.
struct Cutter {
    bounds: Bounds,
    cut: bool,
}

impl Cutter {
    fn text(&mut self, text: &mut String) {
        if text.len() > self.bounds.text {
            text.truncate(text.floor_char_boundary(self.bounds.text));
            self.cut = true;
        }
    }

    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a mut String>) {
        texts.into_iter().for_each(|it| self.text(it));
    }

    /// How many entries were cut.
    fn list<T>(&mut self, list: &mut Vec<T>) -> u32 {
        let beyond = list.len().saturating_sub(self.bounds.items);
        list.truncate(self.bounds.items);
        self.cut |= beyond > 0;
        u32::try_from(beyond).unwrap_or(u32::MAX)
    }

    fn report(&mut self, report: &mut Report) {
        self.list(&mut report.forwarded);
        self.texts(&mut report.forwarded);
        let own = [
            &mut report.version,
            &mut report.method,
            &mut report.target,
            &mut report.authority,
        ];
        self.texts(own);
        let optional = [
            &mut report.user_agent,
            &mut report.referrer,
            &mut report.content_type,
            &mut report.service,
        ];
        self.texts(optional.into_iter().flatten());
        if let Some(tls) = &mut report.tls {
            self.texts([&mut tls.version, &mut tls.cipher]);
            self.texts(&mut tls.client_subject);
            self.texts(&mut tls.client_sha256);
        }
        if let Some(trace) = &mut report.trace {
            self.texts([&mut trace.trace_id]);
            self.texts(&mut trace.span_id);
            self.texts(&mut trace.parent_id);
        }
        let beyond = self.list(&mut report.matches);
        report.matches_cut = report.matches_cut.saturating_add(beyond);
        for found in &mut report.matches {
            self.texts([&mut found.message, &mut found.data]);
            self.texts([&mut found.variable, &mut found.file]);
            self.list(&mut found.tags);
            self.texts(&mut found.tags);
        }
        self.packs(report);
    }

    fn packs(&mut self, report: &mut Report) {
        let is_long = |text: &str| text.len() > self.bounds.text;
        let are_long =
            |it: &clew_protocol::report::PackVersion| is_long(&it.name) || is_long(&it.version);
        if report.packs.len() <= self.bounds.items && !report.packs.iter().any(are_long) {
            return;
        }
        let mut packs = report.packs.to_vec();
        self.list(&mut packs);
        for pack in &mut packs {
            self.texts([&mut pack.name, &mut pack.version]);
        }
        report.packs = packs.into();
    }

    fn incident(&mut self, incident: &mut Incident) {
        // Longer than any time there is.
        incident
            .timestamp
            .truncate(incident.timestamp.floor_char_boundary(64));
        self.texts(&mut incident.evidence);
        if let Some(request) = &mut incident.request {
            self.request(request);
        }
        self.list(&mut incident.candidates);
        for candidate in &mut incident.candidates {
            self.request(candidate);
        }
        let beyond = self.list(&mut incident.steps);
        incident.steps_cut = incident.steps_cut.saturating_add(beyond);
        for step in &mut incident.steps {
            self.step(step);
        }
        self.list(&mut incident.degraded);
        let timing = &mut incident.timing;
        timing.exec_to_cancel_ms = timing.exec_to_cancel_ms.filter(|it| it.is_finite());
        timing.exec_to_ban_ms = timing.exec_to_ban_ms.filter(|it| it.is_finite());
    }

    fn request(&mut self, request: &mut IncidentRequest) {
        self.texts([&mut request.method, &mut request.target]);
        self.texts([&mut request.authority, &mut request.service]);
        let mut rules = std::mem::take(&mut request.edge.rules).into_vec();
        self.list(&mut rules);
        request.edge.rules = rules.into();
    }

    fn step(&mut self, step: &mut Step) {
        step.at_ms = finite(step.at_ms);
        match &mut step.what {
            StepKind::Exec(exec) => {
                self.texts([&mut exec.executable, &mut exec.filename]);
                self.text(&mut exec.working_directory);
                self.texts(&mut exec.container_id);
                for list in [&mut exec.args, &mut exec.env_vars] {
                    exec.truncated |= self.list(list) > 0;
                    self.texts(list);
                }
                exec.truncated |= self.list(&mut exec.ancestry) > 0;
                self.texts(exec.ancestry.iter_mut().map(|it| &mut it.comm));
            }
            StepKind::Connect { comm, .. } => self.text(comm),
            StepKind::File { comm, path, .. } => self.texts([comm, path]),
        }
        self.list(&mut step.written_by);
        for writer in &mut step.written_by {
            writer.before_ms = finite(writer.before_ms);
            writer.at.truncate(writer.at.floor_char_boundary(64));
            self.text(&mut writer.path);
            if let Some(request) = &mut writer.request {
                self.request(request);
            }
        }
    }
}

/// JSON has no other numbers.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}
