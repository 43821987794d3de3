//! Both SMTP protocol machines, without I/O

pub mod client;
