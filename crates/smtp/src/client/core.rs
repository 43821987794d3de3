//! What all states of a client session share: configuration, the next hop's EHLO offers, the outgoing buffer, the
//! deadline, the events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::Peer;
use super::config::{Channel, Config};
use super::outcome::Event;
use crate::extension::Offered;

/// The part of a session that outlives its states.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) peer: Peer,
    pub(super) channel: Channel,
    pub(super) out: Outbox,
    pub(super) events: VecDeque<Event>,
    pub(super) deadline: Option<Instant>,
    /// Transactions begun so far.
    pub(super) transactions: u32,
}

impl Core {
    pub(super) fn new(config: Config) -> Self {
        Self {
            channel: config.channel,
            config,
            peer: Peer::default(),
            out: Outbox::default(),
            events: VecDeque::new(),
            deadline: None,
            transactions: 0,
        }
    }

    pub(super) fn offers(&self) -> &Offered {
        &self.peer.offered
    }

    /// Sends a command whose reply must come within `patience`.
    pub(super) fn command(&mut self, line: &str, patience: Duration, now: Instant) {
        self.line(line);
        self.expect(patience, now);
    }

    /// Writes a line. Control characters never reach the wire, even if one got into an address, a parameter or the
    /// configuration: an additional CR LF would be a smuggled command.
    pub(super) fn line(&mut self, line: &str) {
        if line.bytes().any(|byte| byte.is_ascii_control()) {
            let safe: Vec<u8> = line.bytes().filter(|byte| !byte.is_ascii_control()).collect();
            self.out.put(&safe);
        } else {
            self.out.put(line.as_bytes());
        }
        self.out.put(b"\r\n");
    }

    pub(super) fn expect(&mut self, patience: Duration, now: Instant) {
        self.deadline = now.checked_add(patience);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }
}

/// The outgoing buffer: octets that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    whole: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

/// Pieces below this size, in octets, are copied together. Copying 16 KiB takes about a microsecond, less than the
/// system call, the TLS record or the packet that a piece of its own would cost; larger pieces are passed on without a
/// copy.
const JOIN_BELOW: usize = 16 * 1024;

impl Outbox {
    /// The number of octets that wait to be written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn put_piece(&mut self, piece: Bytes) {
        if piece.len() < JOIN_BELOW {
            return self.put(&piece);
        }
        if !self.tail.is_empty() {
            self.whole.push_back(self.tail.split().freeze());
        }
        self.len += piece.len();
        self.whole.push_back(piece);
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        let piece = match self.whole.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.len -= piece.len();
        Some(piece)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
