//! Addresses within addresses.
//!
//! Mail servers have read other addresses out of local parts for forty years: `user%host@here` and `host!user@here` were
//! routes once, and `"user@host"@here` becomes one where a server forgets the quotes. Which of them the next hop does,
//! nobody here can know; so every host that any reading gives is found.

/// The hosts in a local part, in lower case.
pub(crate) fn domains(local: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut piece = String::new();
    let mut follows_sign = false;
    for c in local.chars().chain(['\0']) {
        let is_sign = matches!(c, '@' | '%' | '!' | ':' | ',' | '\0');
        if !is_sign {
            piece.extend(c.to_lowercase());
            continue;
        }
        // A host follows @ and %, and precedes !.
        if (follows_sign || c == '!') && !piece.is_empty() {
            found.push(std::mem::take(&mut piece));
        }
        piece.clear();
        follows_sign = matches!(c, '@' | '%');
    }
    found
}

#[cfg(test)]
mod tests {
    use super::domains;

    #[test]
    fn every_host_that_can_be_read_is_found() {
        for (local, hosts) in [
            ("ann", &[][..]),
            ("ann.lee+x=y", &[]),
            ("ann%b.example", &["b.example"]),
            ("ann%b.example%C.example", &["b.example", "c.example"]),
            ("b.example!c.example!ann", &["b.example", "c.example"]),
            ("b.example!ann%c.example", &["b.example", "c.example"]),
            ("ann@b.example", &["b.example"]),
            ("@b.example,@c.example:ann@d.example", &["b.example", "c.example", "d.example"]),
            ("ann%", &[]),
        ] {
            assert_eq!(domains(local), hosts, "{local}");
        }
    }
}
