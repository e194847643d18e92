//! One `[[identity.jwt]]` entry: the type that the configuration's reader builds, and the rules that a reader
//! applies to each field to report every mistake at its place. [`JwtIssuerConfig::check`] applies the same
//! rules, for a program that builds an entry by itself.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jit_core::name::TargetName;
use jit_core::ttl::Ttl;

use super::url::{IssuerUrl, KeyUrl};
use crate::algorithm::SigningAlgorithm;
use crate::claims::{ClaimPath, MAX_ATTRIBUTES, WorkloadTemplate};
use crate::error::IdentityError;

/// The longest audience, in bytes.
const MAX_AUDIENCE: usize = 1024;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuerConfig {
    /// The entry's name, unique: part of every principal that it verifies.
    pub name: String,
    /// The tokens' `iss`, compared exactly. Without `jwks_url` the key set's address is discovered at
    /// `<issuer>/.well-known/openid-configuration`.
    pub issuer: IssuerUrl,
    /// A token must be for one of these. At least one.
    pub audiences: Vec<String>,
    /// The workload's name, for policies and records. A lease belongs to the token's `sub` as well, so two
    /// workloads with one name never share a lease (ONE-OWNER); but the policies cannot tell them apart:
    /// name whatever makes them different, as in
    /// `"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}"`.
    pub workload: WorkloadTemplate,
    /// What policies see: attribute name to claim path. A claim that is absent makes no
    /// attribute; one that is not a short printable scalar makes the token refused, because a
    /// policy that denies by an attribute must not lose it.
    pub attributes: BTreeMap<String, ClaimPath>,
    /// The signature algorithms that are accepted; never taken from the token. RS256 and ES256 unless
    /// configured.
    pub algorithms: Vec<SigningAlgorithm>,
    /// The key set's address, instead of discovery.
    pub jwks_url: Option<KeyUrl>,
    /// A PEM file with the only certificate authorities that discovery and key set are fetched
    /// under. Otherwise the system's are used. Read at start and on reload.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token that is sent with discovery and key set requests: Kubernetes'
    /// API server answers them only to authenticated callers. Read at each fetch, because such
    /// tokens rotate. Sent only to scheme, host and port of `jwks_url` or else `issuer`, and not to
    /// another host that a discovery document names.
    pub bearer_token_file: Option<PathBuf>,
    /// How far clocks may differ, in [`JwtIssuerConfig::LEEWAY`]; 30 s unless configured.
    pub leeway: Duration,
    /// Refuse tokens that live longer (`exp` − `iat`; from now where `iat` is absent).
    pub max_token_lifetime: Option<Ttl>,
    /// Keys that the issuer has not confirmed for this long are not used any more, in
    /// [`JwtIssuerConfig::MAX_STALE`]; 24 h unless configured. It bounds how long a withdrawn key stays good
    /// for somebody who can suppress the issuer's answers, and how long tokens are accepted while the
    /// issuer is away.
    pub max_stale: Option<Duration>,
}

impl JwtIssuerConfig {
    /// Bounds of `leeway`, in seconds: a longer one keeps expired tokens alive.
    pub const LEEWAY: RangeInclusive<u32> = 1..=120;
    /// `leeway` of an entry without it, in seconds.
    pub const DEFAULT_LEEWAY: u32 = 30;
    /// Bounds of `max_stale`, in seconds: one minute to 30 days.
    pub const MAX_STALE: RangeInclusive<u32> = 60..=30 * 86_400;

    /// An entry with the defaults for all that need not be configured.
    #[must_use]
    pub fn new(name: String, issuer: IssuerUrl, audiences: Vec<String>, workload: WorkloadTemplate) -> Self {
        Self {
            name,
            issuer,
            audiences,
            workload,
            attributes: BTreeMap::new(),
            algorithms: SigningAlgorithm::usual(),
            jwks_url: None,
            ca: None,
            bearer_token_file: None,
            leeway: Duration::from_secs(Self::DEFAULT_LEEWAY.into()),
            max_token_lifetime: None,
            max_stale: None,
        }
    }

    /// Checks `audiences`.
    ///
    /// # Errors
    /// What is wrong, to be read after the field's name.
    pub fn check_audiences(audiences: &[String]) -> Result<(), String> {
        if audiences.is_empty() {
            let why = "must have at least one: a token that was made for another service is not for this one";
            return Err(why.to_owned());
        }
        if audiences.len() > MAX_AUDIENCES {
            return Err(format!("must have at most {MAX_AUDIENCES}"));
        }
        if audiences.iter().any(|audience| audience.is_empty() || audience.len() > MAX_AUDIENCE) {
            return Err(format!("must have 1 to {MAX_AUDIENCE} bytes each"));
        }
        Ok(())
    }

    /// Checks `algorithms`.
    ///
    /// # Errors
    /// What is wrong, to be read after the field's name.
    pub fn check_algorithms(algorithms: &[SigningAlgorithm]) -> Result<(), String> {
        if algorithms.is_empty() { Err("must have at least one, or be left out".to_owned()) } else { Ok(()) }
    }

    /// Checks how many `attributes` there are.
    ///
    /// # Errors
    /// What is wrong, to be read after the field's name.
    pub fn check_attributes(count: usize) -> Result<(), String> {
        if count > MAX_ATTRIBUTES { Err(format!("must have at most {MAX_ATTRIBUTES}")) } else { Ok(()) }
    }

    /// Checks the name of an entry or attribute.
    ///
    /// # Errors
    /// What is wrong, to be read after the name.
    pub fn check_name(name: &str) -> Result<(), String> {
        // The names of a configuration have one form.
        TargetName::new(name).map(drop).map_err(|error| error.to_string())
    }

    /// Applies every rule.
    pub(super) fn check(&self, allow_http_loopback: bool) -> Result<(), IdentityError> {
        let field = |field: &'static str| {
            let name = self.name.clone();
            move |problem: String| IdentityError::Field { name, field, problem }
        };
        Self::check_name(&self.name).map_err(field("name"))?;
        Self::check_audiences(&self.audiences).map_err(field("audiences"))?;
        Self::check_algorithms(&self.algorithms).map_err(field("algorithms"))?;
        Self::check_attributes(self.attributes.len()).map_err(field("attributes"))?;
        for name in self.attributes.keys() {
            Self::check_name(name).map_err(|error| field("attributes")(format!("has a name that {error}")))?;
        }
        // A program may choose shorter times than a configuration can: that is only stricter.
        at_most(self.leeway, &Self::LEEWAY).map_err(field("leeway"))?;
        if let Some(max_stale) = self.max_stale {
            at_most(max_stale, &Self::MAX_STALE).map_err(field("max_stale"))?;
        }
        let plain = "must be an https address; http on loopback is only for `jit-broker dev`";
        match &self.jwks_url {
            // With an address for the keys, the issuer's is only compared and never asked.
            Some(url) if url.is_plain() && !allow_http_loopback => Err(field("jwks_url")(plain.to_owned())),
            None if self.issuer.is_plain() && !allow_http_loopback => {
                Err(field("issuer")(format!("{plain} (or set `jwks_url`)")))
            }
            _ => Ok(()),
        }
    }
}

fn at_most(value: Duration, bounds: &RangeInclusive<u32>) -> Result<(), String> {
    let most = bounds.end();
    if value > Duration::from_secs((*most).into()) { Err(format!("must be at most {most} seconds")) } else { Ok(()) }
}
