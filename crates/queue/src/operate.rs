//! What an operator does to queued jobs: hold, release, retry, remove. A job in the host's hands is not snatched away;
//! the wish is kept and obeyed when it comes back.

use pintle_mail::{NextHop, QueueId, UnixTime};

use crate::config::Config;
use crate::job::JobId;
use crate::queue::{Phase, Queue, Wish};

/// Which jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All of them.
    Everything,
    /// All of one message.
    Message(QueueId),
    /// All for one next hop.
    NextHop(NextHop),
    /// This one.
    Job(JobId),
}

impl Queue {
    /// Keeps jobs back until they are released or expire. Gives how many it touched. A quarantine is the stronger word.
    pub fn hold(&mut self, which: &Selector) -> usize {
        self.for_each(which, |queue, id, phase| match phase {
            Phase::Waiting => queue.park(id, Phase::Held),
            Phase::Trying(Wish::Remove | Wish::Quarantine)
            | Phase::Warning(Wish::Remove | Wish::Quarantine) => {}
            Phase::Trying(_) | Phase::Warning(_) => queue.set_phase(id, phase.wishing(Wish::Hold)),
            Phase::Expiring(_) | Phase::Held | Phase::Quarantined => {}
        })
    }

    /// Keeps jobs back until they are released, and lets them expire at this time, whatever their age. Gives how many it
    /// touched.
    pub fn quarantine(&mut self, which: &Selector, until: UnixTime) -> usize {
        self.for_each(which, |queue, id, phase| match phase {
            Phase::Waiting => {
                queue.park(id, Phase::Quarantined);
                queue.redate(id, until);
            }
            Phase::Held | Phase::Quarantined => {
                queue.set_phase(id, Phase::Quarantined);
                queue.redate(id, until);
            }
            Phase::Trying(Wish::Remove) | Phase::Warning(Wish::Remove) | Phase::Expiring(_) => {}
            Phase::Trying(_) | Phase::Warning(_) => {
                queue.set_phase(id, phase.wishing(Wish::Quarantine));
                if let Some(entry) = queue.jobs.get_mut(&id) {
                    entry.due = until;
                }
            }
        })
    }

    /// Gives those jobs that are in quarantine another end of their time; no others. Gives how many it looked at.
    pub fn keep_until(&mut self, which: &Selector, until: UnixTime) -> usize {
        self.for_each(which, |queue, id, phase| {
            if phase == Phase::Quarantined {
                queue.redate(id, until);
            }
        })
    }

