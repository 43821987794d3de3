//! The scheduler: which job is due, for which next hop, how many at once, when again, and what has grown too old.
//!
//! It promises: no job is forgotten until the host says that it is settled; no attempt begins before its time or above
//! a limit; next hops take turns, so that neither a slow one nor a huge one starves the others; a next hop in trouble is
//! asked by one probe at a time; and a job older than the maximum age comes out as expired in whatever state it is, but
//! not for a clock that was set, and not before it was tried. It knows no clock, no dice, no store and no network: the host brings the time and the dice, and makes every change
//! durable before it tells the queue. What is here can be rebuilt from the spool by inserting it again.

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
