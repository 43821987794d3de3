//! Dot stuffing (RFC 5321 section 4.5.2), without copying what needs no change.

use bytes::Bytes;

use super::core::Outbox;

/// How the octets written so far end, which decides whether a dot begins a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// With CR LF, or there are none: a line begins.
    LineStart,
    /// With a bare LF. A dot here is stuffed as well, because a receiver that takes a bare LF for a line end must not
    /// see a dot alone.
    BareLf,
    /// With a CR whose LF may follow.
    Cr,
    /// With any other octet: within a line.
    Inside,
}

impl Tail {
    /// Returns the state after these octets.
    pub(super) fn after(self, bytes: &[u8]) -> Self {
        match bytes {
            [] => self,
            [b'\n'] if self == Self::Cr => Self::LineStart,
            [.., b'\r', b'\n'] => Self::LineStart,
            [.., b'\n'] => Self::BareLf,
            [.., b'\r'] => Self::Cr,
            _ => Self::Inside,
        }
    }

    /// Returns what must be added to make the message end in CR LF (RFC 5321 section 4.1.1.4).
    pub(super) fn missing_end(self) -> &'static [u8] {
        match self {
            Self::LineStart => b"",
            Self::Cr => b"\n",
            Self::BareLf | Self::Inside => b"\r\n",
        }
    }
}

/// Writes pieces of a message so that no line in them is a single dot.
#[derive(Debug)]
pub(super) struct Stuffer {
    tail: Tail,
}

impl Stuffer {
    pub(super) fn new() -> Self {
        Self { tail: Tail::LineStart }
    }

    /// Writes a piece. The parts between stuffed dots are slices of the same memory.
    pub(super) fn write(&mut self, mut piece: Bytes, out: &mut Outbox) {
        let begins_line = matches!(self.tail, Tail::LineStart | Tail::BareLf);
        self.tail = self.tail.after(&piece);
        if begins_line && piece.first() == Some(&b'.') {
            out.put(b".");
        }
        while let Some(at) = memchr::memmem::find(&piece, b"\n.") {
            out.put_piece(piece.split_to(at + 1));
            out.put(b".");
        }
        out.put_piece(piece);
    }

    /// Ends the message: the final CR LF if it is missing, then the dot.
    pub(super) fn finish(self, out: &mut Outbox) {
        out.put(self.tail.missing_end());
        out.put(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(pieces: &[&[u8]]) -> String {
        let (mut out, mut stuffer) = (Outbox::default(), Stuffer::new());
        for piece in pieces {
            stuffer.write(Bytes::copy_from_slice(piece), &mut out);
        }
        stuffer.finish(&mut out);
        let wire: Vec<u8> = std::iter::from_fn(|| out.take()).flatten().collect();
        assert_eq!(out.len(), 0);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn dots_at_line_starts_are_doubled_wherever_the_pieces_part() {
        let message = b".a\r\n..b\r\nc.d\r\n.\r\ne";
        let expected = "..a\r\n...b\r\nc.d\r\n..\r\ne\r\n.\r\n";
        for cut in 0..=message.len() {
            let (head, rest) = message.split_at(cut);
            assert_eq!(stuffed(&[head, rest]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn every_message_ends_in_one_line_end() {
        assert_eq!(stuffed(&[]), ".\r\n");
        assert_eq!(stuffed(&[b"a"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r", b"\n"]), "a\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\n"]), "a\n\r\n.\r\n");
    }

    #[test]
    fn no_dot_stands_alone_after_a_bare_line_feed() {
        assert_eq!(stuffed(&[b"a\n", b".\r\nMAIL"]), "a\n..\r\nMAIL\r\n.\r\n");
    }

    #[test]
    fn large_pieces_pass_without_a_copy() {
        let piece = Bytes::from(vec![b'x'; 100_000]);
        let mut out = Outbox::default();
        Stuffer::new().write(piece.clone(), &mut out);
        assert_eq!(out.take().unwrap().as_ptr(), piece.as_ptr());
    }
}
