//! Stores the notes, facts, scores and authentication results that plugins have set in on-delivery-result, for later
//! attempts of the message.
//!
//! Many deliveries of one message may end at once, and each of these writes is synced before its delivery is settled. So
//! the changes of one message are committed in groups: while one group is written, those that come in meanwhile wait, and
//! are then written together. A delivery waits for two writes at most: the one under way, and the one with its own changes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_mail::{Bytes, Envelope, MailParams, QueueId, ReversePath};
use pintle_policy::{Edit, Frozen, Notes, View};
use pintle_spool::SpoolError;

use crate::parts::OutboundShared;
use crate::stages;

/// The most octets that a context may grow to. Plugins are bounded one by one and in each call; this bounds what the
/// calls about many deliveries of one message add together, and with it what each attempt has to read.
const MAX_CONTEXT: usize = 1024 * 1024;

/// The changes that plugins made after one delivery attempt, by the name of the plugin.
pub(crate) struct ContextChanges(Vec<(Arc<str>, Vec<Edit>)>);

impl ContextChanges {
    /// None if there are no changes.
    pub(crate) fn of(edits: Vec<(Arc<str>, Vec<Edit>)>) -> Option<Self> {
        (!edits.is_empty()).then_some(Self(edits))
    }

    /// Makes the changes in the stored context. If that cannot be done now they are lost: the delivery has been made, and
    /// its settlement must not wait for them.
    pub(crate) async fn store(self, shared: &OutboundShared, id: QueueId) {
        let write = async |group| match write(shared, id, group).await {
            // Other deliveries have settled the last recipients meanwhile.
            Ok(()) | Err(SpoolError::Unknown(_)) => {}
            Err(error) => {
                tracing::error!(queue_id = %id, %error, "what plugins set in on-delivery-result cannot be stored, and is lost");
            }
        };
        shared.context_commits.commit(id, self, write).await;
    }

    /// Makes all changes but those of plugins whose notes would become too large.
    fn make(&self, id: QueueId, view: &mut View) {
        for (plugin, edits) in &self.0 {
            let mut changed = view.clone();
            let made = changed.apply(plugin, edits.clone()).is_ok();
            if made && notes_of(&changed, plugin) <= Notes::MAX_SIZE {
                *view = changed;
            } else {
                tracing::error!(queue_id = %id, %plugin, "what the plugin set in on-delivery-result is not stored: \
                    together with what it set after other deliveries, its notes are too large");
            }
        }
    }

    fn plugins(&self) -> String {
        self.0.iter().map(|(plugin, _)| &**plugin).collect::<Vec<_>>().join(", ")
    }
}

/// Writes the context of a message with a group of changes.
async fn write(shared: &OutboundShared, id: QueueId, group: Vec<ContextChanges>) -> Result<(), SpoolError> {
    let stored = shared.spool.load(id).await?;
    // One that cannot be read was not read before the attempt either, and then no plugin was called.
    let Ok(frozen) = stages::frozen_of(&stored) else { return Ok(()) };
    let before = stored.entry.context;
    let context = with_changes(id, frozen, &group, MAX_CONTEXT.max(before.len()));
    if context == before { Ok(()) } else { shared.spool.set_context(id, context).await }
}

/// The octets of a context with these changes. If they were more than `limit`, the changes after each delivery are made one
/// by one, without those with which they would be.
fn with_changes(id: QueueId, frozen: Frozen, group: &[ContextChanges], limit: usize) -> Bytes {
    let before = frozen.thaw(id, no_envelope());
    let mut all = before.clone();
    group.iter().for_each(|changes| changes.make(id, &mut all));
    let context = octets_of(&all);
    if context.len() <= limit {
        return context;
    }
    let (mut view, mut context) = (before.clone(), octets_of(&before));
    for changes in group {
        let mut changed = view.clone();
        changes.make(id, &mut changed);
        let octets = octets_of(&changed);
        if octets.len() <= limit {
            (view, context) = (changed, octets);
        } else {
            tracing::error!(queue_id = %id, plugins = changes.plugins(), octets = octets.len(), limit,
                "what plugins set in on-delivery-result is not stored: the message's context would be too large");
        }
    }
    context
}

/// A context has no envelope, and copies of the view are cheaper without recipients.
fn no_envelope() -> Envelope {
    Envelope { sender: ReversePath::Null, params: MailParams::default(), recipients: Vec::new() }
}

fn octets_of(view: &View) -> Bytes {
    let frozen = view.transaction.as_ref().map(|transaction| Frozen::of(&view.session, transaction));
    frozen.map_or_else(Bytes::new, |frozen| frozen.to_bytes())
}

fn notes_of(view: &View, plugin: &str) -> usize {
    view.transaction.as_ref().map_or(0, |transaction| transaction.notes.size(plugin))
}

/// Group commit of changes of contexts, for each message apart.
#[derive(Default)]
pub(crate) struct ContextCommits(Mutex<HashMap<QueueId, Arc<ContextCommit>>>);

