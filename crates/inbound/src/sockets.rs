//! The sockets of the listeners. They are bound before anything else starts: ports below 1024 may need privileges that
//! are dropped next.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenerConfig;
use crate::start_error::StartError;

/// The listen backlog: how many connections the kernel queues until they are accepted.
const BACKLOG: i32 = 1_024;

/// Bound sockets that do not accept connections yet.
#[derive(Debug)]
pub struct Sockets(Vec<TcpListener>);

impl Sockets {
    /// Binds every address of these listeners.
    ///
    /// # Errors
    /// Returns the first that cannot be bound; none stays bound then.
    pub fn bind(listeners: &[ListenerConfig]) -> Result<Self, StartError> {
        let all =
            listeners.iter().flat_map(|listener| listener.addresses.iter().map(move |at| (listener, at)));
        let bound = all.map(|(listener, address)| {
            let failed =
                |source| StartError::Bind { listener: listener.name.clone(), address: *address, source };
            bind(*address).map_err(failed)
        });
        bound.collect::<Result<_, _>>().map(Self)
    }

    /// Iterates in the order of the listeners and their addresses.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = TcpListener> {
        self.0.into_iter()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The configuration has separate addresses for IPv4 and IPv6, so that the result does not depend on a kernel
        // setting.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
