//! `multipart/form-data` (RFC 7578 over RFC 2046), with ModSecurity's strictness flags.
//!
//! Backends disagree on malformed multipart, and what one parser drops another may execute. So
//! everything unusual is flagged or an error, with the names ModSecurity gives it, and content is
//! shown to rules even where the body is broken: a part without a name, or cut off by the end.
//!
//! Compared with libmodsecurity 3.0.9 over some eighty odd bodies, three things differ on purpose:
//! line ends inside of a value are kept (there, `a CRLF b` becomes `ab`); the first error's
//! message stands; and MULTIPART_UNMATCHED_BOUNDARY is 0 for a well-formed body (there it is 2).

mod boundary;
mod disposition;

use std::ops::Range;

use memchr::memmem;

use super::{BodyError, BodyLimits, Scratch, is_space, trim_end, trim_start};
use boundary::Boundary;
use disposition::Disposition;

/// The MULTIPART_* variables; each is 1 when its flag is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// MULTIPART_UNMATCHED_BOUNDARY: 1 when a line looks like a boundary and is none, 2 when a
    /// true boundary followed it (`@eq 1` is the permissive check, `!@eq 0` the strict one).
    pub unmatched_boundary: u8,
    /// MULTIPART_BOUNDARY_QUOTED.
    pub boundary_quoted: bool,
    /// MULTIPART_BOUNDARY_WHITESPACE.
    pub boundary_whitespace: bool,
    /// MULTIPART_DATA_BEFORE: something stands before the first boundary.
    pub data_before: bool,
    /// MULTIPART_DATA_AFTER: something stands after the last boundary's line.
    pub data_after: bool,
    /// MULTIPART_HEADER_FOLDING.
    pub header_folding: bool,
    /// MULTIPART_INVALID_HEADER_FOLDING: folded with something else than space or tab.
    pub invalid_header_folding: bool,
    /// MULTIPART_LF_LINE: a header or boundary line ends with a bare LF.
    pub lf_line: bool,
    /// MULTIPART_CRLF_LF_LINES: and another one with CRLF.
    pub crlf_lf_lines: bool,
    /// MULTIPART_MISSING_SEMICOLON: none between media type and boundary.
    pub missing_semicolon: bool,
    /// MULTIPART_INVALID_QUOTING: of a parameter in Content-Disposition.
    pub invalid_quoting: bool,
    /// MULTIPART_INVALID_PART: a part without a name, or without its blank line or content.
    pub invalid_part: bool,
    /// MULTIPART_FILE_LIMIT_EXCEEDED: more files than [`BodyLimits::files`]; those beyond are
    /// not given.
    pub file_limit_exceeded: bool,
    /// The body could not be read whole; a part of [`Flags::strict_error`].
    pub error: bool,
}

impl Flags {
    /// MULTIPART_STRICT_ERROR: any of them but unmatched boundaries and mixed line ends (which
    /// imply a bare LF).
    #[must_use]
    pub fn strict_error(&self) -> bool {
        self.error
            || self.boundary_quoted
            || self.boundary_whitespace
            || self.data_before
            || self.data_after
            || self.header_folding
            || self.invalid_header_folding
            || self.lf_line
            || self.missing_semicolon
            || self.invalid_quoting
            || self.invalid_part
            || self.file_limit_exceeded
    }
}

/// What a body came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The MULTIPART_* variables.
    pub flags: Flags,
    /// The first error: REQBODY_ERROR.
    pub error: Option<BodyError>,
    /// Fields given to the callback.
    pub fields: usize,
    /// Files given to the callback.
    pub files: usize,
    /// There were more fields than [`BodyLimits::arguments`] allows.
    pub over_limit: bool,
}

/// One part: a file when it has a file name, else a field.
#[derive(Clone, Copy, Debug)]
pub struct Part<'p> {
    /// The field's name (MULTIPART_NAME, FILES_NAMES, and the key of everything else); empty
    /// when it has none that can be read.
    pub name: &'p [u8],
    /// The file's name (FILES, MULTIPART_FILENAME), quotes and backslashes taken off; decoded
    /// from `filename*` when there is no `filename`. An empty one makes no file.
    pub filename: Option<&'p [u8]>,
    /// `filename*` (RFC 8187), decoded, when there is `filename` as well: backends choose either.
    pub extended_filename: Option<&'p [u8]>,
    /// The field's value or the file's content (FILES_TMP_CONTENT; its length FILES_SIZES).
    pub content: &'p [u8],
    /// Where the content starts in the body.
    pub offset: usize,
    headers: &'p [u8],
    lines: &'p [Range<usize>],
}

impl<'p> Part<'p> {
    /// Its header lines, unfolded, as sent, without line ends: MULTIPART_PART_HEADERS.
    pub fn headers(&self) -> impl Iterator<Item = &'p [u8]> + use<'p> {
        let headers = self.headers;
        self.lines.iter().map(move |line| &headers[line.clone()])
    }
}

