//! The MIME scanner: it takes the octets of a body, in order and in pieces of any size, and builds the tree.
//!
//! It works by lines and keeps the beginning of one line, the header of one part, and the boundaries that are open. A
//! boundary counts where RFC 2046 section 5.1 has it: at the beginning of a line, followed only by white space. Lines
//! may end in LF alone. The boundary of an outer multipart ends everything that is open inside it.

use std::ops::Range;

use memchr::memchr;

use super::fields::PartFields;
use super::{Defect, Encoding, FlagSet, MimeLimit, MimeLimits, MimePart, Tree};
use crate::header::{is_continuation, is_field_line};
use crate::{Bytes, HeaderBlock};

/// How many octets of a line are kept outside headers: more than any boundary with its dashes.
const MAX_LINE: usize = 1_024;

/// Builds the MIME tree. No input makes it fail.
#[derive(Debug)]
pub struct Scanner {
    limits: MimeLimits,
    parts: Vec<MimePart>,
    malformed: FlagSet<Defect>,
    truncated: FlagSet<MimeLimit>,
    steps: u64,
    names: usize,
    /// The multiparts and enclosed messages that are open at the current offset, the outermost first.
    open: Vec<OpenContainer>,
    state: ScanState,
    /// The number of octets seen.
    at: u64,
    line: ScannedLine,
    /// Where the previous line ended, without its line end.
    before: u64,
}

#[derive(Debug)]
struct OpenContainer {
    part: usize,
    /// None for a message, and for a multipart that has been closed.
    boundary: Option<Vec<u8>>,
    kind: Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Message,
    Multipart { digest: bool, parts: bool, closed: bool },
}

#[derive(Debug)]
enum ScanState {
    /// In a part's header: the part, the octets kept so far, and whether some were left out.
    Header { part: usize, kept: Vec<u8>, cut: bool },
    /// In a part's content.
    Content(usize),
    /// Before the first part of a multipart, or after its last one.
    Between,
    /// There are too many parts; the rest of the body is skipped.
    Over,
}

/// The line being read.
#[derive(Debug)]
struct ScannedLine {
    start: u64,
    /// The beginning of the line, as far as it is kept.
    kept: Vec<u8>,
    len: u64,
    /// Whether the octets that are not kept are all white space.
    blank: bool,
    /// The last two octets so far.
    last: [u8; 2],
}

impl Scanner {
    /// Starts a scan of the body that belongs to this header.
    #[must_use]
    pub fn new(header: &HeaderBlock, limits: MimeLimits) -> Self {
        let mut scanner = Self {
            limits,
            parts: Vec::new(),
            malformed: FlagSet::default(),
            truncated: FlagSet::default(),
            steps: 0,
            names: 0,
            open: Vec::new(),
            state: ScanState::Between,
            at: 0,
            line: ScannedLine::default(),
            before: 0,
        };
        scanner.parts.push(empty(None, None));
        scanner.begin_content(0, header, true);
        scanner
    }

