//! Decodes the octets of DATA and BDAT into message content: finds the end of data, removes dot stuffing, converts line
//! ends to CRLF.
//!
//! [`ContentDecoder`] scans lines with memchr and returns slices of the input wherever nothing had to be changed. Only
//! `CRLF . CRLF` ends DATA (RFC 5321 section 4.1.1.4; anything else would allow SMTP smuggling), however reads are
//! split. Bad content is read to its end too, because the reply is due only there. What a [`Flaw`] leads to is decided
//! by the caller.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr_iter, memchr2};

use super::config::{BareCr, BareLf, Leniency};
use super::fault::SessionFault;

/// Decodes the content of one message.
#[derive(Debug)]
pub(crate) struct ContentDecoder {
    at: At,
    /// The last chunk ended in CR: its LF may be the first octet of the next chunk (RFC 3030 section 2).
    pending_cr: bool,
    bare_lf: BareLf,
    bare_cr: BareCr,
    /// The content has octets above 127.
    pub(crate) has_8bit: bool,
    /// The first flaw found.
    pub(crate) flaw: Option<Flaw>,
}

/// What makes content unacceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    BareCr,
    BareLf,
    Nul,
}

impl From<Flaw> for SessionFault {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::BareCr => Self::BareCr,
            Flaw::BareLf => Self::BareLf,
            Flaw::Nul => Self::Nul,
        }
    }
}

/// The position of the next octet in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// At the start of a line, after CRLF: only here can a dot end the data.
    AfterCrlf,
    /// At the start of a line, after a bare LF that is taken for a line end.
    AfterLf,
    /// Within a line, where a dot has no special meaning.
    Within,
}

/// The meaning of a dot at the start of a line.
enum Dot {
    /// Unknown until more octets arrive.
    Unknown,
    /// The end of data.
    End,
    /// Dot stuffing, to be removed.
    Stuffed,
    /// The only character of its line, without being the end of data.
    Alone,
}

/// Content while it is decoded: the input, the position in it, and a copy once something changes.
struct Decoding<'a> {
    raw: &'a [u8],
    pos: usize,
    /// Raw octets from here on are not in `copy` yet.
    kept: usize,
    /// Created when the first octet has to change.
    copy: Option<BytesMut>,
}

impl ContentDecoder {
    /// Returns a decoder for a message sent with DATA.
    pub(crate) fn for_data(leniency: &Leniency) -> Self {
        Self {
            at: At::AfterCrlf,
            pending_cr: false,
            bare_lf: leniency.bare_lf,
            bare_cr: leniency.bare_cr,
            has_8bit: false,
            flaw: None,
        }
    }

    /// Returns a decoder for a message sent with BDAT. The length frames it, so a bare LF is harmless and always
    /// becomes a line end.
    pub(crate) fn for_chunks(leniency: &Leniency) -> Self {
        Self { bare_lf: BareLf::Normalise, ..Self::for_data(leniency) }
    }

    /// Takes what can be decoded off the front of `input`. Returns true with the last content of the message.
    ///
    /// At most two octets stay behind (a CR, a dot, or both), because their meaning depends on the octet that follows.
    pub(crate) fn decode_data(&mut self, input: &mut BytesMut) -> (Bytes, bool) {
        let mut decoding = Decoding::new(input);
        let mut ended = false;
        while decoding.pos < decoding.raw.len() {
            if self.at != At::Within && decoding.raw[decoding.pos] == b'.' {
                match dot(&decoding.raw[decoding.pos..], self.at) {
                    Dot::Unknown => break,
                    Dot::End => {
                        ended = true;
                        break;
                    }
                    Dot::Stuffed => decoding.replace(decoding.pos, b"", decoding.pos + 1),
                    Dot::Alone => {}
                }
                self.at = At::Within;
            }
            if !self.line(&mut decoding) {
                break;
            }
        }
        let end = if ended { decoding.pos + 3 } else { decoding.pos };
        (self.serve(decoding.done(), input, end), ended)
    }

