//! `[connections.NAME]`: what the host opens, and no plugin sees (BLIND-PLUGIN).
//!
//! The keys that every kind has are read here, each kind's own in its file. A kind is a [`Kind`] in that file, a
//! line of [`KINDS`], and the variant of [`Protocol`] that holds what it reads.

mod directory;
mod http;
mod sql;
pub(crate) mod transport;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jit_core::transport::{Spoken, is_here, is_socket};
use url::Url;

use super::field::Wrong;
use super::redact;
use super::secret::SecretRef;
use super::section::Section;

/// One connection to a target's server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Without a password.
    pub url: Url,
    /// Certificates (PEM) of the only authorities that the server's certificate may come from; by
    /// default the public ones, or for SQL what the URL says.
    pub ca: Option<PathBuf>,
    /// Why the server need not be verified although it is on another machine (`plaintext = { because = "…" }`).
    pub plaintext: Option<String>,
    /// 1 to 1000, by default 8.
    pub max_connections: u32,
    /// `1s` to `5m`, by default 5 s.
    pub connect_timeout: Duration,
    /// Identities of servers whose accounts this one has taken over (a promoted replica, an upgrade by copy):
    /// what was made there is removed here.
    pub replaces: Vec<String>,
    /// What is spoken there, with what only that needs.
    pub protocol: Protocol,
}

impl Connection {
    /// Whether the server is on this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        is_here(self.protocol.spoken(), &self.url)
    }

    /// Whether it leads to a Unix socket, which no application on another machine can reach.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        is_socket(self.protocol.spoken(), &self.url)
    }
}

/// What is spoken over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// `postgres`
    Postgres {
        /// The password of the broker's own account.
        password: Option<SecretRef>,
    },
    /// `mysql`
    MySql {
        /// The password of the broker's own account.
        password: Option<SecretRef>,
    },
    /// `ldap`
    Ldap {
        /// Distinguished name of the broker's own account.
        bind_dn: String,
        /// Its password.
        password: SecretRef,
        /// How long one operation may take: `1s` to `5m`, by default 10 s.
        operation_timeout: Duration,
    },
    /// `http`
    Http {
        /// The broker's own credentials there, by the names that the driver asks for. Read at each use.
        secrets: BTreeMap<String, SecretRef>,
        /// Addresses that are allowed although they would be refused (link-local and the like).
        addresses: Vec<IpAddr>,
        /// How long one request may take, its answer included: `1s` to `5m`, by default 10 s.
        request_timeout: Duration,
    },
}

impl Protocol {
    fn kind(&self) -> &'static Kind {
        match self {
            Self::Postgres { .. } => &sql::POSTGRES,
            Self::MySql { .. } => &sql::MYSQL,
            Self::Ldap { .. } => &directory::LDAP,
            Self::Http { .. } => &http::HTTP,
        }
    }

    /// The configuration's word.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.kind().word
    }

    /// What is spoken, for the rule of how the way to a server is protected.
    #[must_use]
    pub fn spoken(&self) -> Spoken {
        self.kind().spoken
    }

    /// The capability that a driver needs to work on it.
    #[must_use]
    pub fn capability(&self) -> &'static str {
        self.kind().capability
    }

    /// The password of the broker's own account, where it has one.
    #[must_use]
    pub fn password(&self) -> Option<&SecretRef> {
        match self {
            Self::Postgres { password } | Self::MySql { password } => password.as_ref(),
            Self::Ldap { password, .. } => Some(password),
            Self::Http { .. } => None,
        }
    }

    /// Further credentials of the broker there, by the names that a driver asks for.
    pub fn secrets(&self) -> impl Iterator<Item = (&String, &SecretRef)> {
        match self {
            Self::Http { secrets, .. } => Some(secrets),
            Self::Postgres { .. } | Self::MySql { .. } | Self::Ldap { .. } => None,
        }
        .into_iter()
        .flatten()
    }
}

/// A word after `kind =`, and what is to be known of it.
struct Kind {
    word: &'static str,
    /// The capability that works on such a connection.
    capability: &'static str,
    spoken: Spoken,
    /// A URL as an example.
    example: &'static str,
    /// What to write in place of a password in the URL.
    instead_of_password: &'static str,
    /// The keys that only some kinds have; `password` and `secrets` are not among them.
    keys: &'static [&'static str],
    /// Whether a URL can be one of this kind.
    check_url: fn(&Url) -> Result<(), &'static str>,
    /// Reads what only this kind needs.
    read: fn(&Section<'_>) -> Option<Protocol>,
}

/// The kinds: a line for each.
const KINDS: [&Kind; 4] = [&sql::POSTGRES, &sql::MYSQL, &directory::LDAP, &http::HTTP];

/// What to write in place of a password in a URL, for kinds with one password.
const PASSWORD_OF_ITS_OWN: &str =
    "it must not have a password in it: write password = { file = \"…\" } on a line of its own";

pub(super) fn connection(section: &Section<'_>) -> Option<Connection> {
    section.demand("kind", "kind = \"postgres\"");
    let kind = section.choice("kind", &KINDS.map(|kind| (kind.word, kind)));
    let example = kind.unwrap_or(&sql::POSTGRES).example;
    section.demand("url", &format!("url = \"{example}\""));
    let url = section.field("url", &format!("a URL such as \"{example}\""), |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        server_url(text, kind).map_err(Wrong::Value)
    });
    if url.is_none() {
        // What does not parse may still hold a password, in a place where nobody expects it.
        section.reading.mask(section.span_of("url"));
    }
    let ca = section.path("ca");
    let plaintext = transport::plaintext(section);
    if let (Some(kind), Some(url)) = (kind, &url) {
        transport::check(section, kind.spoken, url, plaintext.as_deref());
    }
    let max_connections = section.count("max_connections", 1..=1_000).unwrap_or(8);
    let connect_timeout = section.wait("connect_timeout", 5, 1..=300);
    let replaces =
        section.texts("replaces", "a list of servers' identities, as the log names them").unwrap_or_default();
    let protocol = match kind {
        Some(kind) => (kind.read)(section),
        None => {
            // Which keys are right depends on the kind: those of any are allowed.
            let _told = (section.secret("password"), section.secrets("secrets"));
            for key in KINDS.iter().flat_map(|kind| kind.keys) {
                section.entry(key);
            }
            None
        }
    };
    Some(Connection { url: url?, ca, plaintext, max_connections, connect_timeout, replaces, protocol: protocol? })
}

/// The URL of a server that is reached as connections of that kind are.
pub(crate) fn server_url_of(text: &str, kind: &str) -> Result<Url, String> {
    server_url(text, KINDS.iter().copied().find(|known| known.word == kind))
}

/// Messages quote nothing of the text.
fn server_url(text: &str, kind: Option<&Kind>) -> Result<Url, String> {
    let password = kind.map_or(PASSWORD_OF_ITS_OWN, |kind| kind.instead_of_password);
    let url = Url::parse(text).map_err(|error| {
        // A password with a '/' or '#' makes the URL unreadable.
        if redact::looks_secret(text) { password.to_owned() } else { error.to_string() }
    })?;
    let password_parameter = url.query_pairs().any(|(key, _)| redact::names_a_secret(&key));
    if url.password().is_some() || password_parameter {
        return Err(password.to_owned());
    }
    kind.map_or(Ok(()), |kind| (kind.check_url)(&url)).map_err(str::to_owned)?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the host is missing".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it must not have a fragment (#…)".to_owned());
    }
    Ok(url)
}
