//! A connection read by lines or by length, over plain TCP or TLS.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) trait WireStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> WireStream for T {}

pub(crate) struct Wire {
    stream: Box<dyn WireStream>,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: impl WireStream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    /// Reads the next line with its line end. At the end of the stream, the rest, which may be empty.
    pub(crate) async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                return Ok(self.take(searched + at + 1));
            }
            searched = self.buffer.len();
            if !self.fill().await? {
                return Ok(std::mem::take(&mut self.buffer));
            }
        }
    }

    /// Reads exactly `length` bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(length))
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The number of bytes that have arrived and have not been read yet.
    pub(crate) fn ahead(&self) -> usize {
        self.buffer.len()
    }

    /// Returns the stream, for a handshake, and the bytes that were read too early.
    pub(crate) fn into_parts(self) -> (Box<dyn WireStream>, Vec<u8>) {
        (self.stream, self.buffer)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Reads more bytes; false at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}
