//! Lookup tables that the operator configures; plugins refer to them by name. Grant: tables.

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::tables::find_many;

/// The table's value for a key; `None` if it has none.
///
/// # Errors
///
/// The table does not exist, or is not granted or not available.
pub fn find(table: &str, key: &str) -> Result<Option<String>, HostError> {
    Ok(find_many(table, &[key.to_owned()])?.pop().flatten())
}
