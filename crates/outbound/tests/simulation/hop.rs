//! Next hops of many kinds: each speaks SMTP or LMTP, decides by recipient, and fails in its moods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::DuplexStream;

use crate::laws;
use crate::random::Random;
use crate::wire::{Over, Trouble, Wire};
use crate::world::World;

/// One host.
pub struct Hop {
    pub name: &'static str,
    pub kind: Kind,
    state: Mutex<State>,
}

/// What a host is able to do.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub lmtp: bool,
    pub esmtp: bool,
    pub pipelining: bool,
    pub chunking: bool,
    pub dsn: bool,
    /// Recipients that it takes at once.
    pub recipients: usize,
}

#[derive(Default)]
struct State {
    mood: Mood,
    connections: u64,
    /// How often each recipient was offered.
    offered: BTreeMap<String, u32>,
}

/// How a host is today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Up,
    /// It refuses connections.
    Refuses,
    /// It does not answer.
    Silent,
    /// It greets with a temporary error.
    Busy,
    /// It greets with a permanent one.
    Hostile,
    /// Each connection breaks.
    Flaky,
}

/// What a host says about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Takes,
    /// Deferred this many times at RCPT.
    Later(u32),
    /// The same at the end of the data.
    LaterAtEnd(u32),
    /// Not yet, whenever it is asked.
    Always,
    Never,
    NeverAtEnd,
}

impl Kind {
    pub fn drawn(random: &mut Random, lmtp: bool) -> Self {
        let esmtp = lmtp || random.chance(900);
        Self {
            lmtp,
            esmtp,
            pipelining: esmtp && random.chance(700),
            chunking: esmtp && random.chance(500),
            dsn: esmtp && random.chance(300),
            recipients: *random.pick(&[1, 2, 100, 100]),
        }
    }
}

impl Hop {
    pub fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, state: Mutex::default() }
    }

    pub fn set_mood(&self, mood: Mood) {
        self.state.lock().mood = mood;
    }

    pub fn mood(&self) -> Mood {
        self.state.lock().mood
    }

    /// The number of the next connection.
    pub fn next_connection(&self) -> u64 {
        let mut state = self.state.lock();
        state.connections += 1;
        state.connections
    }

    /// What it thinks of a recipient; the same in every run of a seed, whatever came before.
    fn verdict(&self, world: &World, recipient: &str) -> Verdict {
        let mut random = Random::of(world.seed, recipient);
        let times = u32::try_from(random.between(1, 4)).unwrap_or(1);
        let patience = if random.chance(150) { u32::MAX } else { times };
        match random.weighted(&[62, 12, 8, 8, 8, 2]) {
            1 if !world.is_healthy() => Verdict::Later(patience),
            2 if !world.is_healthy() => Verdict::LaterAtEnd(patience),
            3 => Verdict::Never,
            4 => Verdict::NeverAtEnd,
            5 => Verdict::Always,
            _ => Verdict::Takes,
        }
    }

    fn offered(&self, recipient: &str) -> u32 {
        let mut state = self.state.lock();
        let times = state.offered.entry(recipient.to_owned()).or_default();
        *times += 1;
        *times
    }
}

/// Speaks with the gateway until the connection is over.
pub async fn serve(world: Arc<World>, hop: Arc<Hop>, number: u64, stream: DuplexStream) {
    let mut random = Random::of(world.seed, &format!("{} {number}", hop.name));
    let sound = world.is_healthy();
    let grief = !sound && (hop.mood() == Mood::Flaky || random.chance(120));
    let most = 1 << random.between(4, 15);
    let left = if grief { usize::try_from(random.below(most)).unwrap_or(0) } else { usize::MAX };
    let trouble = *random.pick(&[Trouble::Dies, Trouble::Dies, Trouble::Hangs, Trouble::Raves]);
    let wire = Wire::new(stream, left, trouble);
    let mut dialogue = Dialogue { world, hop, wire, random, sound, mail: Mail::default() };
    let Over = dialogue.run().await;
    dialogue.world.tell(|| format!("{} {number}: over", dialogue.hop.name));
}

