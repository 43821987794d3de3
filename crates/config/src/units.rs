//! Parses durations and sizes: a number and a unit, which is required.

use std::time::Duration;

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Parses a duration such as `30s`, `5m` or `1h30m`, the syntax of all durations in the configuration.
///
/// # Errors
/// What is wrong with the text, as a message for the operator.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() || total == 0 && rest.len() == text.len() {
        let (millis, after) =
            measure(rest, DURATIONS).ok_or_else(|| complaint(text, "duration", DURATIONS))?;
        total = total.checked_add(millis).ok_or_else(|| format!("{text:?} is too long a time"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Parses a size such as `36MiB` or `10kB`. The result is in octets.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    match measure(text, SIZES) {
        Some((octets, "")) => Ok(octets),
        _ => Err(complaint(text, "size", SIZES)),
    }
}

/// Parses a number and its unit. Returns their product and the rest of the text.
fn measure<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u64, &'a str)> {
    let text = text.trim_start();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (_, factor) = units.iter().find(|(unit, _)| *unit == &rest[..letters])?;
    Some((number.checked_mul(*factor)?, &rest[letters..]))
}

fn complaint(text: &str, noun: &str, units: &[(&str, u64)]) -> String {
    let names: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.chars().all(|c| c.is_ascii_digit()) {
        format!("{text:?} has no unit; the units are {}", names.join(", "))
    } else {
        format!("{text:?} is not a {noun}; the units are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_with_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("4h", 14_400_000),
            ("5d", 432_000_000),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, octets) in [("512B", 512), ("10kB", 10_000), ("36MiB", 36 << 20), ("1 GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(octets), "{text}");
        }
    }

    #[test]
    fn what_lacks_or_misspells_its_unit_is_refused() {
        for text in
            ["", "30", "s", "30 seconds", "-5s", "1.5h", "99999999999999999999s", "9999999999999999w", "5m x"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["", "36", "36mib", "36MiB ", "1GiB1B", "36 M", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(duration("30").unwrap_err().contains("no unit"));
    }
}
