//! One batch's rows: each operation as SQL, inside the transaction that the committer opened.

use pintle_mail::QueueId;

use super::database::{Database, MessageRow, Touched};
use super::operation::{Amendment, Operation};
use super::segments::Place;
use crate::content::Source;
use crate::fault::{CrashPoint, Faults};
use crate::{Change, Hold, NewMessage, Settlement, SpoolError, Status, Waiting};
use pintle_mail::Body;

/// What an operation has made true once the transaction is committed, besides the messages that it brought.
#[derive(Default)]
pub(crate) struct Effect {
    /// Messages that are no longer as they were committed.
    pub(crate) changed: Option<QueueId>,
    /// A message that is gone.
    pub(crate) removed: Option<Gone>,
    /// A record that lies elsewhere now.
    pub(crate) moved: Option<(Place, Place)>,
    /// A message that was asked to be held or released.
    pub(crate) reheld: Option<Reheld>,
    /// A message that became pending.
    pub(crate) announced: Option<Waiting>,
}

/// How a message is held, before and from now on.
pub(crate) struct Reheld {
    pub(crate) size: u64,
    pub(crate) before: Option<Hold>,
    pub(crate) now: Option<Hold>,
}

impl Effect {
    /// What held the message before, for whoever asked.
    pub(crate) fn before(&self) -> Option<Hold> {
        self.reheld.as_ref().and_then(|change| change.before.clone())
    }
}

/// A message whose row is gone.
pub(crate) struct Gone {
    pub(crate) id: QueueId,
    pub(crate) place: Place,
    pub(crate) file: Option<String>,
    pub(crate) size: u64,
    pub(crate) hold: Option<Hold>,
    /// Set aside, so its file stays.
    pub(crate) damaged: bool,
}

/// The open transaction.
pub(crate) struct Transaction<'a> {
    database: &'a Database,
    places: std::slice::Iter<'a, Place>,
    faults: &'a Faults,
}

impl<'a> Transaction<'a> {
    /// `places` are those of the batch's records, in order.
    pub(crate) fn new(database: &'a Database, places: &'a [Place], faults: &'a Faults) -> Self {
        Self { database, places: places.iter(), faults }
    }

    /// Carries out one operation. The outer error ends the batch; the inner one concerns this operation alone, of which
    /// nothing has then been done.
    pub(crate) fn execute(
        &mut self,
        operation: &Operation,
    ) -> Result<Result<Effect, SpoolError>, SpoolError> {
        // An operation of several statements that may be refused half way needs a way back of its own.
        let guarded = operation.messages().len() > 1
            || matches!(operation, Operation::Settle(s, _) if !s.children.is_empty());
        if guarded {
            self.database.execute("SAVEPOINT operation")?;
        }
        let result = self.carry_out(operation);
        if guarded && result.is_err() {
            self.database.execute("ROLLBACK TO operation")?;
        }
        if guarded {
            self.database.execute("RELEASE operation")?;
        }
        match result {
            Err(error) if !is_refusal(&error) => Err(error),
            result => Ok(result),
        }
    }

    fn carry_out(&mut self, operation: &Operation) -> Result<Effect, SpoolError> {
        match operation {
            Operation::Commit(messages, _) => {
                self.insert(messages)?;
                Ok(Effect::default())
            }
            Operation::Settle(settlement, _) => self.settle(settlement),
            Operation::Amend(id, amendment, _) => self.amend(*id, amendment),
            Operation::SetAside(id, what) => self.set_aside(*id, what),
            Operation::Move(id, from, _) => self.relocate(*id, *from),
        }
    }

    fn insert(&mut self, messages: &[NewMessage]) -> Result<(), SpoolError> {
        // Places are taken before anything can fail, so that the next operation finds its own.
        let places: Vec<Place> = self.places.by_ref().take(messages.len()).copied().collect();
        for (message, place) in messages.iter().zip(places) {
            let file = match message.content.source() {
                Source::File(_, own) => own.name(),
                Source::Memory(_) => None,
            };
            let size = message.head.len() as u64 + message.content.size();
            self.database.insert(message.id, &message.entry, place, size, file)?;
            self.pass(CrashPoint::Inserted)?;
        }
        Ok(())
    }

    fn settle(&mut self, settlement: &Settlement) -> Result<Effect, SpoolError> {
        let id = settlement.id;
        // Children first: in whatever order a reader goes through this, a mark never stands without them.
        self.insert(&settlement.children)?;
        let row = self.database.message(id)?;
        settlement.guard.check(id, row.hold(id)?.as_ref())?;
        let numbers = row.numbers(id)?;
        let touched = self.touched(id, &row)?;
        check_numbers(id, settlement.changes.iter().map(|change| change.recipient), &numbers)?;
        let tally = Settling::new(&numbers, &touched, &settlement.changes);
        let effect =
            if tally.open == 0 { self.remove(id, row)? } else { self.mark(id, &row, &tally.effective)? };
        self.pass(CrashPoint::Settled)?;
        Ok(effect)
    }

    fn remove(&self, id: QueueId, row: MessageRow) -> Result<Effect, SpoolError> {
        self.database.remove(id, row.touched)?;
        Ok(Effect { changed: Some(id), removed: Some(Gone::new(id, row)), ..Effect::default() })
    }

