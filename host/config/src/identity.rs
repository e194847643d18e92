//! `[[identity.jwt]]`: whose tokens are believed, and what they say. The rules are jit-identity's; here they meet
//! the text, so that every mistake is reported at its place.

use std::collections::BTreeMap;

use jit_identity::{ClaimPath, IssuerUrl, JwtIssuerConfig, KeyUrl, SigningAlgorithm, TemplateError, WorkloadTemplate};

use super::field::Wrong;
use super::section::{Section, shown};

/// Every way to prove an identity. At least one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// In the file's order: entry `n` stands at the path `identity.jwt[n]`.
    pub jwt: Vec<JwtIssuerConfig>,
}

pub(super) fn identity(section: &Section<'_>) -> Identity {
    let read = section.sections("jwt", |entry| {
        issuer(entry).map(|issuer| (issuer, [entry.span_of("name"), entry.span_of("issuer")]))
    });
    let mut jwt: Vec<JwtIssuerConfig> = Vec::new();
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
                "`{}` has the same issuer and audience: nothing would say which of the two names the workload",
                shown(&other.name)
            );
            section.reading.error(issuer_at, message, Some("give each its own audience".to_owned()));
        }
        jwt.push(issuer);
    }
    Identity { jwt }
}

fn issuer(entry: &Section<'_>) -> Option<JwtIssuerConfig> {
    entry.demand("name", "name = \"cluster-prod\"");
    entry.demand("issuer", "issuer = \"https://kubernetes.default.svc\"");
    entry.demand("audiences", "audiences = [\"jit-broker\"]");
    entry.demand("workload", "workload = \"{sub}\"");
    let name = entry.field("name", "a name such as \"cluster-prod\"", |value| {
        let text = value.as_str().ok_or(Wrong::Kind)?;
        let checked = JwtIssuerConfig::check_name(text).map(|()| text.to_owned());
        checked.map_err(|error| Wrong::Value(format!("it {error}")))
    });
    let issuer = entry.parsed("issuer", "the issuer's https URL", IssuerUrl::parse);
    let audiences = entry.texts("audiences", "a list such as [\"jit-broker\"]");
    if let Some(audiences) = &audiences {
        rule(entry, "audiences", JwtIssuerConfig::check_audiences(audiences));
    }
    let such = "claim paths in braces such as \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\"";
    let workload = entry.parsed("workload", such, template);
    if workload.as_ref().is_some_and(without_namespace) {
        let message = "`workload` names the service account without its namespace: service accounts of all namespaces \
                       with that name are one workload for the policies and in the records";
        let help = "write \"{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}\"";
        entry.reading.warn(entry.span_of("workload"), message, Some(help.to_owned()));
    }
    let jwks_url = entry.parsed("jwks_url", "the https URL of the key set", KeyUrl::parse);
    let attributes = attributes(entry);
    let algorithms = algorithms(entry);
    let ca = entry.path("ca");
    let bearer_token_file = entry.path("bearer_token_file");
    let leeway = entry.wait("leeway", JwtIssuerConfig::DEFAULT_LEEWAY.into(), JwtIssuerConfig::LEEWAY);
    let max_token_lifetime = entry.ttl("max_token_lifetime");
    let max_stale = entry.entry("max_stale").map(|_| entry.wait("max_stale", 0, JwtIssuerConfig::MAX_STALE));
    let mut read = JwtIssuerConfig::new(name?, issuer?, audiences?, workload?);
    if let Some(algorithms) = algorithms {
        read.algorithms = algorithms;
    }
    Some(JwtIssuerConfig { attributes, jwks_url, ca, bearer_token_file, leeway, max_token_lifetime, max_stale, ..read })
}

/// Reports a field that breaks a rule.
fn rule(entry: &Section<'_>, key: &'static str, checked: Result<(), String>) {
    if let Err(why) = checked {
        entry.error(key, format!("`{key}` {why}"), None);
    }
}

/// Whether anybody who may make a service account in some namespace chooses the workload's name with it.
fn without_namespace(template: &WorkloadTemplate) -> bool {
    let names = |path: &str| template.claims().any(|claim| claim == path);
    names("kubernetes.io.serviceaccount.name") && !names("kubernetes.io.namespace") && !names("sub")
}

fn template(text: &str) -> Result<WorkloadTemplate, String> {
    text.parse().map_err(|error| match error {
        TemplateError::NoClaim if text.parse::<ClaimPath>().is_ok() => {
            format!("{error}: did you mean \"{{{}}}\"?", shown(text))
        }
        error => error.to_string(),
    })
}

fn algorithms(entry: &Section<'_>) -> Option<Vec<SigningAlgorithm>> {
    let names = entry.texts("algorithms", "a list such as [\"RS256\", \"ES256\"]")?;
    let mut all = Vec::new();
    for name in &names {
        match name.parse() {
            Ok(algorithm) => all.push(algorithm),
            Err(why) => {
                entry.error("algorithms", format!("`{}` is not accepted: {why}", shown(name)), None);
            }
        }
    }
    if names.is_empty() {
        rule(entry, "algorithms", JwtIssuerConfig::check_algorithms(&all));
    }
    Some(all)
}

fn attributes(entry: &Section<'_>) -> BTreeMap<String, ClaimPath> {
    let mut all = BTreeMap::new();
    let found = entry.all_entries("attributes");
    rule(entry, "attributes", JwtIssuerConfig::check_attributes(found.len()));
    for (name, value) in found {
        if let Err(error) = JwtIssuerConfig::check_name(name.get_ref()) {
            entry.reading.error(name.span(), format!("the name `{}` {error}", shown(name.get_ref())), None);
        }
        match value.get_ref().as_str().map(str::parse::<ClaimPath>) {
            Some(Ok(path)) => {
                all.insert(name.get_ref().to_string(), path);
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
