//! Host functions of `metrics`: a plugin's own metrics.

use wasmtime::component::{HasData, Linker};

use crate::bindings::pintle::plugin::metrics::{self, Host};
use crate::budget::Budget;
use crate::plugin_metrics::PluginMetrics;
use crate::store_data::{HostParts, StoreData};

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    metrics::add_to_linker::<_, MetricsInterface>(linker, |data| MetricsView::of(data.parts()))
}

struct MetricsInterface;

impl HasData for MetricsInterface {
    type Data<'a> = MetricsView<'a>;
}

/// The data that the interface accesses: the metrics of the generation, and the budget of the call. In `describe` and
/// `configure` metrics are discarded: the host creates instances at any time, for checks too, and a prepared generation
/// may never serve.
pub(crate) struct MetricsView<'a> {
    metrics: Option<&'a PluginMetrics>,
    budget: &'a mut Budget,
}

impl<'a> MetricsView<'a> {
    pub(super) fn of(HostParts { state, call, .. }: HostParts<'a>) -> Self {
        Self { metrics: call.hook.map(|_| &state.metrics), budget: &mut call.budget }
    }
}

impl Host for MetricsView<'_> {
    fn count(&mut self, name: String, by: u32, labels: Vec<(String, String)>) {
        let paid = self.budget.pays_for(&name, &labels);
        if let Some(metrics) = self.metrics.filter(|_| paid) {
            metrics.count(&name, by.into(), &labels);
        }
    }

    fn observe(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        let paid = self.budget.pays_for(&name, &labels);
        if let Some(metrics) = self.metrics.filter(|_| paid) {
            metrics.observe(&name, value, &labels);
        }
    }

    fn set(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        let paid = self.budget.pays_for(&name, &labels);
        if let Some(metrics) = self.metrics.filter(|_| paid) {
            metrics.set(&name, value, &labels);
        }
    }
}
