//! How many sessions there may be at once: in all, and from one address.
//!
//! A permit is taken before the greeting and given back when it is dropped, so that no path out of a session can forget
//! it. An IPv6 client counts by its /64, since one host has all of that to choose from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The limits of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions at once.
    pub total: usize,
    /// Sessions at once from one address.
    pub per_address: usize,
    /// Sessions at once from one address of a trusted network. Several Exchange servers behind one address open 20 each.
    pub per_trusted_address: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { total: 10_000, per_address: 40, per_trusted_address: 400 }
    }
}

/// Which limit a client has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// All sessions of the listener are in use.
    Total,
    /// All sessions that its address may have are in use.
    Address,
}

/// Hands out permits.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Leave to hold one session; give it back by dropping it.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    key: IpAddr,
}

impl Permits {
    /// Takes a permit for a client at this address.
    ///
    /// # Errors
    /// Says which limit is reached.
    pub fn take(&self, client: IpAddr, trusted: bool, limits: SessionLimits) -> Result<Permit, Crowded> {
        let key = network_of(client);
        let mut counts = self.0.lock();
        if counts.total >= limits.total {
            return Err(Crowded::Total);
        }
        let most = if trusted { limits.per_trusted_address } else { limits.per_address };
        let count = counts.by_address.entry(key).or_insert(0);
        if *count >= most {
            return Err(Crowded::Address);
        }
        *count += 1;
        counts.total += 1;
        Ok(Permit { permits: self.clone(), key })
    }

    /// Sessions that hold a permit now.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.lock().total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.permits.0.lock();
        counts.total -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.key);
            }
        }
    }
}

fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits { total: 3, per_address: 1, per_trusted_address: 2 };

    #[test]
    fn permits_come_back_when_dropped() {
        let permits = Permits::default();
        let client = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        let first = permits.take(client, false, LIMITS).unwrap();
        assert_eq!(permits.take(neighbour, false, LIMITS).unwrap_err(), Crowded::Address);
        let second = permits.take(neighbour, true, LIMITS).unwrap();
        let _third = permits.take("192.0.2.1".parse().unwrap(), false, LIMITS).unwrap();
        assert_eq!(permits.take("192.0.2.2".parse().unwrap(), false, LIMITS).unwrap_err(), Crowded::Total);
        drop((first, second));
        assert_eq!(permits.in_use(), 1);
        assert!(permits.take(client, false, LIMITS).is_ok());
    }
}