    fn mark(&self, id: QueueId, row: &MessageRow, changes: &[&Change]) -> Result<Effect, SpoolError> {
        for change in changes {
            self.database.set_status(id, change.recipient, &change.status)?;
        }
        if !row.touched && !changes.is_empty() {
            self.database.set_touched(id)?;
        }
        Ok(Effect { changed: Some(id), ..Effect::default() })
    }

    fn touched(&self, id: QueueId, row: &MessageRow) -> Result<Vec<Touched>, SpoolError> {
        if row.touched { self.database.touched(id) } else { Ok(Vec::new()) }
    }

    fn amend(&self, id: QueueId, amendment: &Amendment) -> Result<Effect, SpoolError> {
        let row = self.database.message(id)?;
        let mut effect = Effect { changed: Some(id), ..Effect::default() };
        match amendment {
            Amendment::Hold(hold) => effect.reheld = Some(self.hold(id, &row, hold)?),
            Amendment::Release(_) if row.hold.is_none() => {}
            Amendment::Release(at) => {
                let before = row.hold(id)?;
                let at = before.as_ref().and_then(Hold::quarantine).map(|_| *at);
                self.database.release(id, at)?;
                effect.reheld = Some(Reheld { size: row.size, before, now: None });
                effect.announced = Some(self.waiting(id)?);
            }
            Amendment::Reroute(recipients, next_hop) => {
                let numbers = row.numbers(id)?;
                check_numbers(id, recipients.iter().copied(), &numbers)?;
                let chosen = if recipients.is_empty() { &numbers } else { recipients };
                for number in chosen {
                    self.database.set_route(id, *number, next_hop.as_ref())?;
                }
                self.database.set_touched(id)?;
            }
        }
        Ok(effect)
    }

    fn hold(&self, id: QueueId, row: &MessageRow, hold: &Hold) -> Result<Reheld, SpoolError> {
        let before = row.hold(id)?;
        let now = if hold.replaces(before.as_ref()) { Some(hold.clone()) } else { before.clone() };
        self.database.set_hold(id, now.as_ref())?;
        Ok(Reheld { size: row.size, before, now })
    }

    /// The message as it stands within this transaction.
    fn waiting(&self, id: QueueId) -> Result<Waiting, SpoolError> {
        let row = self.database.message(id)?;
        let entry = row.entry(id, pintle_mail::Bytes::new())?;
        let states = self.database.states(id, row.touched, &entry)?;
        Ok(Waiting::new(id, &entry, row.size, &states))
    }

    fn set_aside(&self, id: QueueId, what: &str) -> Result<Effect, SpoolError> {
        let row = self.database.message(id)?;
        self.database.set_aside(id, what)?;
        tracing::error!(
            %id, what,
            "A MESSAGE IN THE SPOOL IS DAMAGED and was set aside: its row is in the table `damaged`"
        );
        let damaged = Gone { damaged: true, ..Gone::new(id, row) };
        Ok(Effect { changed: Some(id), removed: Some(damaged), ..Effect::default() })
    }

    fn relocate(&mut self, id: QueueId, from: Place) -> Result<Effect, SpoolError> {
        let Some(to) = self.places.next().copied() else {
            return Ok(Effect::default());
        };
        self.pass(CrashPoint::Moved)?;
        let moved = self.database.relocate(id, from, to)?;
        Ok(Effect { moved: moved.then_some((from, to)), ..Effect::default() })
    }

    fn pass(&self, point: CrashPoint) -> Result<(), SpoolError> {
        self.faults.check(point).map_err(|error| SpoolError::from_io(&error))
    }
}

impl Gone {
    fn new(id: QueueId, row: MessageRow) -> Self {
        // A hold that cannot be read has been counted as none, if the message was counted at all.
        let hold = row.hold(id).unwrap_or_default();
        Self { id, place: row.place, file: row.file, size: row.size, hold, damaged: false }
    }
}

/// A settlement weighed against what is known: which changes count, and how many recipients stay open.
struct Settling<'a> {
    effective: Vec<&'a Change>,
    open: usize,
}

impl<'a> Settling<'a> {
    fn new(numbers: &[u32], touched: &[Touched], changes: &'a [Change]) -> Self {
        let done = touched.iter().filter(|(_, status, _)| matches!(status, Some(Status::Done(_))));
        let mut done: Vec<u32> = done.map(|(number, ..)| *number).collect();
        let mut effective = Vec::with_capacity(changes.len());
        for change in changes {
            if done.contains(&change.recipient) {
                continue;
            }
            effective.push(change);
            if change.status.pending().is_none() {
                done.push(change.recipient);
            }
        }
        let open = numbers.iter().filter(|number| !done.contains(number)).count();
        Self { effective, open }
    }
}

fn check_numbers(id: QueueId, asked: impl Iterator<Item = u32>, known: &[u32]) -> Result<(), SpoolError> {
    for number in asked {
        if !known.contains(&number) {
            return Err(SpoolError::UnknownRecipient(id, number));
        }
    }
    Ok(())
}

/// The caller's business, or one message's; everything else is the store's and ends the batch.
fn is_refusal(error: &SpoolError) -> bool {
    matches!(
        error,
        SpoolError::Unknown(_)
            | SpoolError::UnknownRecipient(..)
            | SpoolError::Duplicate(_)
            | SpoolError::Damaged(..)
            | SpoolError::HoldChanged(_)
    )
}
