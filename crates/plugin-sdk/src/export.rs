//! The macro that exports a plugin type as a component.
//!
//! The arm of each hook implements the hook's generated trait for a private type, and calls the export macro generated
//! from the hook's world, which adds the description of this export to the component.

/// Exports a plugin: its type, a colon, and the list of its hooks.
///
/// ```
/// # use pintle_plugin_sdk::prelude::*;
/// # #[derive(serde::Deserialize)]
/// # struct Noop {}
/// # impl Plugin for Noop {
/// #     const ID: &'static str = "acme.noop";
/// # }
/// # impl Noop {
/// #     fn on_rcpt(&self, _: &Recipient) -> Verdict { Verdict::Next }
/// #     fn on_message(&self) -> Verdict { Verdict::Next }
/// # }
/// pintle_plugin_sdk::export!(Noop: on_rcpt, on_message);
/// ```
///
/// The hook for passwords has the most arguments:
///
/// ```
/// # use pintle_plugin_sdk::prelude::*;
/// # #[derive(serde::Deserialize)]
/// # struct Noop {}
/// # impl Plugin for Noop {
/// #     const ID: &'static str = "acme.noop";
/// # }
/// impl Noop {
///     fn on_auth_password(
///         &self,
///         _mechanism: &str,
///         authorization_id: Option<&str>,
///         username: &str,
///         password: &str,
///     ) -> AuthVerdict {
///         let may_act_as = authorization_id.is_none_or(|other| other == username);
///         match password {
///             "secret" if may_act_as => AuthVerdict::Granted(username.to_owned()),
///             _ => AuthVerdict::Denied(None),
///         }
///     }
/// }
///
/// pintle_plugin_sdk::export!(Noop: on_auth_password);
/// ```
///
/// A name that is not a hook does not compile:
///
/// ```compile_fail
/// # use pintle_plugin_sdk::prelude::*;
/// # #[derive(serde::Deserialize)]
/// # struct Noop {}
/// # impl Plugin for Noop {
/// #     const ID: &'static str = "acme.noop";
/// # }
/// # impl Noop {
/// #     fn on_body(&self) -> Verdict { Verdict::Next }
/// # }
/// pintle_plugin_sdk::export!(Noop: on_body);
/// ```
///
/// Call it once per crate. The manifest's version, summary, license and homepage come from the crate's
/// Cargo.toml.
#[macro_export]
macro_rules! export {
    ($plugin:ident : $($hook:ident),+ $(,)?) => {
        const _: () = {
            ::std::thread_local! {
                static SLOT: $crate::plugin::PluginSlot<$plugin> = const { $crate::plugin::PluginSlot::new() };
            }

            struct Exports;

            impl $crate::bindings::services::exports::pintle::plugin::plugin::Guest for Exports {
                fn describe() -> $crate::bindings::services::exports::pintle::plugin::plugin::Manifest {
                    $crate::plugin::PluginSlot::<$plugin>::manifest(
                        env!("CARGO_PKG_VERSION"),
                        env!("CARGO_PKG_DESCRIPTION"),
                        &[
                            ("license", env!("CARGO_PKG_LICENSE")),
                            ("homepage", env!("CARGO_PKG_HOMEPAGE")),
                        ],
                    )
                }

                fn configure(config: ::std::string::String) -> ::std::result::Result<(), ::std::vec::Vec<$crate::ConfigError>> {
                    SLOT.with(|slot| slot.configure(&config))
                }
            }

            $crate::bindings::services::export!(Exports with_types_in $crate::bindings::services);
            $( $crate::__export_hook!($plugin $hook $hook); )+
        };
    };
}

