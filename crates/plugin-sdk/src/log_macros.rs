//! Log macros in the manner of the ecosystem: fields first, then a semicolon, then the text.

/// Writes a log line of a level; see [`info!`](crate::info).
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
/// The host adds plugin, hook, session and queue id. Nothing is formatted when the level is off.
#[macro_export]
macro_rules! info { ($($line:tt)+) => { $crate::__log!(Info; $($line)+) }; }

/// Logs what a developer of the plugin wants to know; see [`info!`](crate::info).
#[macro_export]
macro_rules! debug { ($($line:tt)+) => { $crate::__log!(Debug; $($line)+) }; }

/// Logs what the operator should look into; see [`info!`](crate::info).
#[macro_export]
macro_rules! warn { ($($line:tt)+) => { $crate::__log!(Warn; $($line)+) }; }

/// Logs what does not work; see [`info!`](crate::info).
#[macro_export]
macro_rules! error { ($($line:tt)+) => { $crate::__log!(Error; $($line)+) }; }
