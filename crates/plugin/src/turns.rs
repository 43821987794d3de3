//! The concurrency limit of a plugin's calls: a share of the slots (turns) and a queue for each client network.
//!
//! A call holds its turn for as long as it holds an instance, including waits for DNS, and cannot be preempted. So each
//! network is limited to a share of all turns, even while others are free: a client that makes calls slow delays only
//! its own network. A client with many networks could still occupy all of them, so the last turns are reserved for
//! known clients (trusted or authenticated). Waiting calls queue by network, and the queues are served round-robin, one
//! turn each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use pintle_policy::View;
use tokio::sync::oneshot;

/// The party for which a call is made; shares are counted by party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CallParty {
    /// The gateway itself, for timer calls.
    Gateway,
    /// Clients in this network that the operator trusts or that have authenticated.
    Known(u64),
    /// All other clients in this network.
    Stranger(u64),
}

impl CallParty {
    pub(crate) fn of(view: Option<&View>) -> Self {
        let Some(session) = view.map(|view| &view.session) else {
            return Self::Gateway;
        };
        let network = network(session.client.ip());
        if session.is_stranger() { Self::Stranger(network) } else { Self::Known(network) }
    }

    /// Maximum number of the `all` turns that the party may hold: a quarter for strangers of one network, half for
    /// known clients. If there are at least two turns, one is left to others.
    fn share(self, all: usize) -> usize {
        let share = match self {
            Self::Gateway => return all,
            Self::Known(_) => all / 2,
            Self::Stranger(_) => all / 4,
        };
        share.max(2).min(all.saturating_sub(1)).max(1)
    }

    /// Number of the `all` turns reserved for other parties: strangers leave an eighth free.
    fn leaves(self, all: usize) -> usize {
        if self.is_stranger() { all / 8 } else { 0 }
    }

    fn is_stranger(self) -> bool {
        matches!(self, Self::Stranger(_))
    }
}

/// The network of an address: its /24 for IPv4 or its /48 for IPv6 (RFC 6177), the smallest usual allocation to one
/// customer. A separate bit distinguishes the address families.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        IpAddr::V6(v6) => (v6.to_bits() >> 80) as u64 | 1 << 48,
    }
}

/// The turns of one plugin.
pub(crate) struct Turns {
    all: usize,
    state: Mutex<TurnsState>,
}

/// The turns that a party holds, and the queue of its waiting calls.
#[derive(Default)]
struct NetworkLine {
    held: usize,
    /// Waiting calls by ticket number, which is their arrival order.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    /// Whether the party is in `round`.
    in_round: bool,
}

struct TurnsState {
    all: usize,
    free: usize,
    lines: HashMap<CallParty, NetworkLine>,
    /// Round-robin queue of parties with waiting calls and shares that allow another turn. While a turn is free, it is
    /// reserved for parties other than these.
    round: VecDeque<CallParty>,
    /// Number of parties in `round` that are not strangers.
    known: usize,
    tickets: u64,
}

/// One turn; dropping it releases the turn.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    party: CallParty,
}

/// Why no turn was available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded {
    /// Number of turns available to this kind of party.
    pub(crate) all: usize,
    /// The party's share, if the party held all of it; `None` if the turns themselves were exhausted.
    pub(crate) share: Option<usize>,
}

impl Turns {
    pub(crate) fn new(all: usize) -> Self {
        let state = TurnsState {
            all,
            free: all,
            lines: HashMap::new(),
            round: VecDeque::new(),
            known: 0,
            tickets: 0,
        };
        Self { all, state: Mutex::new(state) }
    }

    /// Total number of turns.
    pub(crate) fn all(&self) -> usize {
        self.all
    }

    /// Number of turns taken.
    pub(crate) fn taken(&self) -> usize {
        self.all - self.state.lock().free
    }

    /// Number of calls that wait for a turn.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().lines.values().map(|line| line.waiting.len()).sum()
    }

    /// Takes a turn immediately if this party may have one: the common case, which needs no timer.
    pub(crate) fn try_take(&self, party: CallParty) -> Option<Turn<'_>> {
        // Lazily (`then`): constructing a turn that was not taken would release one when it is dropped.
        let taken = self.state.lock().take(party);
        taken.then(|| Turn { turns: self, party })
    }

    /// Takes a turn, waiting in the party's queue for at most `wait`.
    pub(crate) async fn take(&self, party: CallParty, wait: Duration) -> Result<Turn<'_>, Crowded> {
        let (ticket, told) = {
            let mut state = self.state.lock();
            if state.take(party) {
                return Ok(Turn { turns: self, party });
            }
            state.stand_in_line(party)
        };
        let mut place = PlaceInLine { turns: self, party, ticket: Some(ticket) };
        if let Ok(Ok(())) = tokio::time::timeout(wait, told).await {
            place.ticket = None;
            return Ok(Turn { turns: self, party });
        }
        Err(self.crowded(party))
    }

    fn crowded(&self, party: CallParty) -> Crowded {
        let (all, share) = (self.all - party.leaves(self.all), party.share(self.all));
        let held = self.state.lock().lines.get(&party).map_or(0, |line| line.held);
        Crowded { all, share: (held >= share).then_some(share) }
    }
}

