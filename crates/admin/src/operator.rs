//! What the admin socket needs from the running gateway; the binary implements it.

use futures_util::future::BoxFuture;
use pintle_mail::QueueId;

use crate::quarantine::{
    MessageOctets, QuarantineAction, QuarantineOrder, QuarantinePage, QuarantineQuery, QuarantineResult,
    Quarantined,
};
use crate::wire::{
    Affected, CapturedPage, HealthReport, OperatorRefusal, PageQuery, PluginState, Query, QueueAction,
    QueueEntry, QueueFilter, QueuePage, Reloaded, Reroute, Version,
};

/// The eventual result of a command.
pub type OperatorFuture<'a, T> = BoxFuture<'a, Result<T, OperatorRefusal>>;

/// The running gateway, as its operator sees it.
///
/// Calls come from many connections concurrently. Each is dropped after 30 seconds, so a task of the implementation
/// must do what takes longer.
pub trait Operator: Send + Sync + 'static {
    /// Returns version, process id and start time.
    fn version(&self) -> Version;

    /// Returns the health of the gateway and its components.
    fn health(&self) -> BoxFuture<'_, HealthReport>;

    /// Returns the metrics in Prometheus's text format.
    fn metrics(&self) -> String;

    /// Returns a page of the messages in the spool that match a filter, oldest first.
    fn queue(&self, query: Query) -> OperatorFuture<'_, QueuePage>;

    /// Returns one message of the spool.
    fn message(&self, id: QueueId) -> OperatorFuture<'_, QueueEntry>;

    /// Applies an action to every message that matches the filter, which has at least one condition or `all`.
    fn act(&self, action: QueueAction, filter: QueueFilter) -> OperatorFuture<'_, Affected>;

    /// Changes the next hop of every message that matches the filter, which has at least one condition or `all`.
    fn reroute(&self, order: Reroute) -> OperatorFuture<'_, Affected>;

    /// Returns a page of the messages in quarantines, oldest first, with the reasons.
    fn quarantine(&self, query: QuarantineQuery) -> OperatorFuture<'_, QuarantinePage>;

    /// Returns one message in a quarantine.
    fn quarantined(&self, id: QueueId) -> OperatorFuture<'_, Quarantined>;

    /// Returns the octets of a message in a quarantine.
    fn quarantined_message(&self, id: QueueId) -> OperatorFuture<'_, MessageOctets>;

    /// Releases or deletes messages in quarantines. Returns the result for each.
    fn leave(&self, exit: QuarantineAction, which: QuarantineOrder) -> OperatorFuture<'_, QuarantineResult>;

    /// Returns the plugins and their loaded generations.
    fn plugins(&self) -> OperatorFuture<'_, Vec<PluginState>>;

    /// Reloads the plugin of this name, or all. If loading fails, the old generation stays in use.
    fn reload_plugins(&self, name: Option<String>) -> OperatorFuture<'_, Vec<PluginState>>;

    /// Reloads configuration and certificates, as SIGHUP does.
    fn reload(&self) -> OperatorFuture<'_, Reloaded>;

    /// Returns a page of the messages that the sandbox has captured, newest last.
    fn captured(&self, page: PageQuery) -> OperatorFuture<'_, CapturedPage>;
}
