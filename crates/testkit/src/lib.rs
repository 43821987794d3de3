//! Test doubles: zone server, certificate authority, sink, transcripts
