//! Which addresses a connection may be made to.
//!
//! A name is resolved here, every address is checked, and the client is given the checked ones
//! only: there is no second look-up in which the answer could be another one. An address in the
//! URL itself is checked when the connection is set up, since no name is looked up for it.
//!
//! | address | |
//! |---|---|
//! | loopback | only when the URL's own host is `localhost`, `127.…` or `::1`; then nothing else |
//! | unspecified and `0/8`, multicast, reserved (`240/4`), broadcast | refused |
//! | link-local (`169.254/16`, `fe80::/10`) | refused |
//! | metadata services of clouds outside of these ranges | refused |
//! | IPv4 within IPv6 (mapped, compatible, translated, NAT64, 6to4) | as the IPv4 address, loopback refused |
//! | Teredo, NAT64 with a local prefix | refused |
//! | private (`10/8`, `172.16/12`, `192.168/16`, `fc00::/7`) and shared (`100.64/10`) | allowed: backends are there |
//!
//! What is refused can be listed in the connection's `addresses`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Metadata services of clouds that are not link-local: Alibaba, Oracle (classic), Azure's host.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// Metadata services of clouds in unique local addresses: Amazon, Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Addresses of one name that are looked at.
const MOST: usize = 32;

/// An address that no connection is made to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {why}; if the server is meant to be there, list it in the connection's addresses")]
pub(crate) struct RefusedAddress {
    address: IpAddr,
    why: &'static str,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Ordinary,
    Loopback,
    Refused(&'static str),
}

/// The rules of one connection.
#[derive(Debug, Clone)]
pub(crate) struct AddressRules {
    /// Whether the URL's host is loopback: then only loopback is.
    loopback: bool,
    listed: Vec<IpAddr>,
}

impl AddressRules {
    /// For a connection to that URL.
    pub(crate) fn of(url: &Url, listed: &[IpAddr]) -> Self {
        Self { loopback: is_loopback(url), listed: listed.iter().map(IpAddr::to_canonical).collect() }
    }

    /// # Errors
    /// When no connection may be made to it.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), RefusedAddress> {
        if self.listed.contains(&address.to_canonical()) {
            return Ok(());
        }
        let why = match (range(address), self.loopback) {
            (Range::Loopback, true) | (Range::Ordinary, false) => return Ok(()),
            (Range::Refused(why), _) => why,
            (Range::Loopback, false) => "a loopback address, and the URL's host is not one",
            (Range::Ordinary, true) => "no loopback address, and the URL's host is one",
        };
        Err(RefusedAddress { address, why })
    }
}

/// Whether the URL's host says itself that it is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn range(address: IpAddr) -> Range {
    match address {
        IpAddr::V4(address) => range_v4(address),
        IpAddr::V6(address) => range_v6(address),
    }
}

fn range_v4(address: Ipv4Addr) -> Range {
    if METADATA_V4.contains(&address) {
        Range::Refused("a metadata service's address")
    } else if address.is_loopback() {
        Range::Loopback
    } else if address.octets()[0] == 0 {
        Range::Refused("an unspecified address")
    } else if address.is_link_local() {
        Range::Refused("a link-local address (metadata services are there)")
    } else if address.is_multicast() {
        Range::Refused("a multicast address")
    } else if address.octets()[0] >= 240 {
        Range::Refused("a reserved or broadcast address")
    } else {
        Range::Ordinary
    }
}

fn range_v6(address: Ipv6Addr) -> Range {
    let segments = address.segments();
    if address.is_loopback() {
        Range::Loopback
    } else if address.is_unspecified() {
        Range::Refused("an unspecified address")
    } else if address.is_multicast() {
        Range::Refused("a multicast address")
    } else if address.is_unicast_link_local() {
        Range::Refused("a link-local address")
    } else if METADATA_V6.contains(&address) {
        Range::Refused("a metadata service's address")
    } else if segments[..2] == [0x2001, 0] || segments[..3] == [0x64, 0xff9b, 1] {
        Range::Refused("a tunnelled or translated address")
    } else if let Some(within) = within(segments) {
        match range_v4(within) {
            Range::Loopback => Range::Refused("a loopback address in disguise"),
            other => other,
        }
    } else {
        Range::Ordinary
    }
}

