//! Opens what the configuration names under `[connections]`, with the broker's own credentials
//! (BLIND-PLUGIN), and keeps over a reload what has not changed.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use jit_files::read_authorities;
use jit_runtime::{Connection, SessionStore};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use jit_config::SecretRef;
use jit_pipeline::places::Site;
use jit_pipeline::target::Endpoint;

mod open;

use open::Opening;

/// A connection with what it was made of: a reload that does not change that keeps it, with its
/// sessions.
pub struct Connected {
    /// Its section of the configuration.
    pub settings: jit_config::Connection,
    /// What was read for it then.
    material: Material,
    /// The connection.
    pub connection: Connection,
}

/// What the files that a section names had in them.
struct Material {
    password: Option<SecretString>,
    ca: Option<Vec<u8>>,
}

impl Material {
    fn read(settings: &jit_config::Connection) -> anyhow::Result<Self> {
        let password = settings.protocol.password().map(SecretRef::resolve).transpose()?;
        let ca = settings.ca.as_deref().map(read_ca).transpose()?;
        Ok(Self { password, ca })
    }

    fn same(&self, other: &Self) -> bool {
        let same_password = match (&self.password, &other.password) {
            (Some(old), Some(new)) => old.expose_secret() == new.expose_secret(),
            (None, None) => true,
            _ => false,
        };
        same_password && self.ca == other.ca
    }
}

impl Connected {
    /// Opens a connection, or takes over the one of `before` where it would be the same. No server
    /// is asked yet. `sessions` is where secrets that a driver keeps survive a restart.
    ///
    /// # Errors
    /// With what is wrong with its settings or its files, without any of a secret.
    pub fn open(
        name: &str,
        settings: &jit_config::Connection,
        before: Option<&Self>,
        sessions: Option<Arc<dyn SessionStore>>,
    ) -> anyhow::Result<Self> {
        let material = Material::read(settings)?;
        let kept = before.filter(|kept| kept.settings == *settings && kept.material.same(&material));
        let connection = match kept {
            Some(kept) => kept.connection.clone(),
            None => open::open(Opening { name, settings, material: &material, sessions, before })?,
        };
        Ok(Self { settings: settings.clone(), material, connection })
    }

    /// Where callers connect, as far as the connection tells: to the same server.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let jit_runtime::Endpoint { scheme, host, port, database } = self.connection.endpoint()?;
        Some(Endpoint { scheme: scheme.to_owned(), host, port, database })
    }

    /// What is known of where it leads.
    #[must_use]
    pub fn site(&self) -> Site {
        let jit_config::Connection { url, protocol, replaces, .. } = &self.settings;
        let port = url.port_or_known_default().or_else(|| usual_port(url.scheme()));
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let address = format!("{}://{}{port}", protocol.as_str(), url.host_str().unwrap_or_default());
        Site { address: Some(address), replaces: replaces.clone().into() }
    }

    /// Whether the other one leads to another server: another kind, host or port.
    #[must_use]
    pub fn leads_elsewhere(&self, other: &Self) -> bool {
        place(&self.settings) != place(&other.settings)
    }
}

/// Which server a section names.
fn place(settings: &jit_config::Connection) -> (&'static str, String, Option<u16>) {
    let jit_config::Connection { url, protocol, .. } = settings;
    (protocol.capability(), host(url), url.port_or_known_default().or_else(|| usual_port(url.scheme())))
}

/// The port that a scheme has where none is said. Also of servers that only applications connect to: a target's
/// `endpoint` may name one that the broker reaches by other means.
#[must_use]
pub fn usual_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "ldap" => 389,
        "ldaps" => 636,
        "http" => 80,
        "https" => 443,
        "redis" => 6379,
        "mongodb" => 27017,
        _ => return None,
    })
}

