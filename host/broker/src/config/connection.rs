//! `[connections.NAME]`: what the host opens, and no plugin sees (BLIND-PLUGIN).

use std::time::Duration;

use url::Url;

use super::field::Wrong;
use super::secret::SecretRef;
use super::section::Section;

/// One connection to a target's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// What is spoken there.
    pub kind: ConnectionKind,
    /// Without a password.
    pub url: Url,
    /// The password of the broker's own account.
    pub password: Option<SecretRef>,
    /// 1 to 1000, by default 8.
    pub max_connections: u32,
    /// `1s` to `5m`, by default 5 s.
    pub connect_timeout: Duration,
}

/// The protocols of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionKind {
    /// PostgreSQL.
    Postgres,
}

impl ConnectionKind {
    /// The configuration's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
        }
    }

    fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgresql"],
        }
    }
}

pub(super) fn connection(section: &Section<'_>) -> Option<Connection> {
    section.demand("kind", "kind = \"postgres\"");
    section.demand("url", "url = \"postgres://jit_broker@127.0.0.1:5432/inventory\"");
    let kind = section.choice("kind", &[("postgres", ConnectionKind::Postgres)]);
    let url = section.field("url", "a URL such as \"postgres://jit_broker@127.0.0.1:5432/inventory\"", |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        server_url(text, kind).map_err(Wrong::Value)
    });
    if url.is_none() {
        // What does not parse may still hold a password, in a place where nobody expects it.
        section.reading.mask(section.span_of("url"));
    }
    let password = section.secret("password");
    let max_connections = section.count("max_connections", 1..=1_000).unwrap_or(8);
    let connect_timeout = section.wait("connect_timeout", 5, 1..=300);
    Some(Connection { kind: kind?, url: url?, password, max_connections, connect_timeout })
}

/// Messages quote nothing of the text.
fn server_url(text: &str, kind: Option<ConnectionKind>) -> Result<Url, String> {
    let with_password = "it must not have a password in it: write password = { file = \"…\" } on a line of its own";
    let url = Url::parse(text).map_err(|error| {
        // A password with a '/' or '#' makes the URL unreadable.
        if super::redact::looks_secret(text) { with_password.to_owned() } else { error.to_string() }
    })?;
    let password_parameter = url.query_pairs().any(|(key, _)| super::redact::names_a_secret(&key));
    if url.password().is_some() || password_parameter {
        return Err(with_password.to_owned());
    }
    if let Some(kind) = kind
        && !kind.schemes().contains(&url.scheme())
    {
        return Err(format!("it must begin with {}://", kind.as_str()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing".to_owned());
    }
    if url.username().is_empty() {
        return Err("the broker's own user is missing, as in user@host".to_owned());
    }
    if url.path().trim_start_matches('/').is_empty() {
        return Err("the database is missing, as in host:5432/inventory".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it must not have a fragment (#…)".to_owned());
    }
    Ok(url)
}
