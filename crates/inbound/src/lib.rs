//! From the accepted socket to the durable message
