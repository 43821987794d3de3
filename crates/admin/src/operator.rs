//! What the admin socket needs of the running gateway; the binary implements it.

use futures_util::future::BoxFuture;
use pintle_mail::QueueId;

use crate::quarantine::{Exit, Leave, Left, QuarantinePage, Quarantined, SiftPage, Whole};
use crate::wire::{
    Affected, CapturedPage, HealthReport, OperatorRefusal, PageQuery, PluginState, Query, QueueAction,
    QueueEntry, QueueFilter, QueuePage, Reloaded, Reroute, Version,
};

/// What a command comes to, some time later.
pub type OperatorFuture<'a, T> = BoxFuture<'a, Result<T, OperatorRefusal>>;

/// The running gateway, as its operator sees it.
///
/// Calls come from many connections at once. Each is dropped after half a minute, so an answer that takes longer has to
/// be prepared by a task of the implementation's own.
pub trait Operator: Send + Sync + 'static {
    /// Which program this is, and since when it runs.
    fn version(&self) -> Version;

    /// How its parts are.
    fn health(&self) -> BoxFuture<'_, HealthReport>;

    /// The counters in Prometheus's text format.
    fn metrics(&self) -> String;

    /// A page of the messages in the spool that pass a filter, oldest first.
    fn queue(&self, query: Query) -> OperatorFuture<'_, QueuePage>;

    /// All about one message.
    fn message(&self, id: QueueId) -> OperatorFuture<'_, QueueEntry>;

    /// Acts on every message that passes the filter, which has at least one condition or says `all`.
    fn act(&self, action: QueueAction, filter: QueueFilter) -> OperatorFuture<'_, Affected>;

    /// Sends every message that passes the filter another way; of the filter the same holds.
    fn reroute(&self, order: Reroute) -> OperatorFuture<'_, Affected>;

    /// A page of what lies in quarantines, oldest first, with the reasons.
    fn quarantine(&self, query: SiftPage) -> OperatorFuture<'_, QuarantinePage>;

    /// One message in a quarantine.
    fn quarantined(&self, id: QueueId) -> OperatorFuture<'_, Quarantined>;

    /// Its octets.
    fn quarantined_message(&self, id: QueueId) -> OperatorFuture<'_, Whole>;

    /// Lets messages leave; says for each what came of it.
    fn leave(&self, exit: Exit, which: Leave) -> OperatorFuture<'_, Left>;

    /// The plugins and the generations they are in.
    fn plugins(&self) -> OperatorFuture<'_, Vec<PluginState>>;

    /// Loads the plugin of this name again, or all of them; what fails leaves the old generation serving.
    fn reload_plugins(&self, name: Option<String>) -> OperatorFuture<'_, Vec<PluginState>>;

    /// Reads configuration and certificates again, as SIGHUP does.
    fn reload(&self) -> OperatorFuture<'_, Reloaded>;

    /// What the sandbox has captured, newest last.
    fn captured(&self, page: PageQuery) -> OperatorFuture<'_, CapturedPage>;
}
