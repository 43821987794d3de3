//! The resolver: one trait, one implementation, one cache
