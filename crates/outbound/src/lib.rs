//! From the durable message to the next hop
