//! The names of facts that the gateway itself publishes. They begin with `pintle.`, a prefix that no judge can write.

/// The prefix of the gateway's own facts.
pub const PREFIX: &str = "pintle.";
/// The client's confirmed host name, a fact of the session: written into the Received field.
pub const CLIENT_NAME: &str = "pintle.client-name";
/// How the message breaks the rules of MIME, a fact of the transaction: words separated by spaces.
pub const MIME_MALFORMED: &str = "pintle.mime-malformed";
/// What of the MIME tree was not examined, a fact of the transaction: words separated by spaces.
pub const MIME_TRUNCATED: &str = "pintle.mime-truncated";
