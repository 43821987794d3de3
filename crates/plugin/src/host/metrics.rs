//! `metrics`: a plugin's own numbers.

use crate::bindings::pintle::plugin::metrics::Host;
use crate::guest::Guest;

impl Host for Guest {
    fn count(&mut self, name: String, by: u64, labels: Vec<(String, String)>) {
        self.common.gauges.count(&name, by, labels);
    }

    fn observe(&mut self, name: String, value: f64, labels: Vec<(String, String)>) {
        self.common.gauges.observe(&name, value, labels);
    }
}
