//! How many connections there may be: all together, and from one address. Descriptors are few, and the
//! store, the targets and the issuers need them too: strangers who open connections must not stop removals.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Room for connections.
#[derive(Debug)]
pub struct Places {
    most: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are as many connections as there may be.
    All,
    /// That address has its share.
    Share,
}

impl Full {
    /// The word for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Share => "share",
        }
    }
}

/// A place; dropped, it is free again.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    of: IpAddr,
}

impl Places {
    /// Room for `most` connections, `each` of them from one address.
    #[must_use]
    pub fn new(most: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { most, each: each.min(most), taken: Mutex::default() })
    }

    /// Takes a place for a connection from there.
    ///
    /// # Errors
    /// [`Full`] when there is none.
    pub fn take(self: &Arc<Self>, peer: SocketAddr) -> Result<Place, Full> {
        let of = share(peer.ip());
        let mut taken = self.taken.lock();
        if taken.all >= self.most {
            return Err(Full::All);
        }
        if taken.by.get(&of).is_some_and(|count| *count >= self.each) {
            return Err(Full::Share);
        }
        taken.all += 1;
        *taken.by.entry(of).or_default() += 1;
        Ok(Place { places: Arc::clone(self), of })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.lock().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.by.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                taken.by.remove(&self.of);
            }
        }
    }
}

/// Whose share a connection is counted to: an IPv4 address, or an IPv6 network of 64 bits, which is what
/// one machine usually has.
fn share(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_share_and_leaves_the_rest() {
        let places = Places::new(4, 2);
        let first = places.take(from("192.0.2.1:1")).unwrap();
        // The same address in another form.
        let _second = places.take(from("[::ffff:192.0.2.1]:2")).unwrap();
        assert_eq!(places.take(from("192.0.2.1:3")).unwrap_err(), Full::Share);
        let _other = places.take(from("[2001:db8::1]:1")).unwrap();
        let _same_network = places.take(from("[2001:db8::2]:1")).unwrap();
        assert_eq!(places.take(from("[2001:db8:0:1::1]:1")).unwrap_err(), Full::All);
        drop(first);
        assert_eq!(places.taken(), 3);
        assert_eq!(places.take(from("[2001:db8::3]:1")).unwrap_err(), Full::Share);
        drop(places.take(from("192.0.2.1:4")).unwrap());
        assert_eq!(places.taken.lock().by.len(), 2, "nobody who is gone is remembered");
    }
}
