//! Age: when a job's sender is to be warned, and when the job expires. It holds for waiting and held jobs alike; a job in
//! the host's hands is looked at when it comes back.

use pintle_mail::UnixTime;

use crate::job::{Aged, Due, JobId};
use crate::queue::{Entry, Phase, Queue, Wish};

impl Queue {
    /// Enters a job into the order of alarms, at its next age that matters, but not before the given time.
    pub(crate) fn arm(&mut self, id: JobId, not_before: UnixTime) {
        let retry = &self.config.retry;
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let expires = entry.accepted.plus(retry.max_age);
        let warns = retry.warn_after.filter(|_| !entry.warned);
        let age = match entry.phase {
            // Nobody is told that it takes long, and it has a time of its own.
            Phase::Quarantined => entry.due,
            _ => warns.map_or(expires, |after| entry.accepted.plus(after).min(expires)),
        };
        entry.alarm = age.max(not_before);
        self.alarms.insert((entry.alarm, id));
    }

    pub(crate) fn disarm(&mut self, id: JobId) {
        if let Some(entry) = self.jobs.get(&id) {
            self.alarms.remove(&(entry.alarm, id));
        }
    }

    /// The first job that has reached an age.
    pub(crate) fn poll_alarm(&mut self, now: UnixTime) -> Option<Due> {
        let &(at, id) = self.alarms.first()?;
        if at > now {
            return None;
        }
        self.alarms.pop_first();
        let entry = self.jobs.get(&id)?;
        let expired = entry.accepted.plus(self.config.retry.max_age) <= now;
        if expired || entry.phase == Phase::Quarantined { self.expire(id) } else { self.warn(id) }
    }

    fn warn(&mut self, id: JobId) -> Option<Due> {
        self.jobs.get_mut(&id)?.warned = true;
        self.arm(id, UnixTime::default());
        self.aged(id).map(Due::Warn)
    }

    fn expire(&mut self, id: JobId) -> Option<Due> {
        let entry = self.jobs.get_mut(&id)?;
        let (was, key, hop) = (entry.phase, (entry.due, id), entry.hop);
        entry.phase = Phase::Expiring(Wish::GoOn);
        self.hop_mut(hop, |hop| match was {
            Phase::Held | Phase::Quarantined => hop.held -= 1,
            _ => {
                hop.waiting.remove(&key);
            }
        });
        self.seat(hop);
        self.aged(id).map(Due::Expire)
    }

    fn aged(&self, id: JobId) -> Option<Aged> {
        let Entry { message, hop, recipients, accepted, .. } = self.jobs.get(&id)?;
        Some(Aged {
            id,
            message: *message,
            next_hop: self.hop(*hop)?.name.clone(),
            recipients: recipients.clone(),
            accepted: *accepted,
        })
    }
}
