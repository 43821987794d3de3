//! Counters, histograms and gauges. Always granted; the host prefixes each name with the plugin's name.

use crate::bindings::services::pintle::plugin::metrics as host;

/// Adds `by` to a counter.
pub fn count(name: &str, by: u32, labels: &[(&str, &str)]) {
    host::count(name, by, &owned(labels));
}

/// Adds `by` to a counter, for the length of a collection. What exceeds the contract's range is cut off.
pub fn count_all(name: &str, by: usize, labels: &[(&str, &str)]) {
    count(name, u32::try_from(by).unwrap_or(u32::MAX), labels);
}

/// Adds a value to a histogram.
pub fn observe(name: &str, value: f64, labels: &[(&str, &str)]) {
    host::observe(name, value, &owned(labels));
}

/// Sets a gauge.
pub fn set(name: &str, value: f64, labels: &[(&str, &str)]) {
    host::set(name, value, &owned(labels));
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}
