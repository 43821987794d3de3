//! Metrics that a plugin reports: prefixed with its name, and limited in cardinality.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram, Label};
use parking_lot::Mutex;

/// Maximum number of series (names with their labels) per plugin: each stays in the recorder until the process ends.
const MAX_SERIES: usize = 256;
/// Maximum number of series per name. Values chosen by remote senders (a domain, an address) are poor labels: beyond
/// this limit new values count as [`OTHER`], so that sums stay correct and other names keep their room.
const MAX_SERIES_OF_A_NAME: usize = 64;
const OTHER: &str = "other";
const MAX_LABELS: usize = 8;
const MAX_LENGTH: usize = 64;

/// All series of one plugin.
pub(crate) struct PluginMetrics {
    plugin: String,
    series: Mutex<HashMap<SeriesKey, MetricSeries>>,
}

type SeriesKey = (String, Vec<(String, String)>);

enum MetricSeries {
    Counter(Counter),
    Histogram(Histogram),
    Gauge(Gauge),
}

impl PluginMetrics {
    pub(crate) fn new(plugin: &str) -> Self {
        Self { plugin: word(plugin), series: Mutex::default() }
    }

    /// Adds to a counter. A series above a limit is dropped without an error, since metrics must not make a plugin
    /// fail.
    pub(crate) fn count(&self, name: &str, by: u64, labels: &[(String, String)]) {
        self.with(
            name,
            labels,
            |name, labels| MetricSeries::Counter(metrics::counter!(name, labels)),
            |series| {
                if let MetricSeries::Counter(counter) = series {
                    counter.increment(by);
                }
            },
        );
    }

    /// Records a histogram value.
    pub(crate) fn observe(&self, name: &str, value: f64, labels: &[(String, String)]) {
        let make = |name, labels| MetricSeries::Histogram(metrics::histogram!(name, labels));
        self.with(name, labels, make, |series| {
            if let MetricSeries::Histogram(histogram) = series {
                histogram.record(value);
            }
        });
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: &str, value: f64, labels: &[(String, String)]) {
        let make = |name, labels| MetricSeries::Gauge(metrics::gauge!(name, labels));
        self.with(name, labels, make, |series| {
            if let MetricSeries::Gauge(gauge) = series {
                gauge.set(value);
            }
        });
    }

    fn with(
        &self,
        name: &str,
        labels: &[(String, String)],
        make: impl FnOnce(String, Vec<Label>) -> MetricSeries,
        act: impl FnOnce(&MetricSeries),
    ) {
        if labels.len() > MAX_LABELS {
            return;
        }
        let mut key: SeriesKey = (word(name), labels.iter().map(short).collect());
        let mut all = self.series.lock();
        let of_the_name = || all.keys().filter(|(name, _)| *name == key.0).count();
        if !all.contains_key(&key) && of_the_name() >= MAX_SERIES_OF_A_NAME {
            key.1.iter_mut().for_each(|(_, value)| OTHER.clone_into(value));
        }
        if let Some(series) = all.get(&key) {
            return act(series);
        }
        if all.len() == MAX_SERIES {
            return;
        }
        let series = make(self.name(name), key.1.iter().map(label).collect());
        act(&series);
        all.insert(key, series);
    }

    fn name(&self, name: &str) -> String {
        format!("pintle_plugin_{}_{}", self.plugin, word(name))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.series.lock().len()
    }
}

/// Truncates a label to the maximum length.
fn short((name, value): &(String, String)) -> (String, String) {
    (word(name), value[..value.floor_char_boundary(MAX_LENGTH)].to_owned())
}

fn label((name, value): &(String, String)) -> Label {
    Label::new(name.clone(), value.clone())
}

/// Converts to lower case, and replaces characters that a recorder may not accept by underscores.
fn word(text: &str) -> String {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }
    };
    text.chars().take(MAX_LENGTH).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_named_for_the_plugin() {
        let gauges = PluginMetrics::new("grey-list");
        for n in 0..1_000 {
            gauges.count("seen", 1, &[("client".into(), n.to_string())]);
        }
        assert_eq!(gauges.len(), MAX_SERIES_OF_A_NAME + 1, "the rest is `other`");
        for n in 0..1_000 {
            gauges.count(&format!("seen{n}"), 1, &[("long".repeat(1_000), "x".repeat(100_000))]);
        }
        assert_eq!(gauges.len(), MAX_SERIES);
        assert!(
            gauges
                .series
                .lock()
                .keys()
                .flat_map(|(_, labels)| labels)
                .all(|(name, value)| { name.len() <= MAX_LENGTH && value.len() <= MAX_LENGTH })
        );
        assert_eq!(gauges.name("Seen.Total"), "pintle_plugin_grey_list_seen_total");
    }
}
