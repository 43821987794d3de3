//! Reads values from a plan of arbitrary octets. A plan that has run out yields zeros and empty texts.

/// The unread rest of a plan.
pub struct Plan<'a>(&'a [u8]);

impl<'a> Plan<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    pub fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn flag(&mut self) -> bool {
        self.octet() % 2 == 1
    }

    pub fn number(&mut self) -> u16 {
        u16::from_be_bytes([self.octet(), self.octet()])
    }

    /// Octets, preceded by their length.
    pub fn octets(&mut self) -> &'a [u8] {
        let length = usize::from(self.octet()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A text, repeated now and then so that it becomes longer than any line.
    pub fn text(&mut self) -> String {
        let times = match self.octet() {
            times @ 0xF8.. => usize::from(times - 0xF0) * 4,
            _ => 1,
        };
        String::from_utf8_lossy(self.octets()).repeat(times)
    }

    /// A text, or none.
    pub fn maybe_text(&mut self) -> Option<String> {
        self.flag().then(|| self.text())
    }

    /// All octets that are left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}
