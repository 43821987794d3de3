//! Calls of exported guest functions, each with the type of its reply.

use std::future::Future;
use std::sync::Arc;

use pintle_policy::{Call, Credentials, DeliveryOutcome, Hook, Hooks, LoginResult};
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::exports::pintle::plugin::{
    on_auth_password, on_auth_result, on_connect, on_data, on_deliver, on_delivery_result, on_disconnect,
    on_headers, on_hello, on_mail, on_message, on_queued, on_rcpt, on_timer, plugin,
};
use crate::bindings::pintle::plugin::auth_types::AuthVerdict;
use crate::bindings::pintle::plugin::types::Verdict;
use crate::convert;
use crate::store_data::StoreData;

/// A call of one hook.
pub(crate) trait GuestQuestion: Send + Sync {
    /// The type of the guest's reply.
    type Answer: Send;

    /// The hook that is called.
    fn hook(&self) -> Hook;

    /// Calls the exported function.
    fn ask(
        &self,
        exports: &GuestExports,
        store: &mut Store<StoreData>,
    ) -> impl Future<Output = wasmtime::Result<Self::Answer>> + Send;
}

/// Requests a verdict at an SMTP stage or at delivery.
pub(crate) struct StageQuestion(pub(crate) Call);

/// Requests a verdict about SMTP AUTH credentials.
pub(crate) struct AuthQuestion(pub(crate) Arc<Credentials>);

/// Notifies of the result of SMTP AUTH.
pub(crate) struct LoginResultNotice(pub(crate) Arc<LoginResult>);

/// Notifies that a copy of a message has been committed.
pub(crate) struct QueuedNotice;

/// Notifies of the results of a delivery attempt.
pub(crate) struct DeliveryResultNotice(pub(crate) Arc<[DeliveryOutcome]>);

/// Notifies that the session has ended.
pub(crate) struct DisconnectNotice;

/// Notifies that the plugin's timer interval has elapsed.
pub(crate) struct TimerNotice;

impl GuestQuestion for StageQuestion {
    type Answer = Verdict;

    fn hook(&self) -> Hook {
        self.0.hook()
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<Verdict> {
        match &self.0 {
            Call::Connect => exported(exports.on_connect.as_ref())?.call_handle(store).await,
            Call::Hello(name) => exported(exports.on_hello.as_ref())?.call_handle(store, name).await,
            Call::Mail => exported(exports.on_mail.as_ref())?.call_handle(store).await,
            Call::Rcpt(id) => {
                let no_such = || wasmtime::Error::msg(format!("the view has no recipient {id}"));
                let (_, transaction) = store.data().call.mail().map_err(|_| no_such())?;
                let gateway = store.data().services().gateway.load_full();
                let recipient = convert::recipient(transaction.recipient(*id).ok_or_else(no_such)?, &gateway);
                exported(exports.on_rcpt.as_ref())?.call_handle(store, &recipient).await
            }
            Call::Data => exported(exports.on_data.as_ref())?.call_handle(store).await,
            Call::Headers => exported(exports.on_headers.as_ref())?.call_handle(store).await,
            Call::Message => exported(exports.on_message.as_ref())?.call_handle(store).await,
            Call::Deliver => exported(exports.on_deliver.as_ref())?.call_handle(store).await,
        }
    }
}

impl GuestQuestion for AuthQuestion {
    type Answer = AuthVerdict;

    fn hook(&self) -> Hook {
        Hook::AuthPassword
    }

    async fn ask(
        &self,
        exports: &GuestExports,
        store: &mut Store<StoreData>,
    ) -> wasmtime::Result<AuthVerdict> {
        let given = &self.0;
        let hook = exported(exports.on_auth_password.as_ref())?;
        let authorization_id = given.authorization_id.as_deref();
        hook.call_handle(store, &given.mechanism, authorization_id, &given.username, &given.password).await
    }
}

impl GuestQuestion for LoginResultNotice {
    type Answer = ();

    fn hook(&self) -> Hook {
        Hook::AuthResult
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        let LoginResult { mechanism, username, outcome } = &*self.0;
        let hook = exported(exports.on_auth_result.as_ref())?;
        hook.call_handle(store, mechanism, username, outcome.name()).await
    }
}

impl GuestQuestion for QueuedNotice {
    type Answer = ();

    fn hook(&self) -> Hook {
        Hook::Queued
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        exported(exports.on_queued.as_ref())?.call_handle(store).await
    }
}

impl GuestQuestion for DeliveryResultNotice {
    type Answer = ();

    fn hook(&self) -> Hook {
        Hook::DeliveryResult
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        let outcomes: Vec<_> = self.0.iter().map(convert::outcome).collect();
        exported(exports.on_delivery_result.as_ref())?.call_handle(store, &outcomes).await
    }
}

impl GuestQuestion for DisconnectNotice {
    type Answer = ();

    fn hook(&self) -> Hook {
        Hook::Disconnect
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        exported(exports.on_disconnect.as_ref())?.call_handle(store).await
    }
}

impl GuestQuestion for TimerNotice {
    type Answer = ();

    fn hook(&self) -> Hook {
        Hook::Timer
    }

    async fn ask(&self, exports: &GuestExports, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        exported(exports.on_timer.as_ref())?.call_handle(store).await
    }
}

/// Returns the hook's function. Hooks that are not exported are never called; the error only satisfies the type.
fn exported<T>(hook: Option<&T>) -> wasmtime::Result<&T> {
    hook.ok_or_else(|| wasmtime::Error::msg("the hook is not exported"))
}

macro_rules! exports {
    ($($field:ident: $hook:ident),+ $(,)?) => {
        /// Indices of a component's exports, looked up once per component.
        pub(crate) struct ExportIndices {
            plugin: plugin::GuestIndices,
            $($field: Option<$field::GuestIndices>),+
        }

        impl ExportIndices {
            pub(crate) fn find(linked: &InstancePre<StoreData>, hooks: Hooks) -> wasmtime::Result<Self> {
                Ok(Self {
                    plugin: plugin::GuestIndices::new(linked)?,
                    $($field: match hooks.has(Hook::$hook) {
                        true => Some($field::GuestIndices::new(linked)?),
                        false => None,
                    }),+
                })
            }

            pub(crate) fn load(&self, store: &mut Store<StoreData>, linked: &Instance) -> wasmtime::Result<GuestExports> {
                Ok(GuestExports {
                    plugin: self.plugin.load(&mut *store, linked)?,
                    $($field: match &self.$field {
                        Some(indices) => Some(indices.load(&mut *store, linked)?),
                        None => None,
                    }),+
                })
            }
        }

        /// The exported functions of one instance.
        pub(crate) struct GuestExports {
            pub(crate) plugin: plugin::Guest,
            $($field: Option<$field::Guest>),+
        }
    };
}

exports! {
    on_connect: Connect,
    on_hello: Hello,
    on_auth_password: AuthPassword,
    on_auth_result: AuthResult,
    on_mail: Mail,
    on_rcpt: Rcpt,
    on_data: Data,
    on_headers: Headers,
    on_message: Message,
    on_queued: Queued,
    on_deliver: Deliver,
    on_delivery_result: DeliveryResult,
    on_disconnect: Disconnect,
    on_timer: Timer,
}
