//! An IP address as text: in a session's record, and in the headers of each request to a backend.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr};

/// `255.255.255.255`
const LONGEST_V4: usize = 15;

/// Shows an address in one piece; the standard library's own puts an IPv4 address together from seven.
pub struct Address(pub IpAddr);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => {
                let (text, len) = decimal(address);
                f.write_str(std::str::from_utf8(text.get(..len).unwrap_or_default()).unwrap_or_default())
            }
            IpAddr::V6(address) => address.fmt(f),
        }
    }
}

/// Appends an address.
pub fn push(out: &mut String, address: IpAddr) {
    // Writing into a string cannot fail.
    let _ = write!(out, "{}", Address(address));
}

fn decimal(address: Ipv4Addr) -> ([u8; LONGEST_V4], usize) {
    let (mut text, mut len) = ([0; LONGEST_V4], 0);
    let mut put = |byte| {
        if let Some(place) = text.get_mut(len) {
            *place = byte;
            len += 1;
        }
    };
    for (i, octet) in address.octets().into_iter().enumerate() {
        if i > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    (text, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_the_standard_library_writes_them() {
        for a in 0..=255_u8 {
            for b in [0, 1, 9, 10, 99, 100, 255] {
                let address = IpAddr::from([a, b, 255 - a, b / 2]);
                assert_eq!(Address(address).to_string(), address.to_string());
            }
        }
        for address in ["::1", "2001:db8::7", "::ffff:10.0.0.1"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(Address(address).to_string(), address.to_string());
        }
        let mut out = String::from("a, ");
        push(&mut out, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(out, "a, 127.0.0.1");
    }
}
