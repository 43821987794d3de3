//! STARTTLS: the handshake, and what must not survive it (RFC 3207).

use bytes::BytesMut;

use super::SessionState;
use super::ehlo::ExpectHello;
use crate::server::event::{Closed, Event};
use crate::server::fault::SessionFault;
use crate::server::shared::Core;

/// The 220 to STARTTLS is out; what comes now is not for us to read.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    ignored: bool,
}

impl Handshake {
    /// RFC 3207 section 4.2 and CVE-2011-0411: what came in the clear behind STARTTLS must never be taken for something
    /// that came within TLS.
    pub(crate) fn ignore_input(mut self, core: &mut Core) -> SessionState {
        if !core.input.is_empty() {
            core.input = BytesMut::new();
            if !std::mem::replace(&mut self.ignored, true) {
                core.event(Event::Fault(SessionFault::PlaintextBehindStartTls));
            }
        }
        self.into()
    }

    /// RFC 3207 section 4.2: what was learned in the clear is forgotten, the hello and the login included.
    pub(crate) fn succeeded(self, core: &mut Core) -> SessionState {
        core.tls = true;
        core.identity = None;
        ExpectHello.into()
    }

    /// There is no way back to plain text: the peer may be in the middle of a record.
    pub(crate) fn failed(self, core: &mut Core) -> SessionState {
        core.event(Event::Fault(SessionFault::TlsFailed));
        core.close(None, Closed::Fault(SessionFault::TlsFailed))
    }
}
