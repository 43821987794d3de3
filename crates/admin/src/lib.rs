//! The admin socket: queue, plugins, health, metrics
