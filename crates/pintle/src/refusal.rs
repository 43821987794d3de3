//! What an operator is told when the gateway cannot do what was asked.

use pintle_admin::OperatorRefusal;
use pintle_outbound::OperateError;
use pintle_spool::SpoolError;

/// The refusal that an error of the delivering side amounts to.
pub(crate) fn refusal(error: OperateError) -> OperatorRefusal {
    match error {
        OperateError::Spool(error @ SpoolError::Unknown(_)) => OperatorRefusal::NotFound(error.to_string()),
        OperateError::Spool(error) => OperatorRefusal::Failed(error.to_string()),
        OperateError::Stopped => OperatorRefusal::Unavailable(error.to_string()),
    }
}
