//! Routes: the next hop of a recipient domain, by its exact name, else by the longest parent domain, else the default.

use std::collections::HashMap;

use pintle_mail::NextHop;

/// Routes by recipient domain. A look-up costs one hash per label of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTable {
    exact: HashMap<String, Route>,
    /// Routes of all subdomains, by parent domain without the leading dot.
    below: HashMap<String, Route>,
    default: Route,
}

/// The route of a domain: how its mail is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Route {
    /// To the mail exchangers (MX) of the recipient domain.
    #[default]
    Mx,
    /// To the configured relay of this name.
    Relay(String),
    /// To the configured relay of this name, which speaks LMTP (RFC 2033).
    Lmtp(String),
    /// Drops the mail, with a record in the event log.
    Discard,
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new(Route::Mx)
    }
}

impl RouteTable {
    /// Makes a table in which every domain has this route.
    #[must_use]
    pub fn new(default: Route) -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), default }
    }

    /// Adds a route: `example.org` for that domain alone, `.example.org` for all domains below it. Returns the route
    /// that this one replaces.
    pub fn add(&mut self, pattern: &str, route: Route) -> Option<Route> {
        let (map, domain) = match pattern.strip_prefix('.') {
            Some(parent) => (&mut self.below, parent),
            None => (&mut self.exact, pattern),
        };
        map.insert(pintle_mail::address::domain_to_ascii(domain), route)
    }

    /// The same table with one more route.
    #[must_use]
    pub fn with(mut self, pattern: &str, route: Route) -> Self {
        self.add(pattern, route);
        self
    }

    /// The next hop of a domain, which is given in A-labels and lower case.
    #[must_use]
    pub fn next_hop(&self, domain: &str) -> NextHop {
        match self.find(domain) {
            Route::Mx => NextHop::Mx(domain.to_owned()),
            Route::Relay(name) => NextHop::Relay(name.clone()),
            Route::Lmtp(name) => NextHop::Lmtp(name.clone()),
            Route::Discard => NextHop::Discard,
        }
    }

    /// The route of a domain.
    #[must_use]
    pub fn find(&self, domain: &str) -> &Route {
        if let Some(route) = self.exact.get(domain) {
            return route;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(route) = self.below.get(parent) {
                return route;
            }
            rest = parent;
        }
        &self.default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(name: &str) -> Route {
        Route::Relay(name.into())
    }

    #[test]
    fn the_most_special_route_wins() {
        let table = RouteTable::default()
            .with("example.org", relay("exact"))
            .with(".example.org", relay("below"))
            .with(".deep.example.org", Route::Discard)
            .with(".Müller.example", Route::Lmtp("store".into()));
        let hop = |domain: &str| table.next_hop(domain);
        assert_eq!(hop("example.org"), NextHop::Relay("exact".into()));
        assert_eq!(hop("a.example.org"), NextHop::Relay("below".into()));
        assert_eq!(hop("deep.example.org"), NextHop::Relay("below".into()));
        assert_eq!(hop("x.deep.example.org"), NextHop::Discard);
        assert_eq!(hop("a.xn--mller-kva.example"), NextHop::Lmtp("store".into()));
        assert_eq!(hop("notexample.org"), NextHop::Mx("notexample.org".into()));
        assert_eq!(hop("[192.0.2.1]"), NextHop::Mx("[192.0.2.1]".into()));
    }
}
