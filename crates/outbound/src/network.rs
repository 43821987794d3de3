//! The network as a parameter: connections to next hops go through a trait, so that a simulation can replace the
//! system's network.
//!
//! `connect` decides which addresses are tried, in what order, how long that may take, and which protocol is used.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// The port for asking the kernel for a source address, which refuses port 0. Nothing is sent to it.
const DISCARD: u16 = 9;

/// The byte stream under a session: a socket, or TLS over one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAddress {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How outbound connects to next hops: [`SystemNetwork`], but for simulations.
pub trait Network: Send + Sync + 'static {
    /// Connects to an address, from the source address if one is given. The caller limits how long it waits.
    ///
    /// The result is the system's error if the connection fails.
    fn connect(
        &self,
        to: &HostAddress,
        source: Option<IpAddr>,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;

    /// Whether this is an address of the machine that we run on.
    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified()
    }
}

/// The network of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn connect(
        &self,
        to: &HostAddress,
        source: Option<IpAddr>,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let to = to.clone();
        Box::pin(async move {
            Ok(match to {
                HostAddress::Tcp(address) => Box::new(connect_tcp(address, source).await?) as Box<dyn Stream>,
                HostAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        })
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || leads_here(address).unwrap_or(false)
    }
}

/// Asks the kernel for the source address towards this one: for an address of its own it is the same. Nothing is sent.
/// Binding the address would prove nothing where binding foreign addresses is allowed.
fn leads_here(address: IpAddr) -> io::Result<bool> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, DISCARD))?;
    Ok(socket.local_addr()?.ip() == address)
}

async fn connect_tcp(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    // Commands are written whole, so Nagle's algorithm would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_which_addresses_are_here() {
        let here = |text: &str| SystemNetwork.is_here(text.parse().unwrap());
        assert!(here("127.0.0.1") && here("127.9.9.9") && here("0.0.0.0"));
        assert!(!here("192.0.2.1") && !here("2001:db8::1"));
        assert!(leads_here("127.0.0.1".parse().unwrap()).unwrap(), "by asking, too");
    }
}
