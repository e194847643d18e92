//! How many connections of callers fit: descriptors are few, and the store, the targets and the issuers need them too.

use jit_config::Config;

/// Descriptors that are kept for the store, the log, plugins, the admin socket and the rest.
const KEPT: u64 = 128;
/// And for each session of a connection to a target: it may be replaced while the old one still ends.
const FOR_EACH_SESSION: u64 = 2;
/// And for each issuer whose keys are fetched.
const FOR_EACH_ISSUER: u64 = 4;
/// A broker with fewer connections than this is of no use.
const LEAST: u64 = 16;

/// Raises the number of descriptors that this process may have to what the system allows it. Returns it.
#[must_use]
pub(crate) fn raise_descriptors() -> u64 {
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
pub(crate) fn room(config: &Config, descriptors: u64) -> anyhow::Result<usize> {
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