    /// Takes octets of a chunk off the front of `input`; `left` counts those that have not been taken yet.
    pub(crate) fn decode_chunk(&mut self, input: &mut BytesMut, left: &mut u64) -> Bytes {
        let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
        let is_rest = *left == here as u64;
        let mut decoding = Decoding::new(&input[..here]);
        self.resolve_cr(&mut decoding);
        while decoding.pos < here && self.line(&mut decoding) {}
        let mut end = decoding.pos;
        if is_rest && end < here {
            // Only a CR can be left over; its LF can only come with the next chunk.
            self.pending_cr = true;
            end = here;
        }
        *left -= end as u64;
        self.serve(decoding.done(), input, end)
    }

    /// Ends the last chunk. A CR that still waits for its LF is bare; where bare CRs are tolerated it is dropped, as
    /// white space at the end.
    pub(crate) fn finish_chunks(&mut self) {
        if self.pending_cr && self.bare_cr == BareCr::Refuse {
            self.spoil(Flaw::BareCr);
        }
    }

    /// Cuts `end` octets off the input and returns what they decode to.
    fn serve(
        &mut self,
        (copy, content): (Option<BytesMut>, usize),
        input: &mut BytesMut,
        end: usize,
    ) -> Bytes {
        self.has_8bit = self.has_8bit || !input[..content].is_ascii();
        let mut raw = input.split_to(end);
        copy.unwrap_or_else(|| {
            raw.truncate(content);
            raw
        })
        .freeze()
    }

    /// Decodes one line, or the part of it that has arrived. Returns false when no more can be done.
    fn line(&mut self, decoding: &mut Decoding<'_>) -> bool {
        let rest = &decoding.raw[decoding.pos..];
        match memchr(b'\n', rest) {
            Some(lf) => {
                self.whole_line(decoding, lf);
                true
            }
            None => {
                let text = rest.strip_suffix(b"\r").unwrap_or(rest);
                if !text.is_empty() {
                    self.at = At::Within;
                }
                self.text(decoding, decoding.pos + text.len());
                false
            }
        }
    }

    fn whole_line(&mut self, decoding: &mut Decoding<'_>, lf: usize) {
        let end = decoding.pos + lf;
        let behind = end + 1;
        if lf > 0 && decoding.raw[end - 1] == b'\r' {
            self.text(decoding, end - 1);
            self.at = At::AfterCrlf;
        } else {
            self.text(decoding, end);
            self.at = At::AfterLf;
            if self.bare_lf == BareLf::Refuse {
                self.spoil(Flaw::BareLf);
            }
            decoding.replace(behind - 1, b"\r\n", behind);
        }
        decoding.pos = behind;
    }

    /// Passes on the octets of a line up to `end`, which are neither its end nor a CR that may belong to it.
    fn text(&mut self, decoding: &mut Decoding<'_>, end: usize) {
        let text = &decoding.raw[decoding.pos..end];
        if let Some(bad) = memchr2(b'\r', 0, text) {
            self.odd_octets(decoding, end, bad);
        }
        decoding.pos = end;
    }

    /// Handles text up to `end` that contains NUL or CR, the first of them at `first`.
    fn odd_octets(&mut self, decoding: &mut Decoding<'_>, end: usize, first: usize) {
        let text = &decoding.raw[decoding.pos..end];
        match self.bare_cr {
            BareCr::Refuse => self.spoil(if text[first] == 0 { Flaw::Nul } else { Flaw::BareCr }),
            BareCr::Normalise => {
                if memchr(0, &text[first..]).is_some() {
                    self.spoil(Flaw::Nul);
                }
                blank_crs(decoding, end);
            }
        }
    }

    fn spoil(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }

    /// Judges the CR at the end of the last chunk by the first octet of this one.
    fn resolve_cr(&mut self, decoding: &mut Decoding<'_>) {
        let Some(&first) = decoding.raw.first().filter(|_| self.pending_cr) else {
            return;
        };
        self.pending_cr = false;
        match (first, self.bare_cr) {
            (b'\n', _) => {
                decoding.replace(0, b"\r\n", 1);
                self.at = At::AfterCrlf;
            }
            (_, BareCr::Refuse) => self.spoil(Flaw::BareCr),
            (b'\r', BareCr::Normalise) => {}
            (_, BareCr::Normalise) => decoding.replace(0, b" ", 0),
        }
    }
}

