//! Reroute: jobs get another next hop, because routes have changed since they were inserted.
//!
//! A job in the host's hands keeps its next hop, since its mail may be on the wire. Its remaining recipients are moved
//! when the host calls again.

use std::collections::BTreeMap;

use pintle_mail::{NextHop, UnixTime};

use crate::job::{HoldState, Job, JobId};
use crate::queue::{Phase, Queue, QueuedJob};

/// The result of a reroute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rerouted {
    /// Jobs that were made for recipients with a new next hop.
    pub new: Vec<JobId>,
    /// Jobs that have lost their last recipient to others, and were removed.
    pub gone: Vec<JobId>,
    /// Number of recipients with a new next hop.
    pub moved: usize,
    /// Whether a job is in the host's hands: call again when it has come back.
    pub busy: bool,
}

/// Recipients by their new next hop.
type Leaving = BTreeMap<NextHop, Vec<u32>>;

impl Queue {
    /// Sends the recipients of these jobs, all of one message, to the next hop that `way` gives. Recipients for which
    /// it gives none stay. A job with a new next hop is due at once, since its wait was for the old one, and it is
    /// tried there before it can expire by age. Held jobs stay held.
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

    /// Splits recipients into those who stay and those who leave. None when all stay.
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

    /// Adds the recipients of a job to one of these jobs with the same next hop, so that the next hop gets one copy.
    /// Where there is none, inserts the job and gives its id.
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

/// The hold state of a job. None while it is in the host's hands.
fn hold_of(entry: &QueuedJob) -> Option<HoldState> {
    match entry.phase {
        Phase::Waiting => Some(HoldState::Free),
        Phase::Held => Some(HoldState::Held),
        Phase::Quarantined => Some(HoldState::Quarantined(entry.due)),
        Phase::Trying(_) | Phase::Warning(_) | Phase::Expiring(_) => None,
    }
}

/// A job like this one, without recipients and next hop.
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
