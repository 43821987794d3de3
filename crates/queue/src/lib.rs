//! What is due, for which next hop, and when again
