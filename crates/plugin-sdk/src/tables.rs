//! Maps that the operator configures; a plugin knows their names. Grant: tables.

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::tables::find_many;

/// What the table says about one key.
///
/// # Errors
///
/// There is no such table, or it is not granted or not available.
pub fn find(table: &str, key: &str) -> Result<Option<String>, HostError> {
    Ok(find_many(table, &[key.to_owned()])?.pop().flatten())
}
