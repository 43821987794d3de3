//! Age: when a job's sender is warned of the delay, and when the job expires. Both apply to waiting and held jobs
//! alike. A job in the host's hands is checked when it comes back.
//!
//! Neither can be undone, so neither depends on one reading of a clock: for a while after the host began, or the clock
//! was set, no age counts. And a job that was never tried here is tried first.

use std::time::Duration;

use pintle_mail::UnixTime;

use crate::job::{Aged, Due, JobId};
use crate::queue::{PendingRequest, Phase, Queue, QueuedJob};
use crate::timeline::hold;

/// When to check a job again that has reached an age and must be tried first.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Queue {
    /// Called when the host begins, and whenever the clock was set: for a while nothing expires. All jobs become
    /// younger by this time ([`ClockStep::younger`](crate::ClockStep::younger)).
    pub fn clock_stepped(&mut self, younger: Duration, now: UnixTime) {
        self.steady_since = now;
        for entry in self.jobs.values_mut() {
            entry.accepted = entry.accepted.plus(younger).min(now);
        }
        self.rearm_all();
    }

    pub(crate) fn rearm_all(&mut self) {
        let armed: Vec<JobId> = self.alarms.iter().map(|(_, id)| *id).collect();
        armed.into_iter().for_each(|id| self.rearm(id));
    }

    /// Sets a job's alarm to its next age that matters, but not before the given time.
    pub(crate) fn arm(&mut self, id: JobId, not_before: UnixTime) {
        let Some(entry) = self.jobs.get(&id) else {
            return;
        };
        let expires = self.reaches(entry, self.config.retry.max_age);
        let age = match entry.phase {
            // Its sender is not warned, and it expires at a time of its own.
            Phase::Quarantined => entry.due,
            // Whether its sender hears of it is the operator's decision.
            Phase::Held => expires,
            _ => self.warns(entry).map_or(expires, |warns| warns.min(expires)),
        };
        let alarm = age.max(not_before);
        self.alarms.insert((alarm, id));
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.alarm = alarm;
        }
    }

    pub(crate) fn disarm(&mut self, id: JobId) {
        if let Some(entry) = self.jobs.get(&id) {
            self.alarms.remove(&(entry.alarm, id));
        }
    }

    /// Takes the first job that has reached an age.
    pub(crate) fn poll_alarm(&mut self, now: UnixTime) -> Option<Due> {
        while let Some(&(at, id)) = self.alarms.first() {
            if at > now {
                return None;
            }
            self.alarms.pop_first();
            if !self.may_end(id) {
                self.make_due(id, now);
                self.arm(id, now.plus(LOOK_AGAIN));
                continue;
            }
            let entry = self.jobs.get(&id)?;
            let has_come = |at: Option<UnixTime>| at.is_some_and(|at| at <= now);
            if entry.phase == Phase::Quarantined || has_come(self.expires(id)) {
                return self.expire(id);
            }
            if entry.phase == Phase::Waiting && has_come(self.warns(entry)) {
                return self.warn(id);
            }
            // Its sender was to be warned, but it has been held since.
            self.arm(id, UnixTime::default());
        }
        None
    }

    /// When the job expires, unless it must be tried first.
    pub(crate) fn expires(&self, id: JobId) -> Option<UnixTime> {
        self.jobs.get(&id).map(|entry| self.reaches(entry, self.config.retry.max_age))
    }

    fn warns(&self, entry: &QueuedJob) -> Option<UnixTime> {
        let after = self.config.retry.warn_after.filter(|_| !entry.warned)?;
        Some(self.reaches(entry, after))
    }

    /// The time from which the job has this age, and the age counts.
    fn reaches(&self, entry: &QueuedJob, age: Duration) -> UnixTime {
        entry.accepted.plus(age).max(self.steady_since.plus(hold(age)))
    }

    /// Whether the job may expire, or its sender be warned: the job was tried here, or its next hop failed as a whole,
    /// or the job is held and cannot be tried.
    pub(crate) fn may_end(&self, id: JobId) -> bool {
        let Some(entry) = self.jobs.get(&id) else {
            return true;
        };
        entry.tried
            || entry.phase != Phase::Waiting
            || self.hop(entry.hop).is_some_and(|hop| hop.back_off.is_some())
    }

    fn warn(&mut self, id: JobId) -> Option<Due> {
        self.jobs.get_mut(&id)?.warned = true;
        self.hand_out(id, Phase::Warning(PendingRequest::Nothing)).map(Due::Warn)
    }

    fn expire(&mut self, id: JobId) -> Option<Due> {
        self.hand_out(id, Phase::Expiring(PendingRequest::Nothing)).map(Due::Expire)
    }

    /// Hands a job out to the host.
    fn hand_out(&mut self, id: JobId, phase: Phase) -> Option<Aged> {
        let entry = self.jobs.get_mut(&id)?;
        let (was, key, hop) = (entry.phase, (entry.due, id), entry.hop);
        entry.phase = phase;
        self.hop_mut(hop, |hop| match was {
            Phase::Held | Phase::Quarantined => hop.held -= 1,
            _ => {
                hop.waiting.remove(&key);
            }
        });
        self.schedule_hop(hop);
        self.aged(id, was == Phase::Quarantined)
    }

    fn aged(&self, id: JobId, quarantined: bool) -> Option<Aged> {
        let QueuedJob { message, hop, recipients, accepted, .. } = self.jobs.get(&id)?;
        Some(Aged {
            id,
            message: *message,
            next_hop: self.hop(*hop)?.name.clone(),
            recipients: recipients.clone(),
            accepted: *accepted,
            quarantined,
        })
    }
}
