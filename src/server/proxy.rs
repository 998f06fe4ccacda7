//! The PROXY protocol, versions 1 and 2 (HAProxy, proxy-protocol.txt): a header before everything else, in which a
//! load balancer tells whose connection it passes on.

use std::net::IpAddr;

use ppp::{PartialResult as _, v1, v2};

/// Most bytes of a header. Version 2 has addresses of at most 216 bytes and extensions,
/// of which a client's certificate would be the largest.
pub const LONGEST: usize = 4096;

/// How version 1 begins, and its longest line with its end (section 2.1).
const VERSION_1: &[u8] = b"PROXY";
const LONGEST_LINE: usize = 107;

/// Where the load balancer does not know, or does not say (section 2.1).
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

/// PP2_TYPE_SSL (section 2.2.6), and in its first byte that the client spoke TLS.
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// What bytes at the start of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Incomplete,
    /// A header of this many bytes.
    Header {
        /// After these the client's own bytes begin.
        length: usize,
        /// Whose connection it is; `None` is the load balancer's own, such as a health check.
        client: Option<Client>,
    },
    /// No header, and no beginning of one.
    Invalid,
}

/// Whose connection it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address; `None` where it came over a Unix socket or by other means.
    pub address: Option<IpAddr>,
    /// Whether the load balancer has it through TLS.
    pub encrypted: bool,
}

/// Reads a header.
pub fn parse(bytes: &[u8]) -> Parsed {
    let start = bytes.len().min(VERSION_1.len());
    if bytes[..start] == VERSION_1[..start] {
        return parse_v1(bytes);
    }
    match v2::Header::try_from(bytes) {
        Ok(header) => Parsed::Header {
            length: header.len(),
            client: of_v2(&header),
        },
        Err(error) if error.is_incomplete() && bytes.len() < LONGEST => Parsed::Incomplete,
        Err(_) => Parsed::Invalid,
    }
}

/// A line. Only a whole one is parsed: the parser takes some beginnings of one for mistakes.
fn parse_v1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() < LONGEST_LINE {
            true => Parsed::Incomplete,
            false => Parsed::Invalid,
        };
    };
    // What follows this word is ignored, whatever it is; the parser takes no more than four words.
    if let Some([] | [b' ', ..]) = line[..end].strip_prefix(UNKNOWN) {
        return Parsed::Header {
            length: end + 2,
            client: None,
        };
    }
    match v1::Header::try_from(&line[..end + 2]) {
        // Rust's numbers may have a sign, ports have none.
        Ok(header) if !line[..end].contains(&b'+') => Parsed::Header {
            length: end + 2,
            client: of_v1(&header.addresses),
        },
        _ => Parsed::Invalid,
    }
}

/// `UNKNOWN` is to be read as the connection's own address (section 2.1).
fn of_v1(addresses: &v1::Addresses) -> Option<Client> {
    let address: IpAddr = match addresses {
        v1::Addresses::Unknown => return None,
        v1::Addresses::Tcp4(tcp) => tcp.source_address.into(),
        v1::Addresses::Tcp6(tcp) => tcp.source_address.into(),
    };
    Some(Client {
        address: Some(address.to_canonical()),
        encrypted: false,
    })
}