/// Reads `body` with the boundary that `content_type` names and gives each part to `found`.
///
/// One pass; header lines are copied to `scratch`, content is not copied. An empty body has no
/// parts and no error.
pub fn parts(
    content_type: &[u8],
    body: &[u8],
    limits: &BodyLimits,
    scratch: &mut Scratch,
    found: impl FnMut(&Part<'_>),
) -> Outcome {
    let mut outcome = Outcome::default();
    let boundary = match Boundary::new(content_type, &mut outcome.flags) {
        Ok(boundary) => boundary,
        Err(what) => {
            outcome.fail(what, 0);
            return outcome;
        }
    };
    if body.is_empty() {
        return outcome;
    }
    let mut parser = Parser {
        body,
        boundary,
        limits,
        scratch,
        found,
        outcome,
        crlf_line: false,
        boundaries: 0,
    };
    parser.read();
    parser.outcome
}

impl Outcome {
    fn fail(&mut self, what: &'static str, at: usize) {
        self.flags.error = true;
        self.error.get_or_insert(BodyError {
            processor: "Multipart",
            what,
            at,
        });
    }
}

struct Parser<'b, 's, F> {
    body: &'b [u8],
    boundary: Boundary,
    limits: &'s BodyLimits,
    scratch: &'s mut Scratch,
    found: F,
    outcome: Outcome,
    crlf_line: bool,
    boundaries: usize,
}

/// What ends a stretch of the body.
enum End {
    /// `--boundary`; the next part starts there.
    Boundary(usize),
    /// `--boundary--`; what follows it starts there.
    Final(usize),
    /// The body's end.
    Body,
}

impl<F: FnMut(&Part<'_>)> Parser<'_, '_, F> {
    fn read(&mut self) {
        let (preamble, mut end) = self.stretch(0);
        self.outcome.flags.data_before = !preamble.is_empty();
        while let End::Boundary(start) = end {
            let (part, next) = self.stretch(start);
            self.part(part, matches!(next, End::Body));
            end = next;
        }
        let length = self.body.len();
        match end {
            End::Final(after) => self.outcome.flags.data_after = after < length,
            _ if self.boundaries == 0 => self.outcome.fail("no boundary in the body", length),
            _ => self.outcome.fail("the final boundary is missing", length),
        }
        let flags = &mut self.outcome.flags;
        flags.crlf_lf_lines = flags.lf_line && self.crlf_line;
    }

    /// What stands from `start`, the start of a line, to the next boundary, and that boundary.
    fn stretch(&mut self, start: usize) -> (Range<usize>, End) {
        let mut line = start;
        let end = loop {
            let rest = &self.body[line..];
            if !rest.starts_with(b"--") {
                match memmem::find(rest, b"\n--") {
                    Some(at) => line += at + 1,
                    None => break End::Body,
                }
            }
            if let Some(end) = self.dashes(line) {
                break end;
            }
            line += 2;
        };
        let stop = match end {
            End::Body => self.body.len(),
            _ => line,
        };
        if self.boundary.inside(&self.body[start..stop]) {
            self.outcome.flags.unmatched_boundary = 1;
        }
        if !matches!(end, End::Body) {
            if self.outcome.flags.unmatched_boundary == 1 && self.boundaries > 0 {
                self.outcome.flags.unmatched_boundary = 2;
            }
            self.boundaries += 1;
        }
        (start..stop, end)
    }

    /// The boundary at `line`, which starts with two dashes, if it is one.
    fn dashes(&mut self, line: usize) -> Option<End> {
        let rest = &self.body[line..];
        let Some(after) = self.boundary.strip(rest) else {
            if let Some(what) = self.boundary.imitated(rest) {
                self.outcome.fail(what, line);
            }
            self.outcome.flags.unmatched_boundary = 1;
            return None;
        };
        let (last, after) = match after.strip_prefix(b"--") {
            Some(after) => (true, after),
            None => (false, after),
        };
        let next = self.body.len() - after.len();
        match after {
            [b'\r', b'\n', ..] => {
                self.crlf_line = true;
                Some(end_at(last, next + 2))
            }
            [b'\n', ..] => {
                self.outcome.flags.lf_line = true;
                Some(end_at(last, next + 1))
            }
            [] if last => Some(End::Final(next)),
            _ => {
                self.outcome
                    .fail("something follows a boundary on its line", next);
                self.outcome.flags.unmatched_boundary = 1;
                None
            }
        }
    }

    /// One part, from its first header to its last byte of content with the line end before the
    /// boundary. `cut` when the body ended before it.
    fn part(&mut self, part: Range<usize>, cut: bool) {
        self.scratch.value.clear();
        self.scratch.lines.clear();
        let content = self.headers(part.clone());
        let closed = content.is_some();
        if !closed {
            self.outcome.fail("a part's headers do not end", part.end);
            self.outcome.flags.invalid_part |= !cut;
        }
        let disposition = self.disposition(part.start, closed);
        let start = content.unwrap_or(part.end);
        let whole = &self.body[start..part.end];
        let content = match whole {
            _ if cut => whole,
            [inside @ .., b'\r', b'\n'] | [inside @ .., b'\n'] => inside,
            _ => {
                if closed {
                    self.outcome.fail("a part has no content", start);
                    self.outcome.flags.invalid_part = true;
                }
                whole
            }
        };
        self.give(&disposition, content, start);
    }

    /// Reads header lines into `scratch` up to the blank one; where the content starts.
    fn headers(&mut self, part: Range<usize>) -> Option<usize> {
        let mut at = part.start;
        while at < part.end {
            let line = &self.body[at..part.end];
            let length = memchr::memchr(b'\n', line)? + 1;
            if length >= self.limits.part_header_bytes {
                self.outcome.fail("a part's header line is too long", at);
            }
            let (line, crlf) = match &line[..length] {
                [line @ .., b'\r', b'\n'] => (line, true),
                line => (&line[..length - 1], false),
            };
            self.crlf_line |= crlf;
            self.outcome.flags.lf_line |= !crlf;
            if line.is_empty() {
                return Some(at + length);
            }
            self.header(line, at);
            at += length;
        }
        None
    }

    fn header(&mut self, line: &[u8], at: usize) {
        if memchr::memchr(0, line).is_some() {
            self.outcome.fail("a NUL in a part's header", at);
        }
        if is_space(line[0]) {
            return self.folded(line, at);
        }
        match memchr::memchr(b':', line) {
            None => self.outcome.fail("no colon in a part's header", at),
            Some(0) => self.outcome.fail("a part's header has no name", at),
            Some(colon) => {
                let name = &line[..colon];
                if self.lines_named(name).is_some() {
                    self.outcome.fail("a part's header appears twice", at);
                }
            }
        }
        if self.scratch.lines.len() >= self.limits.part_headers {
            return self.outcome.fail("a part has too many headers", at);
        }
        let start = self.scratch.value.len();
        self.scratch.value.extend_from_slice(line);
        self.scratch.lines.push(start..self.scratch.value.len());
    }

    /// A line that continues the one before it.
    fn folded(&mut self, line: &[u8], at: usize) {
        let more = trim_start(line);
        let fold = &line[..line.len() - more.len()];
        let flags = &mut self.outcome.flags;
        flags.header_folding = true;
        flags.invalid_header_folding |=
            more.is_empty() || fold.iter().any(|byte| !matches!(byte, b' ' | b'\t'));
        let Some(last) = self.scratch.lines.last_mut() else {
            return self.outcome.fail("a part's first header is folded", at);
        };
        if last.len() + more.len() >= self.limits.part_header_bytes {
            return self.outcome.fail("a part's header line is too long", at);
        }
        self.scratch.value.push(b' ');
        self.scratch.value.extend_from_slice(more);
        last.end = self.scratch.value.len();
    }

    /// The first header with this name.
    fn lines_named(&self, name: &[u8]) -> Option<Range<usize>> {
        let named = |line: &&Range<usize>| {
            let line = &self.scratch.value[(*line).clone()];
            line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
        };
        self.scratch.lines.iter().find(named).cloned()
    }

    /// Name and file name of the part whose headers are in `scratch`.
    fn disposition(&mut self, at: usize, closed: bool) -> Disposition {
        self.scratch.name.clear();
        let Some(line) = self.lines_named(b"content-disposition") else {
            if closed {
                self.outcome.fail("a part has no Content-Disposition", at);
                self.outcome.flags.invalid_part = true;
            }
            return Disposition::default();
        };
        let line = &self.scratch.value[line];
        let value = trim_end(trim_start(&line[b"content-disposition:".len()..]));
        let name = &mut self.scratch.name;
        let disposition = Disposition::read(value, name, &mut self.outcome.flags);
        if let Some(what) = disposition.error {
            self.outcome.fail(what, at);
            self.outcome.flags.invalid_part = true;
        }
        disposition
    }

    fn give(&mut self, disposition: &Disposition, content: &[u8], offset: usize) {
        let text = |range: &Range<usize>| &self.scratch.name[range.clone()];
        let filename = disposition.filename.as_ref().map(text);
        let part = Part {
            name: disposition.name.as_ref().map(text).unwrap_or_default(),
            filename: filename.filter(|name| !name.is_empty()),
            extended_filename: disposition.extended.as_ref().map(text),
            content,
            offset,
            headers: &self.scratch.value,
            lines: &self.scratch.lines,
        };
        let outcome = &mut self.outcome;
        if part.filename.is_some() {
            if outcome.files >= self.limits.files {
                outcome.flags.file_limit_exceeded = true;
                return;
            }
            outcome.files += 1;
        } else {
            if outcome.fields >= self.limits.arguments {
                outcome.over_limit = true;
                return;
            }
            outcome.fields += 1;
        }
        (self.found)(&part);
    }
}

fn end_at(last: bool, at: usize) -> End {
    if last {
        End::Final(at)
    } else {
        End::Boundary(at)
    }
}

#[cfg(test)]
mod tests;
