//! `[[identity.jwt]]`: whose tokens are believed, and what they say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jit_core::name::TargetName;
use jit_core::ttl::Ttl;
use url::Url;

use super::field::Wrong;
use super::section::{Section, shown};

/// Every way to prove an identity. At least one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// In the file's order: entry `n` stands at the path `identity.jwt[n]`.
    pub jwt: Vec<JwtIssuer>,
}

/// One issuer of JSON Web Tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// The entry's own name; with the workload's name it makes the principal.
    pub name: String,
    /// Compared with the token's `iss` byte for byte, so it is kept as it was written. An `https`
    /// URL, or `http` on loopback.
    pub issuer: String,
    /// Of these the token's `aud` must have one.
    pub audiences: Vec<String>,
    /// Template of the workload's name: text with claim paths in braces.
    pub workload: String,
    /// Attribute → claim path.
    pub attributes: BTreeMap<String, String>,
    /// Accepted signatures; by default RS256 and ES256.
    pub algorithms: Vec<SigningAlgorithm>,
    /// Instead of discovery.
    pub jwks_url: Option<Url>,
    /// PEM file with the only authorities that the issuer's TLS certificate may come from.
    pub ca: Option<PathBuf>,
    /// A bearer token that is sent with discovery and key set requests, read at each: Kubernetes'
    /// API server answers them only to authenticated callers. Only to the host and port of `jwks_url` or
    /// else `issuer`.
    pub bearer_token_file: Option<PathBuf>,
    /// Tolerated difference of clocks, 1 to 120 s, by default 30 s.
    pub leeway: Duration,
    /// The longest `exp - iat` of an accepted token; none accepts any.
    pub max_token_lifetime: Option<Ttl>,
    /// Keys that the issuer has not confirmed for this long are not used any more: `1m` to `30d`, by
    /// default 24 h.
    pub max_stale: Duration,
}

/// A signature that an issuer may use. All are asymmetric: whoever checks a token must not be
/// able to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of RFC 7518 section 3.1 and RFC 8037")]
pub enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

const ALGORITHMS: [(&str, SigningAlgorithm); 9] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("RS384", SigningAlgorithm::Rs384),
    ("RS512", SigningAlgorithm::Rs512),
    ("PS256", SigningAlgorithm::Ps256),
    ("PS384", SigningAlgorithm::Ps384),
    ("PS512", SigningAlgorithm::Ps512),
    ("ES256", SigningAlgorithm::Es256),
    ("ES384", SigningAlgorithm::Es384),
    ("EdDSA", SigningAlgorithm::EdDsa),
];

impl SigningAlgorithm {
    /// The name in a token's header (RFC 7518 section 3.1).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == self).map_or("", |(name, _)| name)
    }
}

pub(super) fn identity(section: &Section<'_>) -> Identity {
    let read = section.sections("jwt", |entry| {
        issuer(entry).map(|issuer| (issuer, [entry.span_of("name"), entry.span_of("issuer")]))
    });
    let mut jwt: Vec<JwtIssuer> = Vec::new();
    for (issuer, [name_at, issuer_at]) in read.into_iter().flatten() {
        if jwt.iter().any(|other| other.name == issuer.name) {
            let message = format!("there is another identity `{}`: each needs a name of its own", shown(&issuer.name));
            section.reading.error(name_at, message, None);
        }
        let same = jwt.iter().find(|other| {
            other.issuer == issuer.issuer && other.audiences.iter().any(|audience| issuer.audiences.contains(audience))
        });
        if let Some(other) = same {
            let message = format!(
                "`{}` has the same issuer and audience: which of the two names the workload could not be told",
                shown(&other.name)
            );
            section.reading.error(issuer_at, message, Some("give each its own audience".to_owned()));
        }
        jwt.push(issuer);
    }
    Identity { jwt }
}

fn issuer(entry: &Section<'_>) -> Option<JwtIssuer> {
    entry.demand("name", "name = \"cluster-prod\"");
    entry.demand("issuer", "issuer = \"https://kubernetes.default.svc\"");
    entry.demand("audiences", "audiences = [\"jit-broker\"]");
    entry.demand("workload", "workload = \"{sub}\"");
    let name = entry.field("name", "a name such as \"cluster-prod\"", |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        TargetName::new(text).map(String::from).map_err(|error| Wrong::Value(format!("it {error}")))
    });
    let issuer = entry.parsed("issuer", "the issuer's https URL", |text| web_url(text, false).map(|_| text.to_owned()));
    let audiences = entry.texts("audiences", "a list such as [\"jit-broker\"]");
    if audiences.as_ref().is_some_and(Vec::is_empty) {
        let message =
            "`audiences` must have at least one: a token that was made for another service is not for this one";
        entry.error("audiences", message, None);
    }
    let such = "claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\"";
    let workload = entry.parsed("workload", such, template);
    if workload.as_deref().is_some_and(without_namespace) {
        let message = "`workload` names the service account without its namespace: service accounts of all namespaces \
                       with that name are one workload for the policies and in the records";
        let help = "write \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\"";
        entry.reading.warn(entry.span_of("workload"), message, Some(help.to_owned()));
    }
    let jwks_url = entry.parsed("jwks_url", "the https URL of the key set", |text| web_url(text, true));
    let read = JwtIssuer {
        attributes: attributes(entry),
        algorithms: algorithms(entry),
        jwks_url,
        ca: entry.path("ca"),
        bearer_token_file: entry.path("bearer_token_file"),
        leeway: entry.wait("leeway", 30, 1..=120),
        max_token_lifetime: entry.ttl("max_token_lifetime"),
        max_stale: entry.wait("max_stale", 24 * 3_600, 60..=30 * 86_400),
        name: name?,
        issuer: issuer?,
        audiences: audiences?,
        workload: workload?,
    };
    Some(read)
}