/// Exports one hook. The name is passed twice: once to match on, and once as the author wrote it, so that errors point
/// there.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    ($plugin:ident on_connect $hook:ident) => {
        impl $crate::bindings::on_connect::exports::pintle::plugin::on_connect::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_connect")
            }
        }
        $crate::bindings::on_connect::export!(Exports with_types_in $crate::bindings::on_connect);
    };
    ($plugin:ident on_hello $hook:ident) => {
        impl $crate::bindings::on_hello::exports::pintle::plugin::on_hello::Guest for Exports {
            fn handle(name: ::std::string::String) -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin, &name), "on_hello")
            }
        }
        $crate::bindings::on_hello::export!(Exports with_types_in $crate::bindings::on_hello);
    };
    ($plugin:ident on_auth_password $hook:ident) => {
        impl $crate::bindings::on_auth_password::exports::pintle::plugin::on_auth_password::Guest for Exports {
            fn handle(
                mechanism: ::std::string::String,
                authorization_id: ::std::option::Option<::std::string::String>,
                username: ::std::string::String,
                password: ::std::string::String,
            ) -> $crate::AuthVerdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                let verdict =
                    <$plugin>::$hook(&plugin, &mechanism, authorization_id.as_deref(), &username, &password);
                $crate::Settle::settle(verdict, "on_auth_password")
            }
        }
        $crate::bindings::on_auth_password::export!(Exports with_types_in $crate::bindings::on_auth_password);
    };
    ($plugin:ident on_auth_result $hook:ident) => {
        impl $crate::bindings::on_auth_result::exports::pintle::plugin::on_auth_result::Guest for Exports {
            fn handle(
                mechanism: ::std::string::String,
                username: ::std::string::String,
                outcome: ::std::string::String,
            ) {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin, &mechanism, &username, &outcome), "on_auth_result")
            }
        }
        $crate::bindings::on_auth_result::export!(Exports with_types_in $crate::bindings::on_auth_result);
    };
    ($plugin:ident on_mail $hook:ident) => {
        impl $crate::bindings::on_mail::exports::pintle::plugin::on_mail::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_mail")
            }
        }
        $crate::bindings::on_mail::export!(Exports with_types_in $crate::bindings::on_mail);
    };
    ($plugin:ident on_rcpt $hook:ident) => {
        impl $crate::bindings::on_rcpt::exports::pintle::plugin::on_rcpt::Guest for Exports {
            fn handle(rcpt: $crate::Recipient) -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin, &rcpt), "on_rcpt")
            }
        }
        $crate::bindings::on_rcpt::export!(Exports with_types_in $crate::bindings::on_rcpt);
    };
    ($plugin:ident on_data $hook:ident) => {
        impl $crate::bindings::on_data::exports::pintle::plugin::on_data::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_data")
            }
        }
        $crate::bindings::on_data::export!(Exports with_types_in $crate::bindings::on_data);
    };
    ($plugin:ident on_headers $hook:ident) => {
        impl $crate::bindings::on_headers::exports::pintle::plugin::on_headers::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_headers")
            }
        }
        $crate::bindings::on_headers::export!(Exports with_types_in $crate::bindings::on_headers);
    };
    ($plugin:ident on_message $hook:ident) => {
        impl $crate::bindings::on_message::exports::pintle::plugin::on_message::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_message")
            }
        }
        $crate::bindings::on_message::export!(Exports with_types_in $crate::bindings::on_message);
    };
    ($plugin:ident on_queued $hook:ident) => {
        impl $crate::bindings::on_queued::exports::pintle::plugin::on_queued::Guest for Exports {
            fn handle() {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_queued")
            }
        }
        $crate::bindings::on_queued::export!(Exports with_types_in $crate::bindings::on_queued);
    };
    ($plugin:ident on_deliver $hook:ident) => {
        impl $crate::bindings::on_deliver::exports::pintle::plugin::on_deliver::Guest for Exports {
            fn handle() -> $crate::Verdict {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_deliver")
            }
        }
        $crate::bindings::on_deliver::export!(Exports with_types_in $crate::bindings::on_deliver);
    };
    ($plugin:ident on_delivery_result $hook:ident) => {
        impl $crate::bindings::on_delivery_result::exports::pintle::plugin::on_delivery_result::Guest for Exports {
            fn handle(outcomes: ::std::vec::Vec<$crate::DeliveryOutcome>) {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin, &outcomes), "on_delivery_result")
            }
        }
        $crate::bindings::on_delivery_result::export!(Exports with_types_in $crate::bindings::on_delivery_result);
    };
    ($plugin:ident on_disconnect $hook:ident) => {
        impl $crate::bindings::on_disconnect::exports::pintle::plugin::on_disconnect::Guest for Exports {
            fn handle() {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_disconnect")
            }
        }
        $crate::bindings::on_disconnect::export!(Exports with_types_in $crate::bindings::on_disconnect);
    };
    ($plugin:ident on_timer $hook:ident) => {
        impl $crate::bindings::on_timer::exports::pintle::plugin::on_timer::Guest for Exports {
            fn handle() {
                let plugin = SLOT.with($crate::plugin::PluginSlot::plugin);
                $crate::Settle::settle(<$plugin>::$hook(&plugin), "on_timer")
            }
        }
        $crate::bindings::on_timer::export!(Exports with_types_in $crate::bindings::on_timer);
    };
    ($plugin:ident $name:ident $hook:ident) => {
        compile_error!(concat!(
            "`",
            stringify!($hook),
            "` is no hook; there are on_connect, on_hello, on_auth_password, on_auth_result, on_mail, on_rcpt, on_data, ",
            "on_headers, on_message, on_queued, on_deliver, on_delivery_result, on_disconnect and on_timer"
        ));
    };
}
