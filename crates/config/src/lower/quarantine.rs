//! Converts `[quarantine]`: the retention and quotas of quarantines, for all or by name.

use std::time::Duration;

use pintle_outbound::{Quota, Retention};

use crate::reader::Section;
use crate::values::{ByQuarantine, Percent, Positive, Size};

pub(super) fn retention(section: &Section<'_>) -> Retention {
    let given = section.get::<ByQuarantine<Duration>>("keep");
    Retention { default: given.default.unwrap_or(Retention::default().default), names: given.names }
}

pub(super) fn quota(section: &Section<'_>) -> Quota {
    let messages = section.get::<ByQuarantine<Positive<u64>>>("max_messages");
    let size = section.get::<ByQuarantine<Size>>("max_size");
    let mut quota = Quota {
        when_full: section.get("when_full"),
        disk_percent: section.get::<Percent>("max_disk_percent").0,
        messages: messages.names.into_iter().map(|(name, limit)| (name, limit.0)).collect(),
        bytes: size.names.into_iter().map(|(name, limit)| (name, limit.0)).collect(),
        ..Quota::default()
    };
    quota.default.messages = messages.default.map_or(quota.default.messages, |limit| limit.0);
    quota.default.bytes = size.default.map_or(quota.default.bytes, |limit| limit.0);
    quota
}
