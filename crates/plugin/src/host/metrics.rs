//! `metrics`: a plugin's own numbers.

use crate::bindings::pintle::plugin::metrics::Host;
use crate::store_data::StoreData;

impl Host for StoreData {
    fn count(&mut self, name: String, by: u64, labels: Vec<(String, String)>) {
        if self.pays_for(&name, &labels) {
            self.common.gauges.count(&name, by, &labels);
        }
    }

    fn observe(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        if self.pays_for(&name, &labels) {
            self.common.gauges.observe(&name, value, &labels);
        }
    }
}

impl StoreData {
    pub(super) fn pays_for(&mut self, text: &str, pairs: &[(String, String)]) -> bool {
        let octets: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.live.budget.charge((text.len() + octets) as u64).is_ok()
    }
}