    /// Scans the next octets of the body.
    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            if matches!(self.state, ScanState::Over) {
                self.at += rest.len() as u64;
                return;
            }
            let end = memchr(b'\n', rest).map(|at| at + 1);
            let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
            self.at += line.len() as u64;
            self.steps += line.len() as u64;
            let header = matches!(self.state, ScanState::Header { .. }).then_some(self.limits.header);
            self.line.take(line, header);
            if end.is_some() {
                self.end_line();
            }
            rest = behind;
        }
    }

    /// Ends the scan and returns the tree.
    #[must_use]
    pub fn finish(mut self) -> Tree {
        if self.line.start < self.at && !matches!(self.state, ScanState::Over) {
            self.end_line();
        }
        self.end_leaf(self.at);
        while let Some(open) = self.open.pop() {
            self.end_container(&open, self.at);
        }
        let Self { parts, malformed, truncated, steps, .. } = self;
        Tree { parts, malformed, truncated, steps }
    }

    /// The cost of the scan so far, as in [`Tree::steps`].
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        match self.delimiter(&line) {
            Some((at, closes)) => self.delimit(at, closes),
            None => self.header_line(&line),
        }
        self.before = self.at - line.end_len();
        line.begin(self.at);
        self.line = line;
    }

    /// The open multipart that this line delimits, if any, and whether the line closes it. Inner multiparts are tried
    /// first.
    fn delimiter(&mut self, line: &ScannedLine) -> Option<(usize, bool)> {
        let dashed = line.text().strip_prefix(b"--").filter(|_| line.blank)?.trim_ascii_end();
        let closing = dashed.strip_suffix(b"--");
        for (at, open) in self.open.iter().enumerate().rev() {
            self.steps += 1;
            let Some(boundary) = open.boundary.as_deref() else { continue };
            let len = boundary.len();
            if len != dashed.len() && len + 2 != dashed.len() {
                continue;
            }
            self.steps += len as u64 / 16;
            if boundary == dashed {
                return Some((at, false));
            }
            if closing == Some(boundary) {
                return Some((at, true));
            }
        }
        None
    }

    /// A line that is not a delimiter matters only inside a header.
    fn header_line(&mut self, line: &ScannedLine) {
        let ScanState::Header { part, kept, cut } = &mut self.state else { return };
        let text = line.text();
        if text.is_empty() {
            let (part, kept) = (*part, std::mem::take(kept));
            return self.end_header(part, kept, self.at, true);
        }
        if !is_field_line(text) && (!is_continuation(text) || kept.is_empty()) {
            self.malformed.mark(Defect::Header);
        }
        // After a line that does not fit, further lines could appear to continue the wrong field.
        *cut |= !line.whole() || kept.len() + text.len() + 2 > self.limits.header;
        if *cut {
            return self.truncated.mark(MimeLimit::Header);
        }
        kept.extend_from_slice(text);
        kept.extend_from_slice(b"\r\n");
    }

    /// Ends a header, at its empty line or elsewhere; the content begins at `at`.
    fn end_header(&mut self, part: usize, kept: Vec<u8>, at: u64, descend: bool) {
        self.steps += 4 * kept.len() as u64;
        let header = HeaderBlock::parse(Bytes::from(kept));
        let begin = self.parts[part].header.as_ref().map_or(0, |header| header.start);
        self.parts[part].header = Some(begin.min(at)..at);
        self.parts[part].content = at..at;
        self.begin_content(part, &header, descend);
    }

    /// Begins the content of a part, at the start of its range. `header` describes it.
    fn begin_content(&mut self, part: usize, header: &HeaderBlock, descend: bool) {
        let described = PartFields::by(header);
        self.malformed.add(described.malformed);
        if described.cut {
            self.truncated.mark(MimeLimit::Header);
        }
        let default = if self.in_digest(part) { "message/rfc822" } else { "text/plain" };
        let kind = described.content_type.as_deref().unwrap_or(default);
        let container = self.container(kind, &described);
        let kind = kind.to_owned();
        self.describe(part, kind, described, container.is_some());
        self.state = ScanState::Content(part);
        match container.filter(|_| descend) {
            None => {}
            Some(_) if self.open.len() >= self.limits.depth => self.truncated.mark(MimeLimit::Depth),
            Some((boundary, kind)) => {
                self.open.push(OpenContainer { part, boundary, kind });
                self.state = ScanState::Between;
                if kind == Container::Message {
                    self.begin_part(part, self.parts[part].content.start);
                }
            }
        }
    }

    fn container(&mut self, kind: &str, described: &PartFields) -> Option<(Option<Vec<u8>>, Container)> {
        let encoded = described.encoding != Encoding::Identity;
        match kind.split_once('/').map_or(kind, |(kind, _)| kind) {
            "multipart" => {
                if encoded {
                    self.malformed.mark(Defect::Encoded);
                }
                let Some(boundary) = described.boundary.clone() else {
                    self.malformed.mark(Defect::NoBoundary);
                    return None;
                };
                let digest = kind == "multipart/digest";
                Some((Some(boundary), Container::Multipart { digest, parts: false, closed: false }))
            }
            "message" if matches!(kind, "message/rfc822" | "message/global") => {
                // RFC 6532 section 3.7 allows it for message/global.
                if encoded && kind == "message/rfc822" {
                    self.malformed.mark(Defect::Encoded);
                }
                (!encoded).then_some((None, Container::Message))
            }
            _ => None,
        }
    }

    /// Records what the header says, as far as there is room for names.
    fn describe(&mut self, part: usize, kind: String, described: PartFields, is_container: bool) {
        let PartFields { charset, filename, disposition, content_id, transfer_encoding, encoding, .. } =
            described;
        let maybe = [&charset, &filename, &disposition, &content_id];
        let octets = maybe.into_iter().flatten().map(String::len).sum::<usize>();
        let octets = octets + kind.len() + transfer_encoding.len();
        let part = &mut self.parts[part];
        part.encoding = encoding;
        if self.names + octets <= self.limits.names {
            self.names += octets;
            (part.content_type, part.charset, part.filename) = (kind, charset, filename);
            (part.disposition, part.content_id) = (disposition, content_id);
            part.transfer_encoding = transfer_encoding;
            return;
        }
        self.truncated.mark(MimeLimit::Names);
        part.content_type = if is_container { kind } else { "application/octet-stream".into() };
        part.transfer_encoding = encoding.word().to_owned();
    }

    fn in_digest(&self, part: usize) -> bool {
        let around = self.parts[part].parent.and(self.open.last());
        around.is_some_and(|open| matches!(open.kind, Container::Multipart { digest: true, .. }))
    }

    fn begin_part(&mut self, parent: usize, at: u64) {
        if self.parts.len() >= self.limits.parts {
            self.truncated.mark(MimeLimit::Parts);
            self.state = ScanState::Over;
            return;
        }
        let part = self.parts.len();
        self.parts.push(empty(u32::try_from(parent).ok(), Some(at..at)));
        self.state = ScanState::Header { part, kept: Vec::new(), cut: false };
    }

    /// Handles a delimiter line that has been read. The line end before the line belongs to it.
    fn delimit(&mut self, at: usize, closes: bool) {
        self.end_leaf(self.before);
        while self.open.len() > at + 1 {
            if let Some(open) = self.open.pop() {
                self.end_container(&open, self.before);
            }
        }
        self.state = ScanState::Between;
        let open = &mut self.open[at];
        let parent = open.part;
        if let Container::Multipart { parts, closed, .. } = &mut open.kind {
            *parts |= !closes;
            *closed = closes;
        }
        if closes {
            open.boundary = None;
        } else {
            self.begin_part(parent, self.at);
        }
    }

    /// Ends the part whose header or content is being read.
    fn end_leaf(&mut self, end: u64) {
        if let ScanState::Header { part, kept, .. } = &mut self.state {
            let (part, kept) = (*part, std::mem::take(kept));
            self.end_header(part, kept, end, false);
        }
        if let ScanState::Content(part) = self.state {
            self.end_content(part, end);
        }
    }

    fn end_container(&mut self, open: &OpenContainer, end: u64) {
        let over = matches!(self.state, ScanState::Over);
        if let Container::Multipart { parts, closed: false, .. } = open.kind
            && !over
        {
            self.malformed.mark(if parts { Defect::NotClosed } else { Defect::NoParts });
        }
        self.end_content(open.part, end);
    }

    /// When a delimiter follows at once, the line end of the part's own empty line belongs to the delimiter.
    fn end_content(&mut self, part: usize, end: u64) {
        let part = &mut self.parts[part];
        part.content = part.content.start.min(end)..end;
        if let Some(header) = &mut part.header {
            header.end = header.end.min(end);
            header.start = header.start.min(end);
        }
    }
}

