//! How many connections there may be: all together, and from one address. Descriptors are few, and the
//! store, the targets and the issuers need them too: strangers who open connections must not stop removals.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use jit_config::Config;

/// Descriptors that are kept for the store, the log, plugins, the admin socket and the rest.
const KEPT: u64 = 128;
/// And for each session of a connection to a target: it may be replaced while the old one still ends.
const FOR_EACH_SESSION: u64 = 2;
/// And for each issuer whose keys are fetched.
const FOR_EACH_ISSUER: u64 = 4;
/// A broker with fewer connections than this is of no use.
const LEAST: u64 = 16;

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
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Raises the number of descriptors that this process may have to what the system allows it. Returns it.
#[must_use]
pub fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        return current.unwrap_or(u64::MAX);
    }
    maximum.unwrap_or(u64::MAX)
}

/// How many connections of callers fit beside everything else that needs descriptors: at most what is
/// configured, and at most three quarters of what there is.
///
/// # Errors
/// When there is not enough for the broker to be of use.
pub fn room(config: &Config, descriptors: u64) -> anyhow::Result<usize> {
    let sessions = config.connections.values().map(|connection| u64::from(connection.max_connections) + 2);
    let issuers = config.identity.jwt.len() as u64 * FOR_EACH_ISSUER;
    let own = KEPT + sessions.sum::<u64>() * FOR_EACH_SESSION + issuers;
    let left = descriptors.saturating_sub(own.max(descriptors / 4));
    if left < LEAST {
        anyhow::bail!(
            "the system allows this process {descriptors} open files, of which the broker itself needs {own}: raise the \
             limit (ulimit -n, LimitNOFILE=), or lower max_connections of [connections]"
        );
    }
    let wanted = config.server.max_connections;
    let room = usize::try_from(left).unwrap_or(usize::MAX).min(wanted as usize);
    if room < wanted as usize {
        tracing::warn!(
            max_connections = wanted,
            descriptors,
            room,
            "the system allows too few open files for [server] max_connections: fewer connections are taken"
        );
    }
    Ok(room)
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
        assert_eq!(places.taken.lock().unwrap().by.len(), 2, "nobody who is gone is remembered");
    }

    #[test]
    fn descriptors_are_kept_for_the_broker_itself() {
        let config = |keys: &str| {
            let text = format!("[server]\n{keys}\n[audit]\nsigning_key = {{ file = \"k\" }}\n");
            Config::parse(&text, "broker.toml").unwrap()
        };
        assert_eq!(room(&config(""), 65_536).unwrap(), 4_096);
        assert_eq!(room(&config(""), 1_024).unwrap(), 768);
        assert_eq!(room(&config(""), 256).unwrap(), 128);
        assert_eq!(room(&config("max_connections = 20"), 1_024).unwrap(), 20);
        assert!(room(&config(""), 128).is_err());
        let sessions =
            "[connections.a]\nkind = \"postgres\"\nurl = \"postgres://u@127.0.0.1/d\"\nmax_connections = 100";
        assert_eq!(room(&config(&format!("{sessions}\n")), 1_024).unwrap(), 1_024 - 128 - 204);
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = raise_descriptors();
        let now = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(raised, now.current.unwrap_or(u64::MAX));
    }
}
