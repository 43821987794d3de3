//! The numbers that a plugin reports: named for it, and of a bounded number of kinds.

use std::collections::HashMap;

use metrics::{Counter, Histogram, Label};
use parking_lot::Mutex;

/// The most series (names with their labels) of one plugin: each lives in the recorder for good.
const MAX_SERIES: usize = 256;
const MAX_LABELS: usize = 8;
const MAX_LENGTH: usize = 64;

/// All series of one plugin.
pub(crate) struct Gauges {
    plugin: String,
    series: Mutex<HashMap<Key, Series>>,
}

type Key = (String, Vec<(String, String)>);

enum Series {
    Counter(Counter),
    Histogram(Histogram),
}

impl Gauges {
    pub(crate) fn new(plugin: &str) -> Self {
        Self { plugin: word(plugin), series: Mutex::default() }
    }

    /// Adds to a counter. What exceeds a bound is dropped: a plugin must not fail for counting.
    pub(crate) fn count(&self, name: &str, by: u64, labels: Vec<(String, String)>) {
        self.with(
            name,
            labels,
            |name, labels| Series::Counter(metrics::counter!(name, labels)),
            |series| {
                if let Series::Counter(counter) = series {
                    counter.increment(by);
                }
            },
        );
    }

    /// Records a value.
    pub(crate) fn observe(&self, name: &str, value: f64, labels: Vec<(String, String)>) {
        let make = |name, labels| Series::Histogram(metrics::histogram!(name, labels));
        self.with(name, labels, make, |series| {
            if let Series::Histogram(histogram) = series {
                histogram.record(value);
            }
        });
    }

    fn with(
        &self,
        name: &str,
        labels: Vec<(String, String)>,
        make: impl FnOnce(String, Vec<Label>) -> Series,
        act: impl FnOnce(&Series),
    ) {
        if labels.len() > MAX_LABELS {
            return;
        }
        let key = (name.to_owned(), labels);
        let mut all = self.series.lock();
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

fn label((name, value): &(String, String)) -> Label {
    let value = &value[..value.floor_char_boundary(MAX_LENGTH)];
    Label::new(word(name), value.to_owned())
}

/// A word that every recorder takes: letters, digits and underscores.
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
        let gauges = Gauges::new("grey-list");
        for n in 0..1_000 {
            gauges.count("seen", 1, vec![("client".into(), n.to_string())]);
        }
        assert_eq!(gauges.len(), MAX_SERIES);
        assert_eq!(gauges.name("Seen.Total"), "pintle_plugin_grey_list_seen_total");
    }
}
