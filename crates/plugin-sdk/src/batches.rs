//! Calls of host functions with lists of texts, in batches that the host accepts.

use crate::HostError;

/// Limits of one batch. The host accepts 10,000 texts in one call, and 2 MiB with some octets for each text.
const TEXTS: usize = 10_000;
const OCTETS: usize = 1 << 20;

/// The results of `call` for all texts, in order.
pub(crate) fn in_batches<T>(
    texts: &[String],
    call: impl Fn(&[String]) -> Result<Vec<T>, HostError>,
) -> Result<Vec<T>, HostError> {
    let mut results = Vec::with_capacity(texts.len());
    let mut rest = texts;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batch_len(rest));
        results.extend(call(batch)?);
        rest = behind;
    }
    Ok(results)
}

/// The number of texts in the next batch; at least one.
fn batch_len(texts: &[String]) -> usize {
    let mut octets = 0;
    let fits = |text: &&String| {
        octets += text.len();
        octets <= OCTETS
    };
    texts.iter().take(TEXTS).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(texts: &[String]) -> Vec<usize> {
        let lens = std::cell::RefCell::new(Vec::new());
        let call = |batch: &[String]| {
            lens.borrow_mut().push(batch.len());
            Ok(batch.to_vec())
        };
        assert_eq!(in_batches(texts, call).as_deref(), Ok(texts));
        lens.into_inner()
    }

    #[test]
    fn no_batch_is_too_large_and_no_text_is_lost() {
        assert_eq!(batches(&[]), [] as [usize; 0]);
        assert_eq!(batches(&vec!["a".to_owned(); 25_000]), [10_000, 10_000, 5_000]);
        assert_eq!(batches(&vec!["a".repeat(400 << 10); 5]), [2, 2, 1]);
        assert_eq!(batches(&["a".repeat(2 << 20), String::new()]), [1, 1]);
    }

    #[test]
    fn an_error_ends_it() {
        let refuse = |_: &[String]| Err::<Vec<()>, _>(HostError::Timeout);
        assert_eq!(in_batches(&[String::new()], refuse), Err(HostError::Timeout));
    }
}
