//! Header fields by name, and the budget charge for reading the header: shared by `message` and `mailboxes`.

use std::collections::HashSet;

use pintle_mail::Field;

use crate::bindings::pintle::plugin::types::HostError;
use crate::call::CallState;

/// Budget charge per header field, and per name of one, in addition to its octets.
const FIELD_COST: usize = 32;

/// Charges for reading the whole header of the message.
pub(super) fn charge_header(call: &mut CallState) -> Result<(), HostError> {
    let header = &call.message()?.header;
    let octets = header.as_bytes().len() + header.len() * FIELD_COST;
    call.budget.charge(octets as u64)
}

/// A set of field names, compared without regard to case.
pub(super) struct FieldNames(HashSet<Vec<u8>>);

impl FieldNames {
    /// The set of names by which the call reads fields. Charges for them and for the header.
    pub(super) fn read(call: &mut CallState, names: Vec<String>) -> Result<Self, HostError> {
        charge_header(call)?;
        let octets: usize = names.iter().map(|name| FIELD_COST + name.len()).sum();
        call.budget.charge(octets as u64)?;
        Ok(Self(names.into_iter().map(|name| name.to_ascii_lowercase().into()).collect()))
    }

    /// Whether the field has one of these names.
    pub(super) fn has(&self, field: &Field<'_>) -> bool {
        self.0.contains(&field.name().to_ascii_lowercase())
    }
}
