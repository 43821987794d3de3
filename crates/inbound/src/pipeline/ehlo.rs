//! EHLO and HELO: the client's name, and the extensions that it is offered.

use std::sync::Arc;

use pintle_mail::Param;
use pintle_policy::{Call, Hook};
use pintle_smtp::server::{Hello, HelloVerb, Offers};

use super::Pipeline;
use super::fate::StageAnswer;

impl Pipeline {
    pub(super) async fn hello(&mut self, hello: Hello) -> StageAnswer {
        let session = Arc::make_mut(&mut self.view.session);
        session.hello = Some(hello.name.clone());
        session.esmtp = hello.verb == HelloVerb::Ehlo;
        if self.observer.is_none() && !self.services.chain.load().wants(Hook::Hello) {
            return StageAnswer::Accept(None);
        }
        let before = hello.offers.params();
        Arc::make_mut(&mut self.view.session).extensions.clone_from(&before);
        let decision = self.judge(Call::Hello(hello.name)).await;
        let after = std::mem::take(&mut Arc::make_mut(&mut self.view.session).extensions);
        self.refused(Hook::Hello, &decision).unwrap_or_else(|| {
            if before == after {
                StageAnswer::Accept(None)
            } else {
                StageAnswer::Offer(edited(hello.offers, &before, &after))
            }
        })
    }
}

/// Returns the offers as plugins have changed them. A keyword that cannot be offered is omitted and logged.
fn edited(mut offers: Offers, before: &[Param], after: &[Param]) -> Offers {
    for param in before.iter().filter(|param| !after.iter().any(|kept| kept.name == param.name)) {
        offers.withhold(&param.name);
    }
    for param in after.iter().filter(|param| !before.contains(param)) {
        if let Err(error) = offers.offer(&param.name, param.value.as_deref()) {
            tracing::warn!(
                keyword = param.name,
                ?error,
                "a plugin added an EHLO keyword that cannot be offered"
            );
        }
    }
    offers
}
