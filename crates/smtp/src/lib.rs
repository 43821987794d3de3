//! Both SMTP protocol machines, without I/O
