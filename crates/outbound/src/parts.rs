//! What outbound is built from, and what all of its tasks share: configuration, spool, resolver, plugins, event log,
//! clocks, the connection pool and the reservations in quarantines.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_dns::Resolver;
use pintle_mail::QueueId;
use pintle_policy::Chain;
use pintle_record::{NoRecords, Record, RecordSink};
use pintle_spool::{HoldReason, Spool};
use pintle_tls::ClientTls;
use tokio::sync::mpsc::WeakUnboundedSender;

use crate::clock::{self, Ages};
use crate::commands::RunnerCommand;
use crate::context_changes::ContextCommits;
use crate::host_defects::HostDefects;
use crate::quota::QuotaReservations;
use crate::session_pool::SessionPool;
use crate::{Capture, Clock, Config, Network, RandomSource, SystemClock, SystemNetwork};

/// What outbound is built from. A test can replace each part.
pub struct OutboundParts {
    /// The store of messages.
    pub spool: Arc<dyn Spool>,
    /// Finds the hosts of next hops and their addresses.
    pub resolver: Arc<dyn Resolver>,
    /// The client side of TLS.
    pub tls: ClientTls,
    /// The plugins that are asked before and after each attempt. A new chain is used from the next attempt on.
    pub chain: Arc<ArcSwap<Chain>>,
    /// The event log, which gets a record of the disposition of each recipient.
    pub records: Arc<dyn RecordSink>,
    /// Takes messages in place of the next hops, if there is one.
    pub capture: Option<Arc<dyn Capture>>,
    /// Connects to next hops.
    pub network: Arc<dyn Network>,
    /// The wall clock and the monotonic clock.
    pub clock: Arc<dyn Clock>,
    /// Random numbers for queue ids and the jitter of retries.
    pub random: RandomSource,
}

impl OutboundParts {
    /// These three parts, and the defaults for the others: no plugins, no event log, no capture, the system's network
    /// and clocks.
    #[must_use]
    pub fn new(spool: Arc<dyn Spool>, resolver: Arc<dyn Resolver>, tls: ClientTls) -> Self {
        Self {
            spool,
            resolver,
            tls,
            chain: Arc::new(ArcSwap::from_pointee(Chain::default())),
            records: Arc::new(NoRecords),
            capture: None,
            network: Arc::new(SystemNetwork),
            clock: Arc::new(SystemClock),
            random: clock::system_random(),
        }
    }
}

/// What all tasks of outbound share.
pub(crate) struct OutboundShared {
    pub(crate) config: ArcSwap<Config>,
    pub(crate) tls: ArcSwap<ClientTls>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) chain: Arc<ArcSwap<Chain>>,
    pub(crate) records: Arc<dyn RecordSink>,
    pub(crate) capture: Option<Arc<dyn Capture>>,
    pub(crate) network: Arc<dyn Network>,
    /// The time of day by the wall clock, for what people and other hosts read.
    pub(crate) clock: Arc<dyn Clock>,
    /// The time by which messages age.
    pub(crate) ages: Ages,
    pub(crate) random_source: RandomSource,
    pub(crate) pool: SessionPool,
    pub(crate) host_defects: HostDefects,
    pub(crate) reservations: QuotaReservations,
    pub(crate) context_commits: ContextCommits,
    /// The channel for commands to the runner.
    pub(crate) commands: WeakUnboundedSender<RunnerCommand>,
    /// Locked while an operator holds or releases messages, until the runner has carried out the command, so that it
    /// gets these commands in the order in which they became durable.
    pub(crate) acting: tokio::sync::Mutex<()>,
}

impl OutboundShared {
    /// Everything that is built once, with nothing in it yet.
    pub(crate) fn new(
        config: Config,
        parts: OutboundParts,
        commands: WeakUnboundedSender<RunnerCommand>,
    ) -> Self {
        let ages = Ages::start(Arc::clone(&parts.clock));
        Self {
            config: ArcSwap::from_pointee(config),
            tls: ArcSwap::from_pointee(parts.tls),
            spool: parts.spool,
            resolver: parts.resolver,
            chain: parts.chain,
            records: parts.records,
            capture: parts.capture,
            network: parts.network,
            clock: parts.clock,
            ages,
            random_source: parts.random,
            pool: SessionPool::default(),
            host_defects: HostDefects::default(),
            reservations: QuotaReservations::default(),
            context_commits: ContextCommits::default(),
            commands,
            acting: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn new_id(&self) -> QueueId {
        QueueId::new(self.clock.now(), (self.random_source)())
    }

    /// A random number of 64 bits, which must not be used for secrets.
    pub(crate) fn random(&self) -> u64 {
        let low = (self.random_source)() & u128::from(u64::MAX);
        u64::try_from(low).unwrap_or_default()
    }

    /// Writes the event record of a hold by the operator.
    pub(crate) fn record_hold(&self, id: QueueId, hold: &HoldReason) {
        let (quarantine, reason) = match hold.clone() {
            HoldReason::Quarantine(quarantine) => (Some(quarantine.name), None),
            HoldReason::Operator(reason) => (None, Some(reason)),
            other @ HoldReason::Other(_) => (None, Some(other.to_string())),
        };
        self.records.record(&Record::Hold(pintle_record::Hold {
            time: self.clock.now(),
            id,
            quarantine,
            reason,
            by: None,
        }));
    }
}
