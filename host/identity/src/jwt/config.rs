//! One `[[identity.jwt]]` entry of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jit_core::ttl::Ttl;
use serde::Deserialize;
use url::{Host, Url};

use crate::algorithm::SigningAlgorithm;
use crate::claims::{ClaimPath, MAX_ATTRIBUTES, WorkloadTemplate};
use crate::error::IdentityError;
use crate::verified::is_name;

/// The longest `issuer` and audience, in bytes.
const MAX_TEXT: usize = 1024;
/// The most audiences of one entry.
const MAX_AUDIENCES: usize = 16;

/// Whose tokens are accepted, and what is read from them.
///
/// ```toml
/// [[identity.jwt]]
/// name = "cluster-prod"
/// issuer = "https://kubernetes.default.svc"
/// audiences = ["jit-broker"]
/// workload = "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"
/// attributes = { k8s_namespace = "kubernetes.io.namespace", env = "env" }
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtIssuerConfig {
    /// The entry's name, unique: part of every principal that it verifies.
    pub name: String,
    /// The tokens' `iss`, compared exactly: a trailing slash is another issuer.
    pub issuer: String,
    /// A token must be for one of these. At least one.
    pub audiences: Vec<String>,
    /// The workload's name, for policies and records. A lease belongs to the token's `sub` as well, so two
    /// workloads with one name never share a lease (ONE-OWNER); but the policies cannot tell them apart:
    /// name whatever makes them different, as in
    /// `"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"`.
    pub workload: WorkloadTemplate,
    /// What policies see: attribute name to claim path. A claim that is absent gives no
    /// attribute; one that is not a short printable scalar makes the token refused, because a
    /// policy that denies by an attribute must not lose it.
    #[serde(default)]
    pub attributes: BTreeMap<String, ClaimPath>,
    /// The signature algorithms that are accepted; never taken from the token.
    #[serde(default = "SigningAlgorithm::all")]
    pub algorithms: Vec<SigningAlgorithm>,
    /// The key set's address, for issuers without discovery. Otherwise it is discovered at
    /// `<issuer>/.well-known/openid-configuration`.
    #[serde(default)]
    pub jwks_url: Option<Url>,
    /// A PEM file with the only certificate authorities that discovery and key set are fetched
    /// under. Otherwise the system's are used. Read at start and on reload.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// A file with a bearer token that is sent with discovery and key set requests: Kubernetes'
    /// API server answers them only to authenticated callers. Read at each fetch, because such
    /// tokens rotate. Sent only to scheme, host and port of `jwks_url` or else `issuer`, and not to
    /// another host that a discovery document names.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// How far clocks may differ: 1 s to 2 min.
    #[serde(default)]
    pub leeway: Leeway,
    /// Refuse tokens that live longer (`exp` − `iat`; from now where `iat` is absent).
    #[serde(default)]
    pub max_token_lifetime: Option<Ttl>,
    /// Keys that the issuer has not confirmed for this long are not used any more; 24 h unless
    /// configured. It bounds how long a withdrawn key stays good for somebody who can suppress the
    /// issuer's answers, and how long tokens are accepted while the issuer is away.
    #[serde(default)]
    pub max_stale: Option<Ttl>,
}

const TOO_LENIENT: &str = "leeway must be at most \"2m\": a longer one keeps expired tokens alive";

/// Clock difference that is tolerated: 1 s to 2 min, 30 s unless configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Ttl")]
pub struct Leeway(u32);

impl Leeway {
    const MAX: u32 = 120;

    /// In seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        self.0
    }

    pub(super) fn seconds_f64(self) -> f64 {
        f64::from(self.0)
    }
}

impl Default for Leeway {
    fn default() -> Self {
        Self(30)
    }
}

impl TryFrom<Ttl> for Leeway {
    type Error = &'static str;

    fn try_from(ttl: Ttl) -> Result<Self, &'static str> {
        if ttl.seconds() > Self::MAX {
            return Err(TOO_LENIENT);
        }
        Ok(Self(ttl.seconds()))
    }
}

impl TryFrom<Duration> for Leeway {
    type Error = &'static str;

    /// Whole seconds; a program may also say none at all.
    fn try_from(duration: Duration) -> Result<Self, &'static str> {
        match u32::try_from(duration.as_secs()) {
            Ok(seconds) if seconds <= Self::MAX => Ok(Self(seconds)),
            _ => Err(TOO_LENIENT),
        }
    }
}

impl JwtIssuerConfig {
    /// Checks what parsing could not.
    pub(super) fn check(&self, allow_http_loopback: bool) -> Result<(), IdentityError> {
        let field = |field: &'static str, problem: String| {
            Err(IdentityError::Field { name: self.name.clone(), field, problem })
        };
        if !is_name(&self.name) {
            return field("name", "must have 1 to 63 of ASCII letters, digits, '_', '-', '.'".into());
        }
        if self.issuer.is_empty() || self.issuer.len() > MAX_TEXT {
            return field("issuer", format!("must have 1 to {MAX_TEXT} bytes"));
        }
        let listed = self.audiences.len();
        if listed == 0 || listed > MAX_AUDIENCES {
            return field("audiences", format!("must list 1 to {MAX_AUDIENCES} audiences, as in [\"jit-broker\"]"));
        }
        if self.audiences.iter().any(|aud| aud.is_empty() || aud.len() > MAX_TEXT) {
            return field("audiences", format!("must have 1 to {MAX_TEXT} bytes each"));
        }
        if self.algorithms.is_empty() {
            return field("algorithms", "must list at least one, or be left out".into());
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            return field("attributes", format!("must be at most {MAX_ATTRIBUTES}"));
        }
        if let Some(bad) = self.attributes.keys().find(|name| !is_name(name)) {
            return field(
                "attributes",
                format!("has the name {bad:?}; use 1 to 63 of ASCII letters, digits, '_', '-', '.'"),
            );
        }
        if let Some(url) = &self.jwks_url {
            // The issuer is then only compared, and may be any text (SPIFFE trust domains, AWS).
            check_url(url, allow_http_loopback).or_else(|problem| field("jwks_url", problem))
        } else {
            let url = Url::parse(&self.issuer).map_err(|error| error.to_string());
            url.and_then(|url| {
                check_url(&url, allow_http_loopback)?;
                if url.query().is_some() || url.fragment().is_some() {
                    return Err("must have no query and no fragment".to_owned());
                }
                Ok(())
            })
            .or_else(|problem| field("issuer", format!("{problem} (or set `jwks_url`)")))
        }
    }
}

/// Whether keys may come from this address: whoever can change them on the way can be anybody.
pub(super) fn check_url(url: &Url, allow_http_loopback: bool) -> Result<(), String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user name or password in it".to_owned());
    }
    let loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => return Err("must be an https address".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback && allow_http_loopback => Ok(()),
        "http" if loopback => Err("must be an https address; http on loopback is only for `jit-broker dev`".to_owned()),
        _ => Err("must be an https address".to_owned()),
    }
}
