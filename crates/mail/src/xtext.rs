//! xtext (RFC 3461 section 4): how ENVID, ORCPT and AUTH write characters that a command line cannot hold.

/// The text that the xtext stands for; a `+` that no two upper-case hexadecimal digits follow stands for itself.
#[must_use]
pub fn decode(xtext: &str) -> String {
    let bytes = xtext.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let coded = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'+').and_then(octet);
        out.push(coded.unwrap_or(bytes[at]));
        at += if coded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn octet(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coded_octets_are_read_and_the_rest_is_kept() {
        assert_eq!(decode("a+2Bb+3D"), "a+b=");
        assert_eq!(decode("+"), "+");
        assert_eq!(decode("+2"), "+2");
        assert_eq!(decode("+2b+zz"), "+2b+zz");
        assert_eq!(decode("+C3+A4"), "ä");
        assert_eq!(decode("ä+2B"), "ä+");
    }
}
