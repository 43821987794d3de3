//! The MIME tree of a message (RFC 2045 to 2047, 2231): which parts it has, and where they lie.
//!
//! Strangers write what is read here, so the tree is built by one scan over the octets, in order and without recursion:
//! its work grows with the octets alone, and what it keeps is bounded by [`Limits`]. What is beyond them is not looked
//! into any further, and what breaks the rules is read as most programs read it; [`Tree::malformed`] and
//! [`Tree::truncated`] tell of both. The content of a part is decoded apart, by [`transfer`].

mod fields;
mod params;
mod scanner;
pub mod transfer;
mod words;

use std::fmt;
use std::ops::Range;

pub use scanner::Scanner;
pub(crate) use words::decode as decode_words;

/// How much of a message's structure is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many multiparts and enclosed messages may be open at once.
    pub depth: usize,
    /// How many parts there may be.
    pub parts: usize,
    /// The octets of one part's header that are read; the rest is passed over.
    pub header: usize,
    /// The octets of all types, charsets and file names together.
    pub names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 100, parts: 10_000, header: 64 << 10, names: 1 << 20 }
    }
}

/// All parts of a message in the order in which they begin; the first is the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// There is at least one.
    pub parts: Vec<Part>,
    /// How it breaks the rules, each kind once.
    pub malformed: Marks<Defect>,
    /// Which limits cut it, each once.
    pub truncated: Marks<Limit>,
    /// What the scan has cost: octets looked at, and boundaries compared.
    pub steps: u64,
}

/// One part. Places count from the start of the message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The multipart or enclosed message that it stands in; none for the message itself.
    pub parent: Option<u32>,
    /// Lower case: `text/html`.
    pub content_type: String,
    /// Lower case.
    pub charset: Option<String>,
    /// Decoded, whichever way it was written.
    pub filename: Option<String>,
    /// Its Content-Disposition says so.
    pub attachment: bool,
    /// How its content is encoded.
    pub encoding: Encoding,
    /// Its header block and the empty line behind; none for the message itself, whose header is not in the body.
    pub header: Option<Range<u64>>,
    /// Its content, as it stands in the message.
    pub content: Range<u64>,
}

/// The transfer encodings that change octets (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// 7bit, 8bit, binary, or one that nobody knows.
    #[default]
    Identity,
    /// Section 6.8.
    Base64,
    /// Section 6.7.
    QuotedPrintable,
}

/// A way in which a message breaks the rules of MIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A multipart without the parameter `boundary`: it is read as one piece.
    NoBoundary,
    /// A multipart whose boundary never comes.
    NoParts,
    /// A multipart that was not closed before the one around it went on, or before the message ended.
    NotClosed,
    /// Two fields of a kind, or two parameters of a name, of which programs may take either. Here the first counts.
    Repeated,
    /// A line in a part's header that belongs to no field.
    Header,
    /// A multipart or a message that says it is encoded, which RFC 2045 section 6.4 forbids. A multipart is looked into
    /// all the same, a message is not.
    Encoded,
    /// A Content-Type without type or subtype.
    Type,
}

/// A limit that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::depth`]: what is deeper is content of the part at the limit.
    Depth,
    /// [`Limits::parts`]: the scan ended at the part that would have been one too many.
    Parts,
    /// [`Limits::header`]: fields behind it were not read.
    Header,
    /// [`Limits::names`]: later parts lack charset and file name, and have the type `application/octet-stream` unless
    /// they are multiparts or messages.
    Names,
}

/// A set of one of the two kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Marks<T> {
    bits: u8,
    kind: std::marker::PhantomData<T>,
}

/// What can be marked.
pub trait Mark: Copy + 'static {
    /// All there are.
    const ALL: &'static [Self];
    /// The bit of this one.
    fn bit(self) -> u8;
    /// The word for it, in logs and for plugins.
    fn name(self) -> &'static str;
}

macro_rules! marks {
    ($kind:ident: $($mark:ident = $name:literal),+ $(,)?) => {
        impl Mark for $kind {
            const ALL: &'static [Self] = &[$(Self::$mark),+];

            fn bit(self) -> u8 {
                1 << self as u8
            }

            fn name(self) -> &'static str {
                match self { $(Self::$mark => $name),+ }
            }
        }
    };
}

marks! {
    Defect: NoBoundary = "no-boundary", NoParts = "no-parts", NotClosed = "not-closed", Repeated = "repeated",
    Header = "header", Encoded = "encoded", Type = "type",
}
marks! { Limit: Depth = "depth", Parts = "parts", Header = "header", Names = "names" }

impl<T: Mark> Marks<T> {
    /// Whether this one is marked.
    #[must_use]
    pub fn has(self, mark: T) -> bool {
        self.bits & mark.bit() != 0
    }

    /// Whether none is marked.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The words for all that are marked.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        T::ALL.iter().filter(|mark| self.has(**mark)).map(|mark| mark.name()).collect()
    }

    fn mark(&mut self, mark: T) {
        self.bits |= mark.bit();
    }

    fn add(&mut self, others: Self) {
        self.bits |= others.bits;
    }
}

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self { bits: 0, kind: std::marker::PhantomData }
    }
}

impl<T: Mark> fmt::Debug for Marks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Part {
    /// Its size as it stands in the message.
    #[must_use]
    pub fn encoded_size(&self) -> u64 {
        self.content.end - self.content.start
    }
}