    /// Lets held jobs go on; they are due at once. Their age counts from `since`, where that is given: out of a
    /// quarantine. Gives how many it touched.
    pub fn release(&mut self, which: &Selector, since: Option<UnixTime>, now: UnixTime) -> usize {
        self.for_each(which, |queue, id, phase| {
            match phase {
                Phase::Held | Phase::Quarantined => queue.unpark(id, now),
                Phase::Trying(Wish::GoOn | Wish::Hold | Wish::Quarantine)
                | Phase::Warning(Wish::GoOn | Wish::Hold | Wish::Quarantine)
                | Phase::Expiring(Wish::GoOn) => queue.set_phase(id, phase.wishing(Wish::Release)),
                Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) | Phase::Waiting => {}
            }
            queue.rejuvenate(id, since);
        })
    }

    /// Makes waiting jobs due at once and lifts what puts off their next hops. Held jobs stay held. Gives how many it
    /// touched.
    pub fn retry_now(&mut self, which: &Selector, now: UnixTime) -> usize {
        self.for_each(which, |queue, id, phase| match phase {
            Phase::Waiting => queue.hasten(id, now),
            Phase::Trying(Wish::GoOn | Wish::Release) | Phase::Warning(Wish::GoOn | Wish::Release) => {
                queue.set_phase(id, phase.wishing(Wish::Retry));
            }
            Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) | Phase::Held | Phase::Quarantined => {}
        })
    }

    /// Forgets jobs, say after the operator had them bounced. Those under way go when they are recorded. Gives how many
    /// it touched.
    pub fn remove(&mut self, which: &Selector) -> usize {
        self.for_each(which, |queue, id, phase| match phase {
            Phase::Waiting | Phase::Held | Phase::Quarantined => queue.drop_job(id, phase),
            Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) => {
                queue.set_phase(id, phase.wishing(Wish::Remove));
            }
        })
    }

    /// Takes a new configuration; what is under way above a lowered limit is let finish.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        for id in (0..).zip(&mut self.hops).map(|(id, _)| crate::hop::HopId(id)).collect::<Vec<_>>() {
            let Some(limit) = self.hop(id).map(|hop| self.config.limit_of(&hop.name)) else {
                continue;
            };
            self.hop_mut(id, |hop| hop.limit = limit);
            self.seat(id);
        }
        self.rearm_all();
    }

    fn for_each(&mut self, which: &Selector, mut act: impl FnMut(&mut Self, JobId, Phase)) -> usize {
        let chosen = self.select(which);
        for &(id, phase) in &chosen {
            act(self, id, phase);
        }
        chosen.len()
    }

    /// A walk over all jobs serves: an operator's command may take a millisecond, and an index by message would cost
    /// every job its memory.
    fn select(&self, which: &Selector) -> Vec<(JobId, Phase)> {
        if let Selector::Job(id) = which {
            return self.jobs.get(id).map(|entry| (*id, entry.phase)).into_iter().collect();
        }
        self.jobs
            .iter()
            .filter(|(id, entry)| self.matches(which, **id, entry))
            .map(|(id, entry)| (*id, entry.phase))
            .collect()
    }

    fn set_phase(&mut self, id: JobId, phase: Phase) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.phase = phase;
        }
    }

    /// Takes a waiting job out of the order of due times.
    fn park(&mut self, id: JobId, phase: Phase) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let (hop, key) = (entry.hop, (entry.due, id));
        entry.phase = phase;
        self.hop_mut(hop, |hop| {
            hop.waiting.remove(&key);
            hop.held += 1;
        });
        self.seat(hop);
    }

    fn unpark(&mut self, id: JobId, now: UnixTime) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let hop = entry.hop;
        entry.phase = Phase::Waiting;
        entry.due = now;
        self.hop_mut(hop, |hop| {
            hop.waiting.insert((now, id));
            hop.held -= 1;
        });
        self.rearm(id);
        self.seat(hop);
    }

    /// Says when a job in quarantine expires.
    fn redate(&mut self, id: JobId, until: UnixTime) {
        self.disarm(id);
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.due = until;
        }
        self.arm(id, UnixTime::default());
    }

    /// Lets a job's age count from another time.
    fn rejuvenate(&mut self, id: JobId, since: Option<UnixTime>) {
        let Some((entry, since)) = self.jobs.get_mut(&id).zip(since) else {
            return;
        };
        entry.accepted = since;
        if entry.phase == Phase::Waiting {
            self.rearm(id);
        }
    }

    pub(crate) fn rearm(&mut self, id: JobId) {
        self.disarm(id);
        self.arm(id, UnixTime::default());
    }

    pub(crate) fn hasten(&mut self, id: JobId, now: UnixTime) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let (hop, key) = (entry.hop, (entry.due, id));
        entry.due = entry.due.min(now);
        let due = entry.due;
        self.hop_mut(hop, |hop| {
            hop.waiting.remove(&key);
            hop.waiting.insert((due, id));
            if let Some(trouble) = &mut hop.trouble {
                trouble.until = trouble.until.min(now);
            }
        });
        self.seat(hop);
    }

    pub(crate) fn drop_job(&mut self, id: JobId, phase: Phase) {
        let Some(entry) = self.jobs.get(&id) else { return };
        let (hop, key) = (entry.hop, (entry.due, id));
        self.hop_mut(hop, |hop| match phase {
            Phase::Held | Phase::Quarantined => hop.held -= 1,
            _ => {
                hop.waiting.remove(&key);
            }
        });
        self.forget(id);
        self.seat(hop);
    }
}