impl TurnsState {
    fn take(&mut self, party: CallParty) -> bool {
        if !self.has_one_for(party) {
            return false;
        }
        let line = self.lines.entry(party).or_default();
        if line.held >= party.share(self.all) {
            return false;
        }
        line.held += 1;
        self.free -= 1;
        true
    }

    fn has_one_for(&self, party: CallParty) -> bool {
        self.free > party.leaves(self.all)
    }

    fn stand_in_line(&mut self, party: CallParty) -> (u64, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        self.tickets += 1;
        self.lines.entry(party).or_default().waiting.insert(self.tickets, tell);
        self.join_round(party);
        (self.tickets, told)
    }

    fn join_round(&mut self, party: CallParty) {
        let share = party.share(self.all);
        if let Some(line) = self.lines.get_mut(&party)
            && !line.in_round
            && !line.waiting.is_empty()
            && line.held < share
        {
            line.in_round = true;
            self.round.push_back(party);
            self.known += usize::from(!party.is_stranger());
        }
    }

    /// Releases a turn and gives it to the next waiting call.
    fn give_back(&mut self, party: CallParty) {
        self.free += 1;
        if let Some(line) = self.lines.get_mut(&party) {
            line.held -= 1;
        }
        self.join_round(party);
        self.forget(party);
        while let Some(next) = self.next() {
            self.serve(next);
            self.join_round(next);
            self.forget(next);
        }
    }

    /// The first party in the round that may take a free turn. Strangers are skipped only if another party waits.
    fn next(&mut self) -> Option<CallParty> {
        let first = self.round.front().filter(|_| self.free > 0)?;
        let at = match self.has_one_for(*first) {
            true => 0,
            false if self.known == 0 => return None,
            false => self.round.iter().position(|party| self.has_one_for(*party))?,
        };
        let next = self.round.remove(at)?;
        self.known -= usize::from(!next.is_stranger());
        Some(next)
    }

    /// Gives a turn to the first call in this queue. A call that has just stopped waiting returns it in `leave`.
    fn serve(&mut self, party: CallParty) {
        let Some(line) = self.lines.get_mut(&party) else { return };
        line.in_round = false;
        if let Some((_, tell)) = line.waiting.pop_first() {
            let _ = tell.send(());
            line.held += 1;
            self.free -= 1;
        }
    }

    fn forget(&mut self, party: CallParty) {
        let is_idle = |line: &NetworkLine| line.held == 0 && line.waiting.is_empty() && !line.in_round;
        if self.lines.get(&party).is_some_and(is_idle) {
            self.lines.remove(&party);
        }
    }

    /// Removes a call that stops waiting. If it was given a turn in the meantime, the turn is released.
    fn leave(&mut self, party: CallParty, ticket: u64) {
        match self.lines.get_mut(&party).and_then(|line| line.waiting.remove(&ticket)) {
            Some(_) => self.forget(party),
            None => self.give_back(party),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.state.lock().give_back(self.party);
    }
}

/// A position in a queue; dropping it before the turn is given leaves the queue.
struct PlaceInLine<'a> {
    turns: &'a Turns,
    party: CallParty,
    ticket: Option<u64>,
}

