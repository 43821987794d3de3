//! The next hop's end of a connection, which can break at any octet.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What happens when a connection has carried its octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It ends.
    Dies,
    /// Nothing is read or written any more.
    Hangs,
    /// The next hop talks nonsense, and hangs up.
    Raves,
}

/// The connection is over.
#[derive(Debug)]
pub struct Over;

/// The connection, and how many octets are left before its trouble.
pub struct Wire {
    stream: DuplexStream,
    input: BytesMut,
    left: usize,
    trouble: Trouble,
}

impl Wire {
    pub fn new(stream: DuplexStream, left: usize, trouble: Trouble) -> Self {
        Self { stream, input: BytesMut::new(), left, trouble }
    }

    /// The next line, without its end.
    pub async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(at) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = self.input.split_to(at + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill().await?;
        }
    }

    /// So many octets.
    pub async fn octets(&mut self, count: usize) -> Result<Vec<u8>, Over> {
        while self.input.len() < count {
            self.fill().await?;
        }
        Ok(self.input.split_to(count).to_vec())
    }

    /// What comes after DATA, up to its dot, as it was before dots were doubled (RFC 5321 section 4.5.2).
    pub async fn dotted(&mut self) -> Result<Vec<u8>, Over> {
        let mut text = Vec::new();
        loop {
            while let Some(at) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = &self.input[..=at];
                if line == b".\r\n" {
                    self.input.advance(3);
                    return Ok(text);
                }
                text.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                self.input.advance(at + 1);
            }
            self.fill().await?;
        }
    }

    /// Says a line; it has gone out whole when there is no error.
    pub async fn say(&mut self, line: &str) -> Result<(), Over> {
        let octets = [line.as_bytes(), b"\r\n"].concat();
        let now = octets.len().min(self.left);
        self.left -= now;
        self.stream.write_all(&octets[..now]).await.map_err(|_| Over)?;
        if now < octets.len() { Err(self.struck().await) } else { Ok(()) }
    }

    /// Never again.
    pub async fn hang(&self) -> Over {
        std::future::pending().await
    }

    async fn fill(&mut self) -> Result<(), Over> {
        if self.left == 0 {
            return Err(self.struck().await);
        }
        let before = self.input.len();
        match self.stream.read_buf(&mut self.input).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Err(Over),
        }
        let read = (self.input.len() - before).min(self.left);
        self.input.truncate(before + read);
        self.left -= read;
        Ok(())
    }

    async fn struck(&mut self) -> Over {
        match self.trouble {
            Trouble::Dies => Over,
            Trouble::Hangs => self.hang().await,
            Trouble::Raves => {
                // Whether anybody still hears it does not matter.
                let _ = self.stream.write_all(b"\x00\xff25O 2.0.0 0K\r\n999-\r\n\r\n").await;
                Over
            }
        }
    }
}