/// `LOCAL` and unspecified addresses likewise (section 2.2).
fn of_v2(header: &v2::Header<'_>) -> Option<Client> {
    if header.command == v2::Command::Local {
        return None;
    }
    let address: Option<IpAddr> = match header.addresses {
        v2::Addresses::Unspecified => return None,
        v2::Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
        v2::Addresses::IPv6(addresses) => Some(addresses.source_address.into()),
        v2::Addresses::Unix(_) => None,
    };
    let told = header.tlvs().map_while(Result::ok);
    let encrypted = told
        .filter(|extension| extension.kind == TYPE_SSL)
        .any(|extension| {
            extension
                .value
                .first()
                .is_some_and(|told| told & CLIENT_SSL != 0)
        });
    Some(Client {
        address: address.map(|address| address.to_canonical()),
        encrypted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, encrypted: bool) -> Option<Client> {
        Some(Client {
            address: Some(address.parse().unwrap()),
            encrypted,
        })
    }

    fn header(parsed: Parsed) -> (usize, Option<Client>) {
        match parsed {
            Parsed::Header { length, client } => (length, client),
            other => panic!("{other:?}"),
        }
    }

    /// Version 2 with IPv4 addresses and these extensions.
    fn version_2(command: u8, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([0x20 | command, 0x11]);
        bytes.extend(u16::try_from(12 + extensions.len()).unwrap().to_be_bytes());
        bytes.extend([198, 51, 100, 7, 10, 0, 0, 1, 0xc0, 0, 1, 0xbb]);
        bytes.extend(extensions);
        bytes
    }

    #[test]
    fn version_1_tells_the_clients_address() {
        let line = b"PROXY TCP4 198.51.100.7 10.0.0.1 49152 443\r\n";
        let found = header(parse(&[&line[..], b"GET / HTTP/1.1\r\n"].concat()));
        assert_eq!(found, (line.len(), client("198.51.100.7", false)));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 49152 443\r\n";
        assert_eq!(header(parse(line)).1, client("2001:db8::7", false));
        let line = b"PROXY TCP6 ::ffff:198.51.100.7 ::1 49152 443\r\n";
        assert_eq!(header(parse(line)).1, client("198.51.100.7", false));
        assert_eq!(header(parse(b"PROXY UNKNOWN\r\n")), (15, None));
        let line = b"PROXY UNKNOWN what ever there is to be ignored \xff\r\n";
        let found = header(parse(&[&line[..], b"GET"].concat()));
        assert_eq!(found, (line.len(), None));
        assert_eq!(parse(b"PROXY UNKNOWNS\r\n"), Parsed::Invalid);
    }

    #[test]
    fn version_2_tells_the_clients_address_and_whether_it_spoke_tls() {
        let bytes = version_2(1, &[]);
        assert_eq!(
            header(parse(&[&bytes[..], b"GET /"].concat())),
            (bytes.len(), client("198.51.100.7", false))
        );
        // An extension that nobody knows, then PP2_TYPE_SSL with a verify field and a version.
        let tls = [0xe0, 0, 1, 9, 0x20, 0, 5, 1, 0, 0, 0, 0];
        assert_eq!(
            header(parse(&version_2(1, &tls))).1,
            client("198.51.100.7", true)
        );
        let plain = [0x20, 0, 5, 0, 0, 0, 0, 0];
        assert_eq!(
            header(parse(&version_2(1, &plain))).1,
            client("198.51.100.7", false)
        );
        assert_eq!(header(parse(&version_2(0, &tls))).1, None, "LOCAL");
    }

    #[test]
    fn every_beginning_of_a_header_waits_for_more_and_nothing_else_does() {
        let line = &b"PROXY TCP4 198.51.100.7 10.0.0.1 49152 443\r\n"[..];
        for whole in [line, &version_2(1, &[0xe0, 0, 1, 9])] {
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]), Parsed::Incomplete, "{length}");
            }
        }
        for other in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXY TCP4 198.51.100.7 10.0.0.1 49152 99999\r\n",
            b"PROXY TCP4 ::1 10.0.0.1 49152 443\r\n",
            b"PROXY TCP4 198.51.100.7 10.0.0.1 +49152 443\r\n",
            b"PROXY\r\n",
            b"PROXY TCP4 198.51.100.7 10.0.0.1 49152 443\n GET / HTTP/1.1\r\n",
            b"PROXY TCP5 198.51.100.7 10.0.0.1 49152 443\r\n",
            b"\x16\x03\x01\x02\x00",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
        ] {
            assert_eq!(parse(other), Parsed::Invalid, "{other:?}");
        }
        assert_eq!(parse(&[b'A'; LONGEST]), Parsed::Invalid);
        let endless = [&b"PROXY UNKNOWN "[..], &[b'A'; 93]].concat();
        assert_eq!(parse(&endless), Parsed::Invalid);
        assert_eq!(parse(&endless[..106]), Parsed::Incomplete);
        let mut huge = version_2(1, &[]);
        huge[14..16].copy_from_slice(&[0xff, 0xff]);
        huge.resize(LONGEST, 0);
        assert_eq!(parse(&huge), Parsed::Invalid);
    }
}