struct Dialogue {
    world: Arc<World>,
    hop: Arc<Hop>,
    wire: Wire,
    random: Random,
    /// It does as it should.
    sound: bool,
    mail: Mail,
}

/// A transaction under way.
#[derive(Default)]
struct Mail {
    from: Option<String>,
    to: Vec<String>,
    chunks: Vec<u8>,
}

impl Dialogue {
    async fn run(&mut self) -> Over {
        let mut step = self.greet().await;
        loop {
            if let Err(over) = step {
                return over;
            }
            step = match self.wire.line().await {
                Ok(line) => self.command(&line).await,
                Err(over) => return over,
            };
        }
    }

    async fn greet(&mut self) -> Result<(), Over> {
        let mood = if self.sound { Mood::Up } else { self.hop.mood() };
        match mood {
            Mood::Busy => self.last_words("421 4.3.2 too busy").await,
            Mood::Hostile => self.last_words("554 5.7.1 not you").await,
            _ => self.say("220 hop.example ready").await,
        }
    }

    async fn last_words(&mut self, line: &str) -> Result<(), Over> {
        self.say(line).await?;
        Err(Over)
    }

    /// Takes its time, and says a line.
    async fn say(&mut self, line: &str) -> Result<(), Over> {
        if !self.sound {
            let wait = match self.random.weighted(&[700, 250, 40, 10]) {
                0 => Duration::ZERO,
                1 => self.random.millis(1, 500),
                2 => self.random.millis(500, 8_000),
                // Beyond every deadline.
                _ => self.random.millis(60_000, 120_000),
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        self.world.tell(|| format!("{}: {line}", self.hop.name));
        self.wire.say(line).await
    }

    async fn command(&mut self, line: &str) -> Result<(), Over> {
        self.world.tell(|| format!("{}: < {line}", self.hop.name));
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        if !self.sound && self.random.chance(6) {
            return self.last_words("421 4.3.0 shutting down").await;
        }
        match verb.as_str() {
            "EHLO" | "LHLO" => self.hello(&verb).await,
            "HELO" => self.say("250 hop.example").await,
            "MAIL" => self.mail_from(line).await,
            "RCPT" => self.rcpt_to(line).await,
            "DATA" => self.data().await,
            "BDAT" => self.bdat(line).await,
            "RSET" => {
                self.mail = Mail::default();
                self.say("250 2.0.0 forgotten").await
            }
            "NOOP" => self.say("250 2.0.0 fine").await,
            "QUIT" => self.last_words("221 2.0.0 bye").await,
            _ => self.say("500 5.5.1 what?").await,
        }
    }

    async fn hello(&mut self, verb: &str) -> Result<(), Over> {
        let kind = self.hop.kind;
        if !kind.esmtp || kind.lmtp != (verb == "LHLO") {
            return self.say("500 5.5.1 what?").await;
        }
        let offers = [
            (kind.pipelining, "PIPELINING"),
            (kind.chunking, "CHUNKING"),
            (kind.dsn, "DSN"),
            (true, "8BITMIME"),
            (true, "ENHANCEDSTATUSCODES"),
        ];
        for (_, word) in offers.iter().filter(|(offered, _)| *offered) {
            self.wire.say(&format!("250-{word}")).await?;
        }
        self.say("250 SIZE 0").await
    }

    async fn mail_from(&mut self, line: &str) -> Result<(), Over> {
        let from = path(line);
        if !self.sound && self.random.chance(15) {
            return self.say("451 4.3.0 not now").await;
        }
        if !from.is_empty() && self.random_of(&from, "mail").chance(15) {
            self.world.ledger(|ledger| ledger.refused.insert(from.clone()));
            return self.say("550 5.7.1 not from you").await;
        }
        self.mail = Mail { from: Some(from), ..Mail::default() };
        self.say("250 2.1.0 go on").await
    }

    async fn rcpt_to(&mut self, line: &str) -> Result<(), Over> {
        if self.mail.from.is_none() {
            return self.say("503 5.5.1 MAIL first").await;
        }
        let to = path(line);
        if self.mail.to.len() >= self.hop.kind.recipients {
            return self.say("452 4.5.3 too many recipients").await;
        }
        let verdict = self.hop.verdict(&self.world, &to);
        match verdict {
            Verdict::Never => {
                self.world.ledger(|ledger| ledger.refused.insert(to));
                self.say("550 5.1.1 nobody of that name").await
            }
            Verdict::Later(times) if self.hop.offered(&to) <= times => self.say("450 4.2.1 later").await,
            Verdict::Always => self.say("450 4.2.2 mailbox full").await,
            _ => {
                self.mail.to.push(to);
                self.say("250 2.1.5 go on").await
            }
        }
    }

    async fn data(&mut self) -> Result<(), Over> {
        if self.mail.to.is_empty() {
            return self.say("554 5.5.1 no valid recipients").await;
        }
        if !self.sound && self.random.chance(10) {
            return self.say("451 4.3.0 not now").await;
        }
        self.say("354 go on").await?;
        let text = self.wire.dotted().await?;
        self.judge(&text).await
    }

    async fn bdat(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split(' ').skip(1);
        let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let chunk = self.wire.octets(count).await?;
        if self.mail.to.is_empty() {
            return self.say("503 5.5.1 no valid recipients").await;
        }
        self.mail.chunks.extend_from_slice(&chunk);
        if words.next().is_none() {
            return self.say("250 2.0.0 more").await;
        }
        let text = std::mem::take(&mut self.mail.chunks);
        self.judge(&text).await
    }

    /// The end of the data: one answer in SMTP, one for each recipient in LMTP (RFC 2033 section 4.2).
    async fn judge(&mut self, text: &[u8]) -> Result<(), Over> {
        let mail = std::mem::take(&mut self.mail);
        let from = mail.from.unwrap_or_default();
        self.world.ledger(|ledger| laws::in_one_transaction(ledger, &mail.to, text));
        let groups: Vec<&[String]> =
            if self.hop.kind.lmtp { mail.to.chunks(1).collect() } else { vec![mail.to.as_slice()] };
        for group in groups {
            self.judge_group(&from, group, text).await?;
        }
        Ok(())
    }

    async fn judge_group(&mut self, from: &str, to: &[String], text: &[u8]) -> Result<(), Over> {
        let verdicts: Vec<Verdict> = to.iter().map(|to| self.hop.verdict(&self.world, to)).collect();
        if verdicts.contains(&Verdict::NeverAtEnd) {
            self.world.ledger(|ledger| ledger.refused.extend(to.iter().cloned()));
            return self.say("554 5.7.1 not this").await;
        }
        let waits = |(to, verdict): (&String, &Verdict)| match verdict {
            Verdict::LaterAtEnd(times) => self.hop.offered(to) <= *times,
            _ => false,
        };
        if to.iter().zip(&verdicts).any(waits) || !self.sound && self.random.chance(15) {
            return self.say("451 4.3.0 not now").await;
        }
        // It is taken from here on, whether or not the gateway gets the reply.
        let copies: Vec<_> = self
            .world
            .ledger(|ledger| to.iter().filter_map(|to| laws::taken(ledger, from, to, text)).collect());
        self.world.tell(|| format!("{} took {copies:?} for {to:?}", self.hop.name));
        self.say("250 2.0.0 taken").await?;
        self.world.ledger(|ledger| copies.iter().for_each(|copy| laws::answered(ledger, *copy)));
        Ok(())
    }

    fn random_of(&self, address: &str, what: &str) -> Random {
        Random::of(self.world.seed, &format!("{what} {address}"))
    }
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map_or(String::new(), |(path, _)| path.to_owned())
}
