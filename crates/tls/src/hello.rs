//! Reads the first octets of a client's first message, to learn which version of TLS it names.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::HandshakeError;

/// The length of a record header, a message header, and a version.
const LENGTH: usize = 11;
/// The content type of a handshake, and the message that begins one (RFC 8446 sections 5.1 and 4).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The first octets from the client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HelloPrefix {
    octets: [u8; LENGTH],
    length: usize,
}

impl HelloPrefix {
    /// Reads as many octets as are needed to know the version, and no more. It stops early when the peer does, or when
    /// the octets are not TLS and may be fewer.
    pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Self> {
        let mut hello = Self::default();
        while hello.length < LENGTH && (hello.length == 0 || hello.octets[0] == HANDSHAKE) {
            match stream.read(&mut hello.octets[hello.length..]).await? {
                0 => break,
                count => hello.length += count,
            }
        }
        Ok(hello)
    }

    /// Checks that it may be TLS. The library would notice too, but only after more octets, which a peer in plain text
    /// never sends.
    pub(crate) fn check(&self) -> Result<(), HandshakeError> {
        match self.octets() {
            [] => Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into())),
            [HANDSHAKE, ..] => Ok(()),
            // The form of SSL 2.0 begins with a length whose upper bit is set (RFC 5246 appendix E.2).
            [first, ..] if first & 0x80 != 0 => {
                Err(HandshakeError::NoCommonVersion { offered: Some("SSL 2.0") })
            }
            _ => Err(HandshakeError::NotTls),
        }
    }

    /// The octets that were read, to be passed on to the library.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// Whether it is a client hello of a version before TLS 1.2. Later versions name 1.2 here, for compatibility with
    /// middleboxes (RFC 8446 section 4.1.2).
    pub(crate) fn is_old(&self) -> bool {
        self.named().is_some_and(|version| version < 0x0303)
    }

    /// The name of the version, if it is a known old one.
    pub(crate) fn version(&self) -> Option<&'static str> {
        Some(match self.named()? {
            0x0300 => "SSL 3.0",
            0x0301 => "TLS 1.0",
            0x0302 => "TLS 1.1",
            _ => return None,
        })
    }

    fn named(&self) -> Option<u16> {
        let is_hello = self.length == LENGTH && self.octets[0] == HANDSHAKE && self.octets[5] == CLIENT_HELLO;
        is_hello.then(|| u16::from_be_bytes([self.octets[9], self.octets[10]]))
    }
}
