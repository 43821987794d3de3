//! Operators' commands on queued jobs: hold, release, retry, remove. A job in the host's hands stays there, and the
//! request is carried out when it comes back.

use pintle_mail::UnixTime;

use crate::config::Config;
use crate::job::JobId;
use crate::queue::{PendingRequest, Phase, Queue};

impl Queue {
    /// Holds a job until it is released or expires. A quarantine takes precedence over a hold.
    pub fn hold(&mut self, id: JobId) {
        match self.phase(id) {
            Some(Phase::Waiting) => self.park(id, Phase::Held),
            Some(Phase::Trying(PendingRequest::Remove | PendingRequest::Quarantine))
            | Some(Phase::Warning(PendingRequest::Remove | PendingRequest::Quarantine)) => {}
            Some(Phase::Trying(_) | Phase::Warning(_)) => self.request(id, PendingRequest::Hold),
            Some(Phase::Expiring(_) | Phase::Held | Phase::Quarantined) | None => {}
        }
    }

    /// Holds a job until it is released, and lets it expire at this time, whatever its age.
    pub fn quarantine(&mut self, id: JobId, until: UnixTime) {
        match self.phase(id) {
            Some(Phase::Waiting) => {
                self.park(id, Phase::Quarantined);
                self.redate(id, until);
            }
            Some(Phase::Held | Phase::Quarantined) => {
                self.set_phase(id, Phase::Quarantined);
                self.redate(id, until);
            }
            Some(
                Phase::Trying(PendingRequest::Remove)
                | Phase::Warning(PendingRequest::Remove)
                | Phase::Expiring(_),
            )
            | None => {}
            Some(Phase::Trying(_) | Phase::Warning(_)) => {
                self.request(id, PendingRequest::Quarantine);
                if let Some(entry) = self.jobs.get_mut(&id) {
                    entry.due = until;
                }
            }
        }
    }

    /// Changes the time at which a job in a quarantine expires. Other jobs stay as they are.
    pub fn keep_until(&mut self, id: JobId, until: UnixTime) {
        if self.phase(id) == Some(Phase::Quarantined) {
            self.redate(id, until);
        }
    }

    /// Releases a held job, which is then due at once. With `since`, as for a job out of a quarantine, its age counts
    /// from there.
    pub fn release(&mut self, id: JobId, since: Option<UnixTime>, now: UnixTime) {
        match self.phase(id) {
            Some(Phase::Held | Phase::Quarantined) => self.unpark(id, now),
            Some(Phase::Trying(
                PendingRequest::Nothing | PendingRequest::Hold | PendingRequest::Quarantine,
            ))
            | Some(Phase::Warning(
                PendingRequest::Nothing | PendingRequest::Hold | PendingRequest::Quarantine,
            ))
            | Some(Phase::Expiring(PendingRequest::Nothing)) => self.request(id, PendingRequest::Release),
            Some(Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) | Phase::Waiting) | None => {}
        }
        self.reset_age(id, since);
    }

    /// Makes a waiting job due at once, and ends the back-off of its next hop. A held job stays held.
    pub fn retry_now(&mut self, id: JobId, now: UnixTime) {
        match self.phase(id) {
            Some(Phase::Waiting) => self.make_due(id, now),
            Some(
                Phase::Trying(PendingRequest::Nothing | PendingRequest::Release)
                | Phase::Warning(PendingRequest::Nothing | PendingRequest::Release),
            ) => {
                self.request(id, PendingRequest::Retry);
            }
            Some(
                Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) | Phase::Held | Phase::Quarantined,
            )
            | None => {}
        }
    }

    /// Removes a job, for example after an operator has bounced its message. One in the host's hands is removed when it
    /// is recorded.
    pub fn remove(&mut self, id: JobId) {
        match self.phase(id) {
            Some(phase @ (Phase::Waiting | Phase::Held | Phase::Quarantined)) => self.drop_job(id, phase),
            Some(Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_)) => {
                self.request(id, PendingRequest::Remove)
            }
            None => {}
        }
    }

    /// Replaces the configuration. Attempts under way above a lowered limit may finish.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        for id in (0..).zip(&mut self.hops).map(|(id, _)| crate::hop::HopId(id)).collect::<Vec<_>>() {
            let Some(limit) = self.hop(id).map(|hop| self.config.limit_of(&hop.name)) else {
                continue;
            };
            self.hop_mut(id, |hop| hop.limit = limit);
            self.schedule_hop(id);
        }
        self.rearm_all();
    }

    fn phase(&self, id: JobId) -> Option<Phase> {
        self.jobs.get(&id).map(|entry| entry.phase)
    }

    fn request(&mut self, id: JobId, request: PendingRequest) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.phase = entry.phase.with_request(request);
        }
    }

    fn set_phase(&mut self, id: JobId, phase: Phase) {
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.phase = phase;
        }
    }

    /// Removes a waiting job from the order of due times.
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
        self.schedule_hop(hop);
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
        self.schedule_hop(hop);
    }

    /// Sets the time at which a job in a quarantine expires.
    fn redate(&mut self, id: JobId, until: UnixTime) {
        self.disarm(id);
        if let Some(entry) = self.jobs.get_mut(&id) {
            entry.due = until;
        }
        self.arm(id, UnixTime::default());
    }

    /// Lets a job's age count from this time.
    fn reset_age(&mut self, id: JobId, since: Option<UnixTime>) {
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

    pub(crate) fn make_due(&mut self, id: JobId, now: UnixTime) {
        let Some(entry) = self.jobs.get_mut(&id) else {
            return;
        };
        let (hop, key) = (entry.hop, (entry.due, id));
        entry.due = entry.due.min(now);
        let due = entry.due;
        self.hop_mut(hop, |hop| {
            hop.waiting.remove(&key);
            hop.waiting.insert((due, id));
            if let Some(back_off) = &mut hop.back_off {
                back_off.until = back_off.until.min(now);
            }
        });
        self.schedule_hop(hop);
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
        self.schedule_hop(hop);
    }
}
