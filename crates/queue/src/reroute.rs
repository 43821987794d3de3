//! Another way for jobs that have one already: routes have changed since they came.
//!
//! A job in the host's hands keeps its next hop, since its mail may be on the wire. What remains of it is moved when the
//! host asks again.

use std::collections::BTreeMap;

use pintle_mail::{NextHop, UnixTime};

use crate::job::{HoldState, Job, JobId};
use crate::queue::{Phase, Queue, QueuedJob};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rerouted {
    /// Jobs that were made for recipients on a new way.
    pub new: Vec<JobId>,
    /// Jobs that have lost their last recipient to others, and are gone.
    pub gone: Vec<JobId>,
    /// Recipients that go another way than before.
    pub moved: usize,
    /// A job is in the host's hands: ask again when it has come back.
    pub busy: bool,
}

/// Recipients by the next hop that they leave for.
type Leaving = BTreeMap<NextHop, Vec<u32>>;

impl Queue {
    /// Sends the recipients of these jobs, all of one message, where `way` says; one for whom it says nothing stays. On its new
    /// way a free job is due at once, since what it waited for was said by the next hop that it leaves, and it is tried
    /// there before its age ends it. Held ones stay held.
    pub fn reroute(
        &mut self,
        jobs: &[JobId],
        way: impl Fn(u32) -> Option<NextHop>,
        now: UnixTime,
    ) -> Rerouted {
        let mut done = Rerouted::default();
        let mut all = jobs.to_vec();
        for id in jobs {
            let Some(entry) = self.jobs.get(id) else { continue };
            let Some(hold) = hold_of(entry) else {
                done.busy |= self.strays(entry, &way).is_some();
                continue;
            };
            let Some((stay, leave)) = self.strays(entry, &way) else { continue };
            let (template, phase) = (template(entry, hold, now), entry.phase);
            if stay.is_empty() {
                self.drop_job(*id, phase);
                done.gone.push(*id);
            } else if let Some(entry) = self.jobs.get_mut(id) {
                entry.recipients = stay.into();
            }
            for (next_hop, recipients) in leave {
                done.moved += recipients.len();
                if let Some(made) =
                    self.join(&all, Job { next_hop, recipients: recipients.into(), ..template.clone() })
                {
                    all.push(made);
                    done.new.push(made);
                }
            }
        }
        done
    }

    /// Who stays, and who leaves for which next hop; nothing when all stay.
    fn strays(
        &self,
        entry: &QueuedJob,
        way: &impl Fn(u32) -> Option<NextHop>,
    ) -> Option<(Vec<u32>, Leaving)> {
        let here = &self.hop(entry.hop)?.name;
        let (mut stay, mut leave) = (Vec::new(), Leaving::new());
        for recipient in &entry.recipients {
            match way(*recipient).filter(|there| there != here) {
                None => stay.push(*recipient),
                Some(there) => leave.entry(there).or_default().push(*recipient),
            }
        }
        (!leave.is_empty()).then_some((stay, leave))
    }

    /// Puts the recipients of a job into one of these that goes the same way, so that the next hop gets one copy; or inserts
    /// the job, and gives its name.
    fn join(&mut self, jobs: &[JobId], job: Job) -> Option<JobId> {
        let hop = self.by_name.get(&job.next_hop).copied();
        let fits = |entry: &QueuedJob| Some(entry.hop) == hop && hold_of(entry) == Some(job.hold);
        let found = jobs.iter().find(|id| self.jobs.get(id).is_some_and(fits)).copied();
        match found.and_then(|id| self.jobs.get_mut(&id)) {
            Some(entry) => {
                entry.recipients = entry.recipients.iter().chain(&job.recipients).copied().collect();
                None
            }
            None => Some(self.insert(job)),
        }
    }
}

/// How a job is kept that is in our hands.
fn hold_of(entry: &QueuedJob) -> Option<HoldState> {
    match entry.phase {
        Phase::Waiting => Some(HoldState::Free),
        Phase::Held => Some(HoldState::Held),
        Phase::Quarantined => Some(HoldState::Quarantined(entry.due)),
        Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) => None,
    }
}

/// A job like this one, for nobody and nowhere yet.
fn template(entry: &QueuedJob, hold: HoldState, now: UnixTime) -> Job {
    Job {
        message: entry.message,
        next_hop: NextHop::Discard,
        recipients: Box::default(),
        accepted: entry.accepted,
        attempts: entry.attempts,
        due: now,
        warned: entry.warned,
        hold,
    }
}