/// Whether anybody who may make a service account in some namespace chooses the workload's name with it.
fn without_namespace(template: &str) -> bool {
    template.contains("kubernetes.io.serviceaccount.name")
        && !template.contains("kubernetes.io.namespace")
        && !template.contains("{sub}")
}

/// A URL from which keys may come: whoever can change its answers can be any workload.
fn web_url(text: &str, query: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "this is not a URL")?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err("the host is missing"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not have a user or password");
    }
    if url.fragment().is_some() || (!query && url.query().is_some()) {
        return Err("it must not have a query or fragment");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => {
            Err("http is for 127.0.0.1 and localhost only: on a network, anybody in between could name any workload")
        }
        _ => Err("it must begin with https://"),
    }
}

fn algorithms(entry: &Section<'_>) -> Vec<SigningAlgorithm> {
    let Some(names) = entry.texts("algorithms", "a list such as [\"RS256\", \"ES256\"]") else {
        return vec![SigningAlgorithm::Rs256, SigningAlgorithm::Es256];
    };
    if names.is_empty() {
        entry.error("algorithms", "`algorithms` must have at least one, or be left out", None);
    }
    let mut all = Vec::new();
    for name in names {
        match ALGORITHMS.iter().find(|(known, _)| *known == name) {
            Some((_, algorithm)) => all.push(*algorithm),
            None => {
                let why = if name.starts_with("HS") {
                    "with it, whoever can check a token can make one".to_owned()
                } else if name.eq_ignore_ascii_case("none") {
                    "a token without a signature proves nothing".to_owned()
                } else {
                    format!("there are: {}", ALGORITHMS.map(|(name, _)| name).join(", "))
                };
                entry.error("algorithms", format!("`{}` is not accepted: {why}", shown(&name)), None);
            }
        }
    }
    all
}

/// The most attributes of one issuer.
const MAX_ATTRIBUTES: usize = 64;

fn attributes(entry: &Section<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let found = entry.all_entries("attributes");
    if found.len() > MAX_ATTRIBUTES {
        entry.error("attributes", format!("`attributes` must have at most {MAX_ATTRIBUTES}"), None);
    }
    for (name, value) in found {
        if let Err(error) = TargetName::new(name.get_ref().as_ref()) {
            entry.reading.error(name.span(), format!("the name `{}` {error}", shown(name.get_ref())), None);
        }
        match value.get_ref().as_str().map(|path| claim_path(path).map(|()| path)) {
            Some(Ok(path)) => {
                all.insert(name.get_ref().to_string(), path.to_owned());
            }
            Some(Err(why)) => {
                let message = format!("attribute `{}` must be a claim path: {why}", shown(name.get_ref()));
                entry.reading.error(value.span(), message, None);
            }
            None => {
                let message = format!(
                    "attribute `{}` must be a claim path such as \"kubernetes.io.namespace\", not {}",
                    shown(name.get_ref()),
                    super::field::kind(value.get_ref())
                );
                entry.reading.error(value.span(), message, None);
            }
        }
    }
    all
}

fn claim_path(path: &str) -> Result<(), &'static str> {
    if path.contains(['{', '}']) {
        return Err("without braces here");
    }
    if path.is_empty() || path.len() > 256 || path.matches('.').count() > 16 {
        return Err("1 to 256 bytes with at most 16 dots");
    }
    if path.chars().any(char::is_control) {
        return Err("no control characters");
    }
    Ok(())
}

fn template(text: &str) -> Result<String, String> {
    let mut rest = text;
    let mut claims = 0;
    while let Some(open) = rest.find(['{', '}']) {
        if claims > 0 && open == 0 && rest.starts_with('{') {
            return Err("two claims need a text between them, as in \"{namespace}/{name}\"".to_owned());
        }
        let inner = rest[open..].strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((path, after)) = inner else {
            return Err("each { needs its }".to_owned());
        };
        claim_path(path).map_err(|why| format!("a claim path has {why}"))?;
        claims += 1;
        rest = after;
    }
    if text.len() > 1_024 || text.chars().any(char::is_control) {
        return Err("at most 1024 bytes, no control characters".to_owned());
    }
    if claims == 0 {
        let hint =
            if claim_path(text).is_ok() { format!(": did you mean \"{{{}}}\"?", shown(text)) } else { String::new() };
        return Err(format!("without a claim every token would be the same workload{hint}"));
    }
    Ok(text.to_owned())
}
