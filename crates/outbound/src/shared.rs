//! What all deliveries share, and what is said about them to the log.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_dns::Resolver;
use pintle_mail::QueueId;
use pintle_policy::Chain;
use pintle_record::{NoRecords, Record, RecordSink};
use pintle_spool::{Hold, Spool};
use pintle_tls::ClientTls;
use tokio::sync::mpsc::WeakUnboundedSender;

use crate::clock::{self, Ages};
use crate::handle::Command;
use crate::quota::Rooms;
use crate::session_pool::Pool;
use crate::{Capture, Clock, Config, Dice, Network, SystemClock, SystemNetwork};

/// What outbound is built from. None of it is made here, so a test can replace each part.
pub struct Parts {
    /// Where messages lie.
    pub spool: Arc<dyn Spool>,
    /// Who finds next hops.
    pub resolver: Arc<dyn Resolver>,
    /// How TLS is spoken to them.
    pub tls: ClientTls,
    /// Who is asked before and after each attempt; a new chain counts from the next attempt.
    pub chain: Arc<ArcSwap<Chain>>,
    /// Who keeps the event log.
    pub records: Arc<dyn RecordSink>,
    /// Who gets the messages in place of next hops.
    pub capture: Option<Arc<dyn Capture>>,
    /// Who connects to next hops.
    pub network: Arc<dyn Network>,
    /// Who knows the time.
    pub clock: Arc<dyn Clock>,
    /// Who throws the dice.
    pub dice: Dice,
}

impl Parts {
    /// These four; no plugins, no event log, no capture, the system's network and clock.
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
            dice: clock::dice(),
        }
    }
}

/// What all deliveries share.
pub(crate) struct OutboundShared {
    pub(crate) config: ArcSwap<Config>,
    pub(crate) tls: ArcSwap<ClientTls>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) chain: Arc<ArcSwap<Chain>>,
    pub(crate) records: Arc<dyn RecordSink>,
    pub(crate) capture: Option<Arc<dyn Capture>>,
    pub(crate) network: Arc<dyn Network>,
    /// The time of day, for what others read.
    pub(crate) clock: Arc<dyn Clock>,
    /// The time that messages grow old in.
    pub(crate) ages: Ages,
    pub(crate) dice: Dice,
    pub(crate) pool: Pool,
    /// Places in quarantines.
    pub(crate) rooms: Rooms,
    /// To the runner, while it lives.
    pub(crate) commands: WeakUnboundedSender<Command>,
    /// Held while an operator holds or releases, until the runner has been told: it hears of acts in the order in which
    /// they became durable.
    pub(crate) acting: tokio::sync::Mutex<()>,
}

impl OutboundShared {
    pub(crate) fn new_id(&self) -> QueueId {
        QueueId::new(self.clock.now(), (self.dice)())
    }

    /// 64 random bits.
    pub(crate) fn roll(&self) -> u64 {
        let low = (self.dice)() & u128::from(u64::MAX);
        u64::try_from(low).unwrap_or_default()
    }

    pub(crate) fn tell_hold(&self, id: QueueId, hold: &Hold, by: Option<&str>) {
        let (quarantine, reason) = match hold.clone() {
            Hold::Quarantine(quarantine) => (Some(quarantine.name), None),
            Hold::Operator(reason) => (None, Some(reason)),
            other @ Hold::Other(_) => (None, Some(other.to_string())),
        };
        self.records.record(Record::Hold(pintle_record::Hold {
            time: self.clock.now(),
            id,
            quarantine,
            reason,
            by: by.map(str::to_owned),
        }));
    }
}
