//! Error mapping: from errors of the outbound side to the refusals that the admin socket returns.

use pintle_admin::OperatorRefusal;
use pintle_outbound::OperateError;
use pintle_spool::SpoolError;

/// Maps an error of the outbound side to an admin refusal. An unknown queue id becomes "not found".
pub(crate) fn refusal(error: OperateError) -> OperatorRefusal {
    match error {
        OperateError::Spool(error @ SpoolError::Unknown(_)) => OperatorRefusal::NotFound(error.to_string()),
        OperateError::Spool(error) => OperatorRefusal::Failed(error.to_string()),
        OperateError::Stopped => OperatorRefusal::Unavailable(error.to_string()),
    }
}
