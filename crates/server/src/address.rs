//! Which addresses are public: a function of numbers, no lookup.
//!
//! From IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one that everybody on the Internet reaches, so that fetching from it gives a client nothing
/// it could not fetch itself.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    !matches!(
        (a, b, c, d),
        (0, ..)                       // This network.
            | (10, ..)                // Private.
            | (100, 64..=127, ..)     // Shared by carriers; one cloud's metadata service lives here.
            | (127, ..)               // Loopback.
            | (169, 254, ..)          // Link-local; most clouds' metadata services live here.
            | (172, 16..=31, ..)      // Private.
            | (192, 0, 0, _)          // Protocol assignments.
            | (192, 0, 2, _)          // Documentation.
            | (192, 88, 99, _)        // Relays from IPv6, abandoned.
            | (192, 168, ..)          // Private.
            | (198, 18..=19, ..)      // Benchmarks.
            | (198, 51, 100, _)       // Documentation.
            | (203, 0, 113, _)        // Documentation.
            | (224..=255, ..)         // Multicast, reserved, broadcast.
            | (168, 63, 129, 16) // One cloud's host agent, on an address that looks public.
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let segments = address.segments();
    match segments {
        // A translator's prefix: what counts is the IPv4 address behind it. Networks without IPv4 reach all of it so.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        [0x2001, 0..=0x1ff, ..] => false, // Protocol assignments: Teredo, benchmarks, ORCHID.
        [0x2001, 0xdb8, ..] => false,     // Documentation.
        [0x2002, ..] => false,            // 6to4: IPv4 in disguise, abandoned.
        [0x3fff, 0..=0xfff, ..] => false, // Documentation.
        // Global unicast is 2000::/3; loopback, link-local, unique local, multicast and the rest lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: bool, addresses: &[&str]) {
        for address in addresses {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn public_addresses() {
        check(
            true,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "169.253.255.255",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "::ffff:8.8.8.8",
                "64:ff9b::8.8.8.8",
                "2001:200::1",
                "2001:4860:4860::8888",
                "2606:4700::1111",
                "3fff:1000::1",
            ],
        );
    }

    #[test]
    fn all_others() {
        check(
            false,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "10.0.0.1",
                "100.64.0.1",
                "100.100.100.200",
                "100.127.255.255",
                "127.0.0.1",
                "127.255.255.254",
                "168.63.129.16",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.0.0.1",
                "192.0.2.1",
                "192.88.99.1",
                "192.168.1.1",
                "198.18.0.1",
                "198.19.255.255",
                "198.51.100.1",
                "203.0.113.1",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
                "::",
                "::1",
                "::127.0.0.1",
                "::ffff:127.0.0.1",
                "::ffff:169.254.169.254",
                "::ffff:0:127.0.0.1",
                "64:ff9b::127.0.0.1",
                "64:ff9b::a9fe:a9fe",
                "64:ff9b:1::8.8.8.8",
                "100::1",
                "2001::1",
                "2001:db8::1",
                "2002:7f00:1::",
                "2002:808:808::",
                "3fff::1",
                "4000::1",
                "5f00::1",
                "fc00::1",
                "fd00:ec2::254",
                "fe80::1",
                "fec0::1",
                "ff02::1",
            ],
        );
    }
}
