//! Counters and histograms. Always granted; the host prefixes each name with the plugin's name.

use crate::bindings::services::pintle::plugin::metrics as host;

/// Adds `by` to a counter.
pub fn count(name: &str, by: u64, labels: &[(&str, &str)]) {
    host::count(name, by, &owned(labels));
}

/// Records a value in a histogram.
pub fn observe(name: &str, value: f64, labels: &[(&str, &str)]) {
    host::observe(name, value, &owned(labels));
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
