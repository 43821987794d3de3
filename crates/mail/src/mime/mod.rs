//! The MIME tree of a message (RFC 2045 to 2047, 2231): its parts, and where they are in the body.
//!
//! The input is untrusted, so the tree is built by one scan over the octets, in order and without recursion. The work
//! grows linearly with the number of octets, and what is kept is bounded by [`MimeLimits`]. Structure beyond the limits
//! is not examined, and input that breaks the rules is read as most programs read it; [`Tree::malformed`] and
//! [`Tree::truncated`] report both. The content of a part is decoded separately, by [`transfer`].

mod fields;
mod params;
mod scanner;
pub mod transfer;

use std::fmt;
use std::ops::Range;

pub use scanner::Scanner;

/// Limits on how much of a message's structure is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MimeLimits {
    /// The most multiparts and enclosed messages that may be nested.
    pub depth: usize,
    /// The most parts of a message.
    pub parts: usize,
    /// The most octets of one part's header that are read; the rest is skipped.
    pub header: usize,
    /// The most octets together of all strings in [`MimePart`].
    pub names: usize,
}

impl Default for MimeLimits {
    fn default() -> Self {
        Self { depth: 100, parts: 10_000, header: 64 << 10, names: 1 << 20 }
    }
}

/// All parts of a message in the order in which they begin; the first is the message itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The parts; there is at least one.
    pub parts: Vec<MimePart>,
    /// The ways in which the message breaks the rules.
    pub malformed: FlagSet<Defect>,
    /// The limits that the scan met.
    pub truncated: FlagSet<MimeLimit>,
    /// The cost of the scan: octets examined plus boundaries compared.
    pub steps: u64,
}

/// One MIME part. Ranges are octet offsets from the start of the message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MimePart {
    /// The index of the multipart or enclosed message that contains this part; none for the message itself.
    pub parent: Option<u32>,
    /// The media type in lower case: `text/html`.
    pub content_type: String,
    /// The charset in lower case; none when the part names none.
    pub charset: Option<String>,
    /// The file name, decoded from whichever encoding it has; none when the part names none.
    pub filename: Option<String>,
    /// The type in its Content-Disposition, in lower case: `attachment`, `inline` (RFC 2183); none when the part has no
    /// such field. At most 64 octets are kept.
    pub disposition: Option<String>,
    /// Its Content-ID without angle brackets (RFC 2045 section 7); none when it has none, or one of more than 998
    /// octets.
    pub content_id: Option<String>,
    /// The transfer encoding that it declares, in lower case; `7bit` when it declares none (RFC 2045 section 6.1). At
    /// most 64 octets are kept.
    pub transfer_encoding: String,
    /// How its content is decoded.
    pub encoding: Encoding,
    /// The range of its header block and the empty line after it; none for the message itself, whose header is not in
    /// the body.
    pub header: Option<Range<u64>>,
    /// The range of its content, still encoded.
    pub content: Range<u64>,
}

/// The transfer encodings that change octets (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// 7bit, 8bit, binary, or an unknown encoding.
    #[default]
    Identity,
    /// Base64 (section 6.8).
    Base64,
    /// Quoted-printable (section 6.7).
    QuotedPrintable,
}

/// A way in which a message breaks the rules of MIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A multipart without the parameter `boundary`; it is read as a single part.
    NoBoundary,
    /// A multipart whose boundary never occurs.
    NoParts,
    /// A multipart that was not closed before the enclosing one continued, or before the message ended.
    NotClosed,
    /// A repeated field or parameter. Programs differ in which one they use; the first one is used here.
    Repeated,
    /// A line in a part's header that does not belong to any field.
    Header,
    /// A multipart or a message with a transfer encoding, which RFC 2045 section 6.4 forbids. A multipart is examined
    /// all the same, a message is not.
    Encoded,
    /// A Content-Type without type or subtype.
    Type,
}

/// A limit of [`MimeLimits`] that the scan met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MimeLimit {
    /// [`MimeLimits::depth`]: deeper structure is treated as content of the part at the limit.
    Depth,
    /// [`MimeLimits::parts`]: the scan ended before the first part above the limit.
    Parts,
    /// [`MimeLimits::header`]: fields after this point were not read.
    Header,
    /// [`MimeLimits::names`]: later parts have no charset, file name, disposition and Content-ID, no transfer encoding
    /// unless it is one that is decoded, and the type `application/octet-stream` unless they are multiparts or messages.
    Names,
}

/// A set of flags: of [`Defect`] or of [`MimeLimit`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlagSet<T> {
    bits: u8,
    kind: std::marker::PhantomData<T>,
}

/// An enum whose values can be in a [`FlagSet`].
pub trait Flag: Copy + 'static {
    /// All values of the enum.
    const ALL: &'static [Self];
    /// The bit that stands for this value.
    fn bit(self) -> u8;
    /// The name of this value in logs and in the plugin interface.
    fn name(self) -> &'static str;
}

macro_rules! marks {
    ($kind:ident: $($mark:ident = $name:literal),+ $(,)?) => {
        impl Flag for $kind {
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
marks! { MimeLimit: Depth = "depth", Parts = "parts", Header = "header", Names = "names" }

impl<T: Flag> FlagSet<T> {
    /// Whether the set has this value.
    #[must_use]
    pub fn has(self, mark: T) -> bool {
        self.bits & mark.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The names of all values in the set.
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

impl<T> Default for FlagSet<T> {
    fn default() -> Self {
        Self { bits: 0, kind: std::marker::PhantomData }
    }
}

impl<T: Flag> fmt::Debug for FlagSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Encoding {
    /// The word for this encoding in Content-Transfer-Encoding; empty where octets are not changed.
    fn word(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Base64 => "base64",
            Self::QuotedPrintable => "quoted-printable",
        }
    }
}

impl MimePart {
    /// The size of the content in octets, still encoded.
    #[must_use]
    pub fn encoded_size(&self) -> u64 {
        self.content.end - self.content.start
    }
}
