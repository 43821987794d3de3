//! Log macros in the style of the `log` and `tracing` crates: fields first, then a semicolon, then the text.

/// Writes a log line at a level; see [`info!`](crate::info).
#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident; $($key:ident = $value:expr),+ $(,)?; $($text:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            let fields = [$((stringify!($key).to_owned(), ($value).to_string())),+];
            $crate::log::write($crate::log::Level::$level, &format!($($text)+), &fields);
        }
    };
    ($level:ident; $($text:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::write($crate::log::Level::$level, &format!($($text)+), &[]);
        }
    };
}

/// Logs for the operator: `info!("text {x}")`, or with fields `info!(rcpt = address, list = zone; "text")`.
///
/// The host adds plugin, hook, session and queue id. Nothing is formatted if the level is disabled.
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::__log!(Info; $($line)+) }; }

/// Logs details for developers of the plugin; see [`info!`](crate::info).
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::__log!(Debug; $($line)+) }; }

/// Logs a problem that the operator should investigate; see [`info!`](crate::info).
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::__log!(Warn; $($line)+) }; }

/// Logs a failure; see [`info!`](crate::info).
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::__log!(Error; $($line)+) }; }
