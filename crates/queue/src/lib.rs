//! The scheduler: which job is due, for which next hop, within which concurrency limits, when to retry, and what
//! expires.
//!
//! Its promises: no job is forgotten until the host reports that it is settled. No attempt begins before its time or
//! above a limit. Next hops take turns (round robin), so that neither a slow one nor a huge one starves the others. A
//! next hop that fails as a whole gets a back-off, then one probe at a time. And a job older than the maximum age
//! expires in whatever state it is, but not because a clock was set, and not before it was tried.
//!
//! It has no clock, no dice, no store and no network: the host brings the time and the dice, and makes every change
//! durable before it tells the queue. Its state can be rebuilt from the spool by inserting the jobs again.

mod age;
mod config;
mod hop;
mod job;
mod operate;
mod queue;
mod reroute;
mod timeline;
mod view;

pub use config::{Config, RetryPolicy};
pub use job::{Again, Aged, Attempt, AttemptReport, Due, HoldState, HopSign, Job, JobId, Next};
pub use queue::Queue;
pub use reroute::Rerouted;
pub use timeline::{ClockStep, Reading, Timeline, hold};
pub use view::{HopView, JobPhase, JobView, Snapshot};