/// The IPv4 address that an IPv6 address stands for.
fn within(segments: [u16; 8]) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        // Compatible, mapped (RFC 4291, section 2.5.5), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Finds the addresses of a name.
pub(crate) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's own resolver.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.take(MOST).collect::<Vec<_>>()) })
    })
}

/// Resolves names to addresses that may be connected to.
pub(crate) struct CheckedNames {
    pub(crate) rules: AddressRules,
    pub(crate) lookup: Lookup,
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.rules.clone();
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let mut refused = None;
            let mut good = Vec::new();
            for address in found.await?.into_iter().take(MOST) {
                match rules.check(address.ip()) {
                    Ok(()) => good.push(address),
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            match refused {
                Some(error) if good.is_empty() => Err(error.into()),
                _ => Ok(Box::new(good.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rules(url: &str, listed: &[&str]) -> AddressRules {
        let listed: Vec<IpAddr> = listed.iter().map(|address| address.parse().unwrap()).collect();
        AddressRules::of(&Url::parse(url).unwrap(), &listed)
    }

    #[test]
    fn what_no_backend_has_is_refused_in_every_spelling() {
        let rules = rules("https://vault.example", &[]);
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "ff02::1",
            "240.0.0.1",
            "255.255.255.255",
            "::ffff:169.254.169.254",
            "::ffff:127.0.0.1",
            "::169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::1",
            "2001:0:1::1",
        ] {
            assert!(rules.check(address.parse().unwrap()).is_err(), "{address}");
        }
        for address in [
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "8.8.8.8",
            "fc00::1",
            "2001:db8::1",
            "2606:4700::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::1",
        ] {
            assert!(rules.check(address.parse().unwrap()).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_listed_address_is_allowed_and_no_other() {
        let rules = rules("https://vault.example", &["169.254.169.254", "::ffff:127.0.0.1"]);
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "127.0.0.1"] {
            assert!(rules.check(address.parse().unwrap()).is_ok(), "{address}");
        }
        for address in ["169.254.169.253", "127.0.0.2", "64:ff9b::169.254.169.254"] {
            assert!(rules.check(address.parse().unwrap()).is_err(), "{address}");
        }
    }

    #[test]
    fn a_url_of_this_machine_is_for_this_machine_only() {
        for url in ["http://localhost", "https://LOCALHOST:1", "http://127.0.0.1", "http://127.1", "http://[::1]:80"] {
            let rules = rules(url, &[]);
            assert!(rules.check("127.0.0.1".parse().unwrap()).is_ok(), "{url}");
            assert!(rules.check("::1".parse().unwrap()).is_ok(), "{url}");
            assert!(rules.check("10.0.0.1".parse().unwrap()).is_err(), "{url}");
            assert!(rules.check("169.254.169.254".parse().unwrap()).is_err(), "{url}");
        }
        for url in
            ["http://localhost.example", "http://a.localhost", "http://[::ffff:127.0.0.1]", "http://[::127.0.0.1]"]
        {
            assert!(!is_loopback(&Url::parse(url).unwrap()), "{url}");
        }
    }

    async fn resolved(addresses: &[&str]) -> Result<Vec<String>, String> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect();
        let lookup: Lookup = Arc::new(move |_| {
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        });
        let names = CheckedNames { rules: rules("https://vault.example", &[]), lookup };
        match names.resolve("vault.example".parse().unwrap()).await {
            Ok(good) => Ok(good.map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.downcast_ref::<RefusedAddress>().unwrap().to_string()),
        }
    }

    #[tokio::test]
    async fn a_name_gives_its_good_addresses_only() {
        assert_eq!(resolved(&["10.0.0.1", "169.254.169.254", "127.0.0.1"]).await.unwrap(), ["10.0.0.1"]);
        let refused = resolved(&["169.254.169.254", "::1"]).await.unwrap_err();
        assert!(refused.starts_with("169.254.169.254 is a link-local address"), "{refused}");
    }
}
