//! STARTTLS (RFC 3207): waiting for the TLS handshake, and discarding what must not survive it.

use bytes::BytesMut;

use super::SessionState;
use super::ehlo::ExpectHello;
use crate::server::event::{Closed, Event};
use crate::server::fault::SessionFault;
use crate::server::shared::Core;

/// The 220 reply to STARTTLS is queued; input is not SMTP until the handshake is done.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    ignored: bool,
}

impl Handshake {
    /// RFC 3207 section 4.2 and CVE-2011-0411: plaintext that follows STARTTLS must never be taken for something
    /// received under TLS.
    pub(crate) fn ignore_input(mut self, core: &mut Core) -> SessionState {
        if !core.input.is_empty() {
            core.input = BytesMut::new();
            if !std::mem::replace(&mut self.ignored, true) {
                core.event(Event::Fault(SessionFault::PlaintextBehindStartTls));
            }
        }
        self.into()
    }

    /// RFC 3207 section 4.2: what was learned in plaintext is discarded, including EHLO and the login.
    pub(crate) fn succeeded(self, core: &mut Core) -> SessionState {
        core.tls = true;
        core.identity = None;
        ExpectHello.into()
    }

    /// The session cannot return to plaintext: the client may be in the middle of a TLS record.
    pub(crate) fn failed(self, core: &mut Core) -> SessionState {
        core.event(Event::Fault(SessionFault::TlsFailed));
        core.close(None, Closed::Fault(SessionFault::TlsFailed))
    }
}
