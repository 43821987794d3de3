//! Reroute: jobs get another next hop, because routes have changed since they were inserted.
//!
//! Recipients that meet at one next hop share a job if their groups are the same.
//!
//! A job in the host's hands keeps its next hop, since its mail may be on the wire. Its remaining recipients are moved
//! when the host calls again.

use std::collections::{BTreeMap, HashMap};

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

/// The jobs of a message by next hop and groups. Those of one key differ in their holds, or are in the host's hands.
type JobsByKey = HashMap<(NextHop, BTreeMap<String, String>), Vec<JobId>>;

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
        let mut by_key = None;
        for id in jobs {
            let Some(entry) = self.jobs.get(id) else { continue };
            let Some(hold) = hold_of(entry) else {
                done.busy |= self.strays(entry, &way).is_some();
                continue;
            };
            let Some((stay, leave)) = self.strays(entry, &way) else { continue };
            let (template, phase) = (template(entry, hold, now), entry.phase);
            let by_key = by_key.get_or_insert_with(|| self.by_key(jobs));
            if stay.is_empty() {
                self.drop_job(*id, phase);
                done.gone.push(*id);
            } else if let Some(entry) = self.jobs.get_mut(id) {
                entry.recipients = stay.into();
            }
            for (next_hop, recipients) in leave {
                done.moved += recipients.len();
                let job = Job { next_hop, recipients: recipients.into(), ..template.clone() };
                done.new.extend(self.join(by_key, job));
            }
        }
        done
    }

    fn by_key(&self, jobs: &[JobId]) -> JobsByKey {
        let mut by_key = JobsByKey::new();
        for id in jobs {
            let Some(entry) = self.jobs.get(id) else { continue };
            let Some(hop) = self.hop(entry.hop) else { continue };
            by_key.entry((hop.name.clone(), groups_of(entry))).or_default().push(*id);
        }
        by_key
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

    /// Adds the recipients of a job to one of these jobs with the same next hop and groups, so that the next hop gets
    /// one copy. Where there is none, inserts the job and gives its id.
    fn join(&mut self, by_key: &mut JobsByKey, job: Job) -> Option<JobId> {
        let same = by_key.entry((job.next_hop.clone(), job.groups.clone())).or_default();
        let fits = |id: &&JobId| self.jobs.get(id).is_some_and(|entry| hold_of(entry) == Some(job.hold));
        let found = same.iter().find(fits).copied();
        if let Some(entry) = found.and_then(|id| self.jobs.get_mut(&id)) {
            entry.recipients = entry.recipients.iter().chain(&job.recipients).copied().collect();
            return None;
        }
        let made = self.insert(job);
        same.push(made);
        Some(made)
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

/// The groups of a job's recipients.
fn groups_of(entry: &QueuedJob) -> BTreeMap<String, String> {
    entry.groups.as_deref().cloned().unwrap_or_default()
}

/// A job like this one, without recipients and next hop.
fn template(entry: &QueuedJob, hold: HoldState, now: UnixTime) -> Job {
    Job {
        message: entry.message,
        next_hop: NextHop::Discard,
        groups: groups_of(entry),
        recipients: Box::default(),
        accepted: entry.accepted,
        attempts: entry.attempts,
        due: now,
        warned: entry.warned,
        hold,
    }
}
