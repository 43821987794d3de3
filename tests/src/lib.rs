//! What the scenarios share: starting the real binary, and talking to it.