/// Without the brackets that a URL puts around an IPv6 address.
fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// Reads certificates of authorities (PEM).
///
/// # Errors
/// With what is wrong with the file. Whether each certificate can be used is for its user to say.
pub fn read_ca(path: &Path) -> anyhow::Result<Vec<u8>> {
    read_authorities(path)
        .map_err(|error| anyhow!("the certificates of `ca` ({}) cannot be used: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use jit_runtime::SecretSource;

    use super::open::Configured;
    use super::*;
    use jit_config::Protocol;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            place.write("pw", "first");
            place.write("ca.pem", PEM);
            place
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn section(&self, keys: &str) -> jit_config::Connection {
            let text = format!("[server]\n[audit]\nsigning_key = {{ file = \"k\" }}\n[connections.it]\n{keys}\n");
            let file = self.0.path().join("broker.toml").display().to_string();
            let config = jit_config::Config::parse(&text, &file).unwrap_or_else(|e| panic!("{}", e.render(false)));
            config.connections["it"].clone()
        }
    }

    const POSTGRES: &str =
        "kind = \"postgres\"\nurl = \"postgres://u@db.example.com/inventory\"\npassword = { file = \"pw\" }";
    const LDAP: &str = "kind = \"ldap\"\nurl = \"ldap://[::1]\"\nplaintext = { because = \"a test\" }\nbind_dn = \"cn=j\"\npassword = { file = \"pw\" }";
    const HTTP: &str =
        "kind = \"http\"\nurl = \"https://vault.example.com:8200\"\nsecrets = { jwt = { file = \"pw\" } }";

    fn open(section: &jit_config::Connection, before: Option<&Connected>) -> Connected {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Connected::open("it", section, before, None).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn same(one: &Connected, other: &Connected) -> bool {
        Arc::ptr_eq(&one.connection, &other.connection)
    }

    #[tokio::test]
    async fn what_has_not_changed_is_kept_and_what_has_is_not() {
        let place = Place::new();
        for keys in [POSTGRES, LDAP, HTTP] {
            let section = place.section(keys);
            let first = open(&section, None);
            let second = open(&section, Some(&first));
            assert!(same(&first, &second), "{keys}");
            let changed = place.section(&format!("{keys}\nmax_connections = 3"));
            assert!(!same(&first, &open(&changed, Some(&second))), "{keys}");
            place.write("pw", "second");
            // An API's secrets are read at each use: a new one needs no new connection.
            assert_eq!(same(&first, &open(&section, Some(&second))), keys == HTTP, "{keys}");
            place.write("pw", "first");
        }
    }

    #[test]
    fn a_rotated_secret_is_seen_and_a_missing_one_is_told_without_its_content() {
        let place = Place::new();
        let Protocol::Http { secrets, .. } = place.section(HTTP).protocol else { panic!("another kind") };
        let source: &dyn SecretSource = &Configured(secrets["jwt"].clone());
        assert_eq!(source.read().unwrap().expose_secret(), "first");
        place.write("pw", "second\n");
        assert_eq!(source.read().unwrap().expose_secret(), "second");
        std::fs::remove_file(place.0.path().join("pw")).unwrap();
        let told = source.read().unwrap_err();
        assert!(told.contains("pw cannot be read: No such file"), "{told}");
    }

    #[tokio::test]
    async fn an_authority_is_read_checked_and_bounded() {
        let place = Place::new();
        let section = place.section(&format!("{POSTGRES}\nca = \"ca.pem\""));
        open(&section, None);
        for (content, says) in [("nonsense", "has no certificate"), (&*"x".repeat(1_100_000), "more than")] {
            place.write("ca.pem", content);
            let told = Connected::open("it", &section, None, None).err().unwrap().to_string();
            assert!(told.contains(says), "{told}");
        }
        std::fs::remove_file(place.0.path().join("ca.pem")).unwrap();
        assert!(Connected::open("it", &section, None, None).is_err());
    }

    #[tokio::test]
    async fn a_connection_tells_where_its_server_is() {
        let place = Place::new();
        let endpoint = |keys: &str| open(&place.section(keys), None).endpoint();
        let told = endpoint(POSTGRES).unwrap();
        assert_eq!((told.scheme.as_str(), told.host.as_str(), told.port), ("postgres", "db.example.com", 5432));
        assert_eq!(told.database.as_deref(), Some("inventory"));
        let told = endpoint(LDAP).unwrap();
        assert_eq!((told.scheme.as_str(), told.host.as_str(), told.port, told.database), ("ldap", "::1", 389, None));
        assert!(endpoint(HTTP).is_none());
        let moved = |from: &str, to: &str| {
            let one = open(&place.section(POSTGRES), None);
            one.leads_elsewhere(&open(&place.section(&POSTGRES.replace(from, to)), None))
        };
        assert!(moved("db.example.com", "db2.example.com") && moved("example.com/", "example.com:5433/"));
        assert!(!moved("u@", "v@") && !moved("example.com/", "example.com:5432/"));
    }
}