impl Default for ScannedLine {
    fn default() -> Self {
        Self { start: 0, kept: Vec::new(), len: 0, blank: true, last: [0; 2] }
    }
}

impl ScannedLine {
    fn begin(&mut self, start: u64) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.clear();
        *self = Self { start, kept, ..Self::default() };
    }

    /// Takes more of the line. Inside a header, at most `header` octets of it are kept; elsewhere only enough for a
    /// delimiter.
    fn take(&mut self, octets: &[u8], header: Option<usize>) {
        let mut first = self.kept.iter().chain(octets).take(2);
        let room = match header {
            Some(room) => room.max(MAX_LINE),
            None if first.all(|octet| *octet == b'-') => MAX_LINE,
            None => 2,
        };
        let (kept, rest) = octets.split_at(octets.len().min(room.saturating_sub(self.kept.len())));
        self.kept.extend_from_slice(kept);
        self.blank &= rest.iter().all(u8::is_ascii_whitespace);
        self.len += octets.len() as u64;
        self.last = match *octets {
            [] => self.last,
            [one] => [self.last[1], one],
            [.., before, last] => [before, last],
        };
    }

    /// Whether the whole line is kept.
    fn whole(&self) -> bool {
        self.kept.len() as u64 == self.len
    }

    /// The length of the line end in octets.
    fn end_len(&self) -> u64 {
        match self.last {
            [b'\r', b'\n'] => 2,
            [_, b'\n'] => 1,
            _ => 0,
        }
    }

    /// The kept part of the line, without its line end.
    fn text(&self) -> &[u8] {
        let len = usize::try_from(self.len - self.end_len()).unwrap_or(usize::MAX);
        &self.kept[..len.min(self.kept.len())]
    }
}

fn empty(parent: Option<u32>, header: Option<Range<u64>>) -> MimePart {
    MimePart {
        parent,
        content_type: String::new(),
        charset: None,
        filename: None,
        disposition: None,
        content_id: None,
        transfer_encoding: String::new(),
        encoding: Encoding::Identity,
        content: header.as_ref().map_or(0, |header| header.end)..0,
        header,
    }
}
