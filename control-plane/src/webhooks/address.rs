//! Says which addresses a webhook may be sent to. PURE.
//!
//! An operator chooses the address, and the owner of a receiver's DNS zone can change it. So the fleet's own network must not be
//! reachable through a webhook, unless an operator allows private addresses for it. Some addresses stay refused even
//! then: they reach this machine's neighbours or the secrets of a cloud, and no receiver has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who can be behind an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressScope {
    /// The public internet.
    Public,
    /// This machine or a private network.
    Private,
    /// Nobody who receives webhooks.
    Forbidden,
}

/// Networks of IPv4 that are not public: first address, length of the prefix, scope. From the registry of special
/// addresses (RFC 6890 and its updates).
const NETWORKS_V4: &[([u8; 4], u32, AddressScope)] = &[
    ([0, 0, 0, 0], 8, AddressScope::Forbidden),          // this network
    ([10, 0, 0, 0], 8, AddressScope::Private),           // private
    ([100, 100, 100, 200], 32, AddressScope::Forbidden), // metadata of Alibaba Cloud
    ([100, 64, 0, 0], 10, AddressScope::Private),        // shared by the customers of a provider
    ([127, 0, 0, 0], 8, AddressScope::Private),          // loopback
    ([168, 63, 129, 16], 32, AddressScope::Forbidden),   // host agent of Azure
    ([169, 254, 0, 0], 16, AddressScope::Forbidden),     // link-local, with the metadata of most clouds
    ([172, 16, 0, 0], 12, AddressScope::Private),        // private
    ([192, 0, 0, 0], 24, AddressScope::Forbidden),       // protocol assignments, with the metadata of Oracle Cloud
    ([192, 0, 2, 0], 24, AddressScope::Forbidden),       // documentation
    ([192, 88, 99, 0], 24, AddressScope::Forbidden),     // relays of 6to4
    ([192, 168, 0, 0], 16, AddressScope::Private),       // private
    ([198, 18, 0, 0], 15, AddressScope::Forbidden),      // benchmarks
    ([198, 51, 100, 0], 24, AddressScope::Forbidden),    // documentation
    ([203, 0, 113, 0], 24, AddressScope::Forbidden),     // documentation
    ([224, 0, 0, 0], 4, AddressScope::Forbidden),        // multicast
    ([240, 0, 0, 0], 4, AddressScope::Forbidden),        // reserved, and broadcast
];

/// Networks of IPv6, in the order in which they are searched. The last one is what the registry gives out as public.
/// Everything else is forbidden: unspecified, IPv4-mapped, IPv4-compatible, link-local, site-local, multicast, and what
/// has no use yet.
const NETWORKS_V6: &[([u16; 8], u32, AddressScope)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, AddressScope::Private), // loopback
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, AddressScope::Forbidden), // metadata of AWS
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32, AddressScope::Forbidden), // metadata of Google Cloud
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, AddressScope::Private), // unique local
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, AddressScope::Forbidden), // protocols: Teredo, benchmarks, ORCHID
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, AddressScope::Forbidden), // documentation
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, AddressScope::Forbidden), // documentation
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, AddressScope::Public),
];

/// Whether a webhook may be sent to this address without an operator's special permission.
#[must_use]
pub fn is_public_address(address: IpAddr) -> bool {
    address_scope(address) == AddressScope::Public
}

/// Whether a webhook may be sent to this address.
#[must_use]
pub fn is_allowed_address(address: IpAddr, private_allowed: bool) -> bool {
    match address_scope(address) {
        AddressScope::Public => true,
        AddressScope::Private => private_allowed,
        AddressScope::Forbidden => false,
    }
}

/// Who can be behind this address.
#[must_use]
pub fn address_scope(address: IpAddr) -> AddressScope {
    match address {
        IpAddr::V4(address) => scope_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            // A translator reaches the embedded address, so that one must be public.
            Some(inner) if scope_v4(inner) == AddressScope::Public => AddressScope::Public,
            Some(_) => AddressScope::Forbidden,
            None => scope_v6(address),
        },
    }
}

fn scope_v4(address: Ipv4Addr) -> AddressScope {
    let bits = u32::from(address);
    let covers = |first: [u8; 4], length: u32| (bits ^ u32::from_be_bytes(first)) >> (32 - length) == 0;
    let found = NETWORKS_V4.iter().find(|(first, length, _)| covers(*first, *length));
    found.map_or(AddressScope::Public, |(_, _, scope)| *scope)
}

fn scope_v6(address: Ipv6Addr) -> AddressScope {
    let bits = u128::from(address);
    let covers = |first: [u16; 8], length: u32| (bits ^ u128::from(Ipv6Addr::from(first))) >> (128 - length) == 0;
    let found = NETWORKS_V6.iter().find(|(first, length, _)| covers(*first, *length));
    found.map_or(AddressScope::Forbidden, |(_, _, scope)| *scope)
}

/// The IPv4 address that a translator between the two protocols reaches: NAT64 (64:ff9b::/96) and 6to4 (2002::/16).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "3ffe:ffff::1",
        "3fff:1000::1",
        "2a00:1450:4001::200e",
        // A translator to a public address.
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
    ];

    const PRIVATE: &[&str] = &[
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "172.16.0.0",
        "172.31.255.255",
        "192.168.0.0",
        "192.168.255.255",
        "::1",
        "fc00::",
        "fd12:3456::1",
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];

    const FORBIDDEN: &[&str] = &[
        "0.0.0.0",
        "0.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.0.0",
        "169.254.169.254",
        "169.254.255.255",
        "192.0.0.0",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.255",
        "224.0.0.0",
        "239.255.255.255",
        "240.0.0.0",
        "255.255.255.255",
        // Unspecified, and IPv4 written as IPv6: mapped, compatible and translated, public addresses included.
        "::",
        "::2",
        "::ffff:8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        // Translators to addresses that are not public.
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:101::1",
        "2002:0:0::1",
        // Discard, Teredo, benchmarks, ORCHID, documentation, segment routing.
        "100::1",
        "2001::1",
        "2001:0:53aa:64c::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff::1",
        "2001:db8::1",
        "3fff::1",
        "3fff:fff:ffff::1",
        "5f00::1",
        // Link-local, site-local, multicast, and what nobody has been given.
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
        "4000::1",
        "1fff::1",
        "fd00:ec2::254",
        "fd20:ce::254",
    ];

    #[test]
    fn every_address_has_the_scope_of_its_network() {
        for (addresses, scope) in
            [(PUBLIC, AddressScope::Public), (PRIVATE, AddressScope::Private), (FORBIDDEN, AddressScope::Forbidden)]
        {
            for text in addresses {
                assert_eq!(address_scope(text.parse().unwrap()), scope, "{text}");
            }
        }
    }

    #[test]
    fn private_addresses_need_permission_and_forbidden_ones_never_get_it() {
        let allowed = |text: &str, private| is_allowed_address(text.parse().unwrap(), private);
        assert!(allowed("8.8.8.8", false) && is_public_address("8.8.8.8".parse().unwrap()));
        assert!(!allowed("127.0.0.1", false) && allowed("127.0.0.1", true));
        for text in ["169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0", "fe80::1"] {
            assert!(!allowed(text, true), "{text}");
        }
    }
}
