//! TLS set-up: server and client configurations, certificates that reload