/// The changes of one message's context that wait to be written.
#[derive(Default)]
struct ContextCommit {
    waiting: Mutex<Vec<ContextChanges>>,
    /// Locked during a write.
    writing: tokio::sync::Mutex<()>,
}

impl ContextCommits {
    /// Has the changes written, together with all others of this message that wait by then. When it returns, `write` has
    /// been called with them, here or by another caller.
    async fn commit(
        &self,
        id: QueueId,
        changes: ContextChanges,
        write: impl AsyncFnOnce(Vec<ContextChanges>),
    ) {
        let commit = Arc::clone(self.0.lock().entry(id).or_default());
        commit.waiting.lock().push(changes);
        let alone = commit.writing.lock().await;
        let group = std::mem::take(&mut *commit.waiting.lock());
        if !group.is_empty() {
            write(group).await;
        }
        drop(alone);
        let mut commits = self.0.lock();
        // The map's and ours: no other caller is left.
        if Arc::strong_count(&commit) == 2 {
            commits.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use pintle_mail::{SessionId, UnixTime};
    use pintle_policy::{Session, Transaction};
    use tokio::sync::Semaphore;

    use super::*;

    fn id(n: u128) -> QueueId {
        QueueId::new(UnixTime::from_millis(5), n)
    }

    fn frozen() -> Frozen {
        let (time, nowhere) = (UnixTime::from_millis(5), ([192, 0, 2, 1], 25).into());
        let session = Session::new(SessionId::new(time, 1), "mx".into(), nowhere, nowhere, time);
        Frozen::of(&session, &Transaction::new(id(1), no_envelope()))
    }

    fn note(key: &str, size: usize) -> Edit {
        Edit::Note(key.to_owned(), Some(vec![7; size]))
    }

    fn changes(edits: Vec<(&str, Edit)>) -> ContextChanges {
        let edits = edits.into_iter().map(|(plugin, edit)| (plugin.into(), vec![edit]));
        ContextChanges::of(edits.collect()).unwrap()
    }

    fn transaction(context: &[u8]) -> Arc<Transaction> {
        let frozen = Frozen::from_bytes(context).unwrap();
        frozen.thaw(id(1), no_envelope()).transaction.unwrap()
    }

    /// Each call is bounded by what it saw. Calls about several deliveries may see the same state.
    #[test]
    fn notes_of_several_deliveries_are_bounded_together() {
        let group =
            (0..3).map(|n| changes(vec![("a", note(&format!("key {n}"), 30_000)), ("b", note("n", n))]));
        let context = with_changes(id(1), frozen(), &group.collect::<Vec<_>>(), MAX_CONTEXT);
        let notes = &transaction(&context).notes;
        assert!(notes.get("a", "key 1").is_some() && notes.get("a", "key 2").is_none());
        assert_eq!(notes.get("b", "n").map(<[u8]>::len), Some(2), "the other plugin's are stored");
    }

    #[test]
    fn what_makes_a_context_too_large_is_refused_alone() {
        let fact = |key: &str, size| changes(vec![("a", Edit::Fact(key.into(), "x".repeat(size)))]);
        let group = [fact("small", 10), fact("large", MAX_CONTEXT), fact("last", 10)];
        let context = with_changes(id(1), frozen(), &group, MAX_CONTEXT);
        let facts: Vec<String> = transaction(&context).facts.keys().cloned().collect();
        assert_eq!(facts, ["last", "small"]);
        let many: Vec<_> = (0..10).map(|n| fact(&n.to_string(), 200_000)).collect();
        let context = with_changes(id(1), frozen(), &many, MAX_CONTEXT);
        assert!((1_000_000..=MAX_CONTEXT).contains(&context.len()), "{}", context.len());
        assert_eq!(transaction(&context).facts.len(), 5);
    }

    #[test]
    fn no_edits_are_no_changes() {
        assert!(ContextChanges::of(Vec::new()).is_none());
    }

    /// A delivery waits for the write under way and for its own, however many end at once.
    #[tokio::test]
    async fn changes_that_come_in_during_a_write_are_written_together() {
        let (commits, disk, writes) = (ContextCommits::default(), Semaphore::new(0), Mutex::new(Vec::new()));
        let write = async |group: Vec<ContextChanges>| {
            writes.lock().push(group.len());
            disk.acquire().await.unwrap().forget();
        };
        let one = || changes(vec![("a", note("n", 1))]);
        let mut all = Box::pin(join_all((0..10_000).map(|_| commits.commit(id(1), one(), &write))));
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(*writes.lock(), [1]);
        assert!(commits.commit(id(2), one(), async |_| ()).now_or_never().is_some(), "another message waits");
        disk.add_permits(1);
        assert!(all.as_mut().now_or_never().is_none());
        assert_eq!(*writes.lock(), [1, 9_999]);
        disk.add_permits(1);
        all.await;
        assert_eq!((writes.lock().len(), commits.0.lock().len()), (2, 0));
    }
}
