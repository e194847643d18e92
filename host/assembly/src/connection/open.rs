//! How each kind of connection is opened: an arm in [`open`] and a function for each.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jit_config::{Protocol, SecretRef};
use jit_runtime::{
    Connection, HttpConnection, HttpConnectionOptions, LdapConnection, LdapConnectionOptions, SecretSource,
    SessionStore, SqlConnection, SqlConnectionOptions, SqlKind,
};
use secrecy::SecretString;

use super::{Connected, Material, place};

/// What a connection is opened with.
pub(super) struct Opening<'a> {
    pub(super) name: &'a str,
    pub(super) settings: &'a jit_config::Connection,
    pub(super) material: &'a Material,
    /// Where secrets that a driver keeps survive a restart.
    pub(super) sessions: Option<Arc<dyn SessionStore>>,
    /// The connection of that name until now.
    pub(super) before: Option<&'a Connected>,
}

/// Opens a connection. No server is asked yet.
///
/// # Errors
/// With what is wrong with its settings or its files.
pub(super) fn open(opening: Opening<'_>) -> anyhow::Result<Connection> {
    match &opening.settings.protocol {
        Protocol::Postgres { .. } => sql(opening, SqlKind::Postgres, ["sslmode", "verify-full", "sslrootcert"]),
        Protocol::MySql { .. } => sql(opening, SqlKind::MySql, ["ssl-mode", "VERIFY_IDENTITY", "ssl-ca"]),
        Protocol::Ldap { bind_dn, operation_timeout, .. } => ldap(opening, bind_dn, *operation_timeout),
        Protocol::Http { addresses, request_timeout, .. } => http(opening, addresses, *request_timeout),
    }
}

/// `tls`: the URL's settings for the strictest check, and for the authority that the certificate comes from.
fn sql(opening: Opening<'_>, kind: SqlKind, tls: [&str; 3]) -> anyhow::Result<Connection> {
    let Opening { name, settings, material, before, .. } = opening;
    let mut url = settings.url.clone();
    if let Some(ca) = &settings.ca {
        let [mode, strictest, authority] = tls;
        let path = ca.to_str().context("the path of `ca` is not UTF-8 text")?;
        url.query_pairs_mut().append_pair(mode, strictest).append_pair(authority, path);
    }
    let options = SqlConnectionOptions {
        kind,
        plaintext: settings.plaintext.is_some(),
        max_connections: settings.max_connections,
        connect_timeout: settings.connect_timeout,
        ..SqlConnectionOptions::new(name, url, material.password.clone())
    };
    // Statements that were abandoned on the one before are still waited for.
    let before = before.filter(|before| place(&before.settings) == place(settings));
    let before = before.and_then(|before| (&*before.connection as &dyn Any).downcast_ref());
    Ok(Arc::new(match before {
        Some(before) => SqlConnection::succeeding(options, before)?,
        None => SqlConnection::new(options)?,
    }))
}

fn ldap(opening: Opening<'_>, bind_dn: &str, operation_timeout: Duration) -> anyhow::Result<Connection> {
    let Opening { name, settings, material, .. } = opening;
    Ok(Arc::new(LdapConnection::new(LdapConnectionOptions {
        name: name.to_owned(),
        url: settings.url.clone(),
        plaintext: settings.plaintext.is_some(),
        ca: material.ca.clone(),
        bind_dn: bind_dn.to_owned(),
        password: material.password.clone().context("the password is missing")?,
        max_connections: settings.max_connections,
        connect_timeout: settings.connect_timeout,
        operation_timeout,
    })?))
}

fn http(opening: Opening<'_>, addresses: &[IpAddr], request_timeout: Duration) -> anyhow::Result<Connection> {
    let Opening { name, settings, material, sessions, .. } = opening;
    let secrets = settings.protocol.secrets().map(|(name, place)| {
        let source: Arc<dyn SecretSource> = Arc::new(Configured(place.clone()));
        (name.clone(), source)
    });
    Ok(Arc::new(HttpConnection::new(HttpConnectionOptions {
        name: name.to_owned(),
        url: settings.url.clone(),
        plaintext: settings.plaintext.is_some(),
        ca: material.ca.clone(),
        addresses: addresses.to_vec(),
        secrets: secrets.collect(),
        store: sessions,
        max_connections: settings.max_connections,
        connect_timeout: settings.connect_timeout,
        request_timeout,
    })?))
}

/// A secret where the configuration says it is. It is read at each use, so that a rotated file is seen.
#[derive(Debug)]
pub(super) struct Configured(pub(super) SecretRef);

impl SecretSource for Configured {
    fn read(&self) -> Result<SecretString, String> {
        // The cause is the operating system's; neither has any of the content.
        self.0.resolve().map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }
}