/// Replaces each CR of the text up to `end` by a space, and removes those that another CR follows.
fn blank_crs(decoding: &mut Decoding<'_>, end: usize) {
    let (raw, start) = (decoding.raw, decoding.pos);
    for at in memchr_iter(b'\r', &raw[start..end]).map(|at| start + at) {
        let instead: &[u8] = if raw.get(at + 1) == Some(&b'\r') { b"" } else { b" " };
        decoding.replace(at, instead, at + 1);
    }
}

/// Determines what a dot at the start of a line means, from what follows it.
///
/// RFC 5321 section 4.5.2: the dot is removed if other characters follow on its line, and ends the data if none do.
/// After or before a bare LF, a dot alone is neither: it stays as text, and is stuffed again for the next hop.
fn dot(rest: &[u8], at: At) -> Dot {
    match rest {
        [_] | [_, b'\r'] => Dot::Unknown,
        [_, b'\r', b'\n', ..] if at == At::AfterCrlf => Dot::End,
        [_, b'\r', b'\n' | b'\r', ..] | [_, b'\n', ..] => Dot::Alone,
        _ => Dot::Stuffed,
    }
}

impl<'a> Decoding<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, pos: 0, kept: 0, copy: None }
    }

    /// Replaces `raw[from..to]` by `instead`.
    fn replace(&mut self, from: usize, instead: &[u8], to: usize) {
        let copy = self.copy.get_or_insert_with(|| BytesMut::with_capacity(self.raw.len() + 64));
        copy.extend_from_slice(&self.raw[self.kept..from]);
        copy.extend_from_slice(instead);
        self.kept = to;
        self.pos = self.pos.max(to);
    }

    /// Returns the changed content, if anything changed, and how many octets of the input are content.
    fn done(mut self) -> (Option<BytesMut>, usize) {
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&self.raw[self.kept..self.pos]);
        }
        (self.copy, self.pos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `wire`, fed in pieces of `step` octets: the content, what is left over, and the decoder.
    fn data(wire: &[u8], step: usize) -> (Vec<u8>, Option<Vec<u8>>, ContentDecoder) {
        data_by(ContentDecoder::for_data(&Leniency::default()), wire, step)
    }

    fn data_by(
        mut decoder: ContentDecoder,
        wire: &[u8],
        step: usize,
    ) -> (Vec<u8>, Option<Vec<u8>>, ContentDecoder) {
        let (mut input, mut content) = (BytesMut::new(), Vec::new());
        for (at, piece) in wire.chunks(step).enumerate() {
            input.extend_from_slice(piece);
            let (decoded, ended) = decoder.decode_data(&mut input);
            content.extend_from_slice(&decoded);
            if ended {
                input.extend_from_slice(&wire[((at + 1) * step).min(wire.len())..]);
                return (content, Some(input.to_vec()), decoder);
            }
        }
        (content, None, decoder)
    }

    fn chunks(chunks: &[&[u8]]) -> (Vec<u8>, ContentDecoder) {
        chunks_by(ContentDecoder::for_chunks(&Leniency::default()), chunks)
    }

    fn chunks_by(mut decoder: ContentDecoder, chunks: &[&[u8]]) -> (Vec<u8>, ContentDecoder) {
        let mut content = Vec::new();
        for chunk in chunks {
            let (mut input, mut left) = (BytesMut::new(), chunk.len() as u64);
            for byte in *chunk {
                input.extend_from_slice(&[*byte]);
                content.extend_from_slice(&decoder.decode_chunk(&mut input, &mut left));
            }
            assert_eq!((left, input.len()), (0, 0));
        }
        decoder.finish_chunks();
        (content, decoder)
    }

    #[test]
    fn dots_and_line_ends() {
        for (wire, content, rest) in [
            (".\r\n", "", Some("")),
            ("a\r\n.\r\nQUIT\r\n", "a\r\n", Some("QUIT\r\n")),
            ("..\r\n.a\r\n..b\r\n.\r\n", ".\r\na\r\n.b\r\n", Some("")),
            ("a\nb\r\n.\r\n", "a\r\nb\r\n", Some("")),
            ("a\n.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", Some("")),
            ("a\r\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", Some("")),
            ("a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", Some("")),
            ("a\n..b\n.\r\n\r\n.\r\n", "a\r\n.b\r\n.\r\n\r\n", Some("")),
            ("a\r\n.", "a\r\n", None),
            ("a\r\n.\r", "a\r\n", None),
            ("a.\r\n.b\r", "a.\r\nb", None),
        ] {
            for step in 1..=wire.len() {
                let (got, left, decoder) = data(wire.as_bytes(), step);
                assert_eq!(String::from_utf8(got).unwrap(), content, "{wire:?} by {step}");
                assert_eq!(left.as_deref(), rest.map(str::as_bytes), "{wire:?} by {step}");
                assert_eq!(decoder.flaw, None, "{wire:?} by {step}");
            }
        }
    }

    #[test]
    fn what_spoils_content_does_not_end_it() {
        for (wire, flaw) in [
            ("a\rb\r\n.\r\n", Flaw::BareCr),
            ("a\r.\r\r\n.\r\n", Flaw::BareCr),
            ("a\r\n.\r\r\nb\r\n.\r\n", Flaw::BareCr),
            ("a\0\r\n.\r\n", Flaw::Nul),
        ] {
            for step in 1..=wire.len() {
                let (_, left, decoder) = data(wire.as_bytes(), step);
                assert_eq!(left, Some(Vec::new()), "{wire:?} by {step}");
                assert_eq!(decoder.flaw, Some(flaw), "{wire:?} by {step}");
            }
        }
    }

    #[test]
    fn a_cr_alone_is_white_space_if_so_configured() {
        let lenient = Leniency { bare_cr: BareCr::Normalise, ..Leniency::default() };
        for (wire, content) in [
            ("a\rb\r\n.\r\n", "a b\r\n"),
            ("a\r\rb\r\r\r\n\r\r\n.\r\n", "a b\r\n\r\n"),
            ("a\r.\r\r\n.\r\n", "a .\r\n"),
            ("a\r\n.\r\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n"),
            ("\ra\r\n..\rb\r\n.\r\n", " a\r\n. b\r\n"),
            ("a\r\rb\nc\r\n.\r\n", "a b\r\nc\r\n"),
        ] {
            for step in 1..=wire.len() {
                let (got, left, decoder) = data_by(ContentDecoder::for_data(&lenient), wire.as_bytes(), step);
                assert_eq!(String::from_utf8(got).unwrap(), content, "{wire:?} by {step}");
                assert_eq!((left, decoder.flaw), (Some(Vec::new()), None), "{wire:?} by {step}");
            }
        }
        let (_, _, decoder) = data_by(ContentDecoder::for_data(&lenient), b"a\rb\0\r\n.\r\n", 99);
        assert_eq!(decoder.flaw, Some(Flaw::Nul));
        let chunked = |parts: &[&[u8]]| chunks_by(ContentDecoder::for_chunks(&lenient), parts);
        for (parts, content) in [
            (&[&b"a\r"[..], b"b\r", b"\r", b"\nc"][..], "a b\r\nc"),
            (&[b"a\rb\r\r\n\r", b"\n"], "a b\r\n\r\n"),
            (&[b"a\r"], "a"),
        ] {
            let (got, decoder) = chunked(parts);
            assert_eq!((String::from_utf8(got).unwrap().as_str(), decoder.flaw), (content, None));
        }
    }

    #[test]
    fn chunks_keep_their_octets_and_share_line_ends() {
        let (content, decoder) = chunks(&[b".\r\n..a\r", b"\nb\nc", b"", b"\r\n.\r\nd"]);
        assert_eq!(content, b".\r\n..a\r\nb\r\nc\r\n.\r\nd");
        assert_eq!(decoder.flaw, None);
        assert_eq!(chunks(&[b"a\r"]).1.flaw, Some(Flaw::BareCr));
        assert_eq!(chunks(&[b"a\r", b"b"]).1.flaw, Some(Flaw::BareCr));
        assert_eq!(chunks(&[b"a\0"]).1.flaw, Some(Flaw::Nul));
    }

    #[test]
    fn octets_above_127_are_noticed() {
        assert!(!data(b"abc\r\n.\r\n", 2).2.has_8bit);
        assert!(data("ä\r\n.\r\n".as_bytes(), 1).2.has_8bit);
    }
}