impl Drop for PlaceInLine<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.turns.state.lock().leave(self.party, ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn stranger(address: &str) -> CallParty {
        CallParty::Stranger(network(address.parse().unwrap()))
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Turn<'a>, Crowded>> + 'a>>;

    /// A waiting call, polled once so that it is in the queue.
    fn waiting<'a>(turns: &'a Turns, party: CallParty) -> Waiting<'a> {
        let mut waiting: Waiting<'a> = Box::pin(turns.take(party, LONG));
        assert!(waiting.as_mut().now_or_never().is_none());
        waiting
    }

    #[test]
    fn a_network_is_a_24_or_a_48_and_families_are_apart() {
        assert_eq!(stranger("192.0.2.1"), stranger("192.0.2.255"));
        assert_eq!(stranger("192.0.2.1"), stranger("::ffff:192.0.2.7"));
        assert_ne!(stranger("192.0.2.1"), stranger("192.0.3.1"));
        assert_eq!(stranger("2001:db8:1:2::1"), stranger("2001:db8:1:ffff::1"));
        assert_ne!(stranger("2001:db8:1::1"), stranger("2001:db8:2::1"));
        assert_ne!(stranger("0:c000:200::"), stranger("192.0.2.0"));
    }

    #[test]
    fn shares_leave_something_to_others() {
        let of = |all| {
            [CallParty::Stranger(0).share(all), CallParty::Known(0).share(all), CallParty::Gateway.share(all)]
        };
        assert_eq!(of(1), [1, 1, 1]);
        assert_eq!(of(2), [1, 1, 2]);
        assert_eq!(of(4), [2, 2, 4]);
        assert_eq!(of(100), [25, 50, 100]);
    }

    #[tokio::test]
    async fn one_network_cannot_have_them_all_and_the_next_is_served_at_once() {
        let turns = Turns::new(16);
        let greedy = stranger("192.0.2.1");
        let held: Vec<_> = (0..16).filter_map(|_| turns.try_take(greedy)).collect();
        assert_eq!((held.len(), turns.taken()), (4, 4));
        let _more: Vec<_> = (0..100).map(|_| waiting(&turns, greedy)).collect();
        assert_eq!(turns.waiting(), 100);
        assert!(turns.try_take(stranger("198.51.100.1")).is_some());
        assert!(turns.try_take(CallParty::Known(network("192.0.2.1".parse().unwrap()))).is_some());
    }

    #[tokio::test]
    async fn many_networks_of_strangers_leave_turns_to_those_we_know() {
        let turns = Turns::new(16);
        let strangers = (0..16).map(|n| CallParty::Stranger(n / 4));
        let mut held: Vec<_> = strangers.filter_map(|party| turns.try_take(party)).collect();
        assert_eq!((held.len(), turns.taken()), (14, 14));
        let crowded = turns.take(CallParty::Stranger(9), Duration::ZERO).await.err();
        assert_eq!(crowded, Some(Crowded { all: 14, share: None }));
        let mut stranger = waiting(&turns, CallParty::Stranger(9));
        let known = [0, 1].map(|n| turns.try_take(CallParty::Known(n)).unwrap());
        let mut third = waiting(&turns, CallParty::Known(0));
        held.pop();
        assert!(stranger.as_mut().now_or_never().is_none(), "who is known goes first where no more is left");
        let third = third.as_mut().now_or_never().unwrap();
        drop((known, third));
        assert!(stranger.as_mut().now_or_never().is_some(), "and then there is more than is left to them");
        assert_eq!((turns.taken(), turns.waiting()), (13, 0));
    }

    #[tokio::test]
    async fn lines_are_served_in_a_round_and_within_a_line_in_order() {
        let turns = Turns::new(1);
        let held = turns.try_take(stranger("203.0.113.1")).unwrap();
        let (a, b) = (stranger("192.0.2.1"), stranger("198.51.100.1"));
        let mut lines =
            [waiting(&turns, a), waiting(&turns, a), waiting(&turns, a), waiting(&turns, b)].map(Some);
        drop(held);
        let mut order = Vec::new();
        while order.len() < 4 {
            let ready = lines.iter_mut().enumerate().find_map(|(at, line)| {
                let turn = line.as_mut()?.as_mut().now_or_never()?;
                Some((at, turn.unwrap()))
            });
            let (at, turn) = ready.unwrap();
            order.push(at);
            lines[at] = None;
            drop(turn);
        }
        assert_eq!(order, [0, 3, 1, 2]);
        assert_eq!((turns.taken(), turns.state.lock().lines.len()), (0, 0), "nothing is left behind");
    }

    #[tokio::test]
    async fn who_leaves_the_line_costs_nobody_a_turn() {
        let turns = Turns::new(1);
        let (a, b) = (stranger("192.0.2.1"), stranger("198.51.100.1"));
        let held = turns.try_take(stranger("203.0.113.1")).unwrap();
        drop(waiting(&turns, a));
        let unheard = waiting(&turns, a);
        let mut next = pin!(turns.take(b, LONG));
        assert!(next.as_mut().now_or_never().is_none());
        drop(held);
        assert!(next.as_mut().now_or_never().is_none(), "the other was first");
        drop(unheard);
        assert!(next.now_or_never().unwrap().is_ok());
        assert_eq!((turns.taken(), turns.waiting(), turns.state.lock().lines.len()), (0, 0, 0));
    }

    /// Between a call's timeout and its removal from the queue, another thread may give it a turn.
    #[test]
    fn who_is_given_a_turn_as_he_leaves_gives_it_back_once() {
        let turns = Turns::new(2);
        let (a, b) = (stranger("192.0.2.1"), stranger("198.51.100.1"));
        let held = [turns.try_take(a).unwrap(), turns.try_take(b).unwrap()];
        let (ticket, told) = turns.state.lock().stand_in_line(a);
        drop(told);
        drop(held);
        assert_eq!(turns.taken(), 1, "it is his until he leaves");
        turns.state.lock().leave(a, ticket);
        assert_eq!((turns.taken(), turns.waiting(), turns.state.lock().lines.len()), (0, 0, 0));
        assert!(turns.try_take(a).is_some(), "nobody's share is lost");
    }

    #[tokio::test]
    async fn who_waits_too_long_hears_what_was_full() {
        let turns = Turns::new(2);
        let (a, b) = (stranger("192.0.2.1"), stranger("198.51.100.1"));
        let _one = turns.try_take(a).unwrap();
        let share = turns.take(a, Duration::ZERO).await.err();
        assert_eq!(share, Some(Crowded { all: 2, share: Some(1) }));
        let _two = turns.try_take(b).unwrap();
        let all = turns.take(stranger("203.0.113.1"), Duration::ZERO).await.err();
        assert_eq!(all, Some(Crowded { all: 2, share: None }));
        assert_eq!(turns.waiting(), 0);
    }
}
