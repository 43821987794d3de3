//! Messages for tests: any number of them, each a little different and recognisable when it is read again.

use bytes::Bytes;
use pintle_mail::{
    Address, Body, Charset, EnhancedCode, Envelope, MailParams, QueueId, Recipient, Reply, ReversePath,
    UnixTime,
};

use crate::{
    Change, Content, DeliveryStatus, Disposition, Entry, Guard, HoldReason, NewMessage, Pending, Quarantine,
    Receipt, Settlement, Spool, SpoolError, Stored,
};

/// When test messages are received.
pub const NOW: UnixTime = UnixTime::from_millis(1_795_317_028_000);

/// An hour after that.
pub const LATER: UnixTime = UnixTime::from_millis(NOW.millis() + 3_600_000);

/// A message that is generated from three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Distinguishes it from other messages.
    pub number: u32,
    /// Octets of its body.
    pub size: usize,
    /// How many recipients it has; their ids count from 1.
    pub recipients: u32,
}

impl Sample {
    /// A message of 10 KB for one recipient.
    #[must_use]
    pub fn small(number: u32) -> Self {
        Self { number, size: 10_000, recipients: 1 }
    }

    /// A message too large to stay in memory, for one recipient.
    #[must_use]
    pub fn large(number: u32) -> Self {
        Self { size: 1_500_000, ..Self::small(number) }
    }

    /// The same message for this many recipients.
    #[must_use]
    pub fn to(self, recipients: u32) -> Self {
        Self { recipients, ..self }
    }

    /// Its queue id. Greater numbers give greater ids.
    #[must_use]
    pub fn id(&self) -> QueueId {
        QueueId::new(NOW, u128::from(self.number) << 32)
    }

    /// Header block of the message, with the empty line that ends it.
    #[must_use]
    pub fn head(&self) -> Bytes {
        format!("Received: by test with number {}\r\nSubject: {self:?}\r\n\r\n", self.number).into()
    }

    /// Its body, in which no two blocks are alike.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let mut state = u64::from(self.number) + 1;
        let octets = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        });
        octets.take(self.size).collect()
    }

    /// Spool entry of the message, with its recipients.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let recipients = (1..=self.recipients)
            .map(|id| Recipient::new(id, address(&format!("r{id}.n{}@example{}.org", self.number, id % 3))));
        Entry {
            envelope: Envelope {
                sender: ReversePath::Address(address(&format!("sender{}@example.net", self.number))),
                params: MailParams::default(),
                recipients: recipients.collect(),
            },
            received: NOW,
            parent: None,
            hold: None,
            released: None,
            has_8bit: self.number.is_multiple_of(2),
            needs_smtputf8: false,
            context: format!("{{\"session\":{}}}", self.number).into(),
        }
    }

    /// Sends its body through a draft of this spool, in pieces that divide no block.
    ///
    /// # Errors
    /// Those of the draft.
    pub async fn content(&self, spool: &dyn Spool) -> Result<Content, SpoolError> {
        let mut draft = spool.begin()?;
        for piece in self.body().chunks(4_999) {
            draft.append(Bytes::copy_from_slice(piece)).await?;
        }
        draft.finish().await
    }

    /// The message, with a body that came in through a draft of this spool.
    ///
    /// # Errors
    /// Those of the draft.
    pub async fn message(&self, spool: &dyn Spool) -> Result<NewMessage, SpoolError> {
        Ok(NewMessage {
            id: self.id(),
            head: self.head(),
            content: self.content(spool).await?,
            entry: self.entry(),
        })
    }

    /// Commits it to this spool, with a body that came in through a draft.
    ///
    /// # Errors
    /// Those of the draft and of the commit.
    pub async fn commit(&self, spool: &dyn Spool) -> Result<Receipt, SpoolError> {
        spool.commit(self.message(spool).await?).await
    }

    /// A settlement of one of its recipients.
    #[must_use]
    pub fn settlement(&self, recipient: u32, status: DeliveryStatus) -> Settlement {
        let changes = vec![Change { recipient, status }];
        Settlement { id: self.id(), changes, children: Vec::new(), guard: Guard::Any }
    }

    /// A settlement that ends all its recipients.
    #[must_use]
    pub fn all_done(&self) -> Settlement {
        let changes = (1..=self.recipients).map(|recipient| Change { recipient, status: delivered() });
        Settlement { id: self.id(), changes: changes.collect(), children: Vec::new(), guard: Guard::Any }
    }

    /// Asserts that the stored message is this one, octet by octet.
    pub async fn assert_same(&self, stored: &Stored) {
        assert_eq!(stored.id, self.id());
        assert_eq!(stored.head, self.head(), "{self:?}");
        let expected = self.entry();
        assert_eq!(Entry { hold: None, released: None, ..stored.entry.clone() }, expected);
        assert_eq!(stored.body.size(), self.size as u64);
        assert!(read_all(&*stored.body).await == self.body(), "the body of {self:?} differs");
        let numbers: Vec<u32> = stored.recipients.iter().map(|state| state.id).collect();
        assert_eq!(numbers, (1..=self.recipients).collect::<Vec<_>>());
    }
}

/// Reads a body to its end, in pieces that divide no block.
pub async fn read_all(body: &dyn Body) -> Bytes {
    let mut all = Vec::new();
    loop {
        let piece = body.read(all.len() as u64, 50_021).await.unwrap();
        if piece.is_empty() {
            return all.into();
        }
        all.extend_from_slice(&piece);
    }
}

/// A hold in the quarantine of this name, since the message was received.
#[must_use]
pub fn in_quarantine(name: &str) -> HoldReason {
    let by = Some("judge".to_owned());
    HoldReason::Quarantine(Quarantine { by, ..Quarantine::new(name, NOW) })
}

/// The status of a delivered recipient.
#[must_use]
pub fn delivered() -> DeliveryStatus {
    DeliveryStatus::Done(Disposition::Delivered)
}

/// The status of a recipient after this many deferrals.
#[must_use]
pub fn deferred(attempts: u32) -> DeliveryStatus {
    DeliveryStatus::Pending(Pending {
        attempts,
        next_attempt: UnixTime::from_millis(NOW.millis() + i64::from(attempts) * 60_000),
        last: Some(Reply::new(450, EnhancedCode(4, 2, 0), "try later")),
        unheard: attempts > 4,
        host: (attempts <= 4).then(|| "mx.example".to_owned()),
        last_attempt: Some(NOW),
        warned: attempts > 3,
    })
}

fn address(text: &str) -> Address {
    Address::parse(text, Charset::Utf8).unwrap()
}
