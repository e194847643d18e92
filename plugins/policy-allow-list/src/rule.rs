//! One rule: whom it is for, what it gives, and on which conditions.

use std::collections::BTreeMap;

use jit_plugin::{ConfigProblem, Name, Pattern, Request, Seconds, SpiffePrefix};
use serde::Deserialize;

use crate::reason::Progress;

/// A rule. All that it names must fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// What the audit record calls it; without one, its place in the list.
    pub(crate) name: Option<Name>,
    /// The workload's name.
    workload: Option<Pattern>,
    /// The beginning of the workload's SPIFFE ID: the attribute `spiffe_id`, or the workload's
    /// name where that is one.
    spiffe_prefix: Option<SpiffePrefix>,
    /// The attribute `k8s_namespace`.
    k8s_namespace: Option<Pattern>,
    /// The attribute `k8s_service_account`.
    k8s_service_account: Option<Pattern>,
    /// Who vouches for the identity. Two issuers may know workloads of the same name.
    issuer: Option<Pattern>,
    target: Pattern,
    roles: Vec<Pattern>,
    /// Attributes that the identity must have.
    #[serde(default)]
    attributes: BTreeMap<String, Pattern>,
    /// The lease lives at most so long.
    pub(crate) max_ttl: Option<Seconds>,
    /// The request must say why.
    #[serde(default)]
    pub(crate) require_reason: bool,
    /// The request must name a ticket.
    #[serde(default)]
    pub(crate) require_ticket: bool,
    /// The caller must make the password itself, and send a verifier of it.
    #[serde(default)]
    require_verifier: bool,
}

impl Rule {
    /// What the types do not say.
    pub(crate) fn problems(&self, path: &str) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.is_by_attributes_alone() && self.attributes.is_empty() {
            problems.push(ConfigProblem::new(
                path,
                "says nothing of the workload: add `workload`, `spiffe_prefix`, `k8s_namespace`, \
                 `k8s_service_account` or `attributes`; `workload = \"*\"` is everybody",
            ));
        }
        if self.roles.is_empty() {
            problems.push(ConfigProblem::new(
                format!("{path}.roles"),
                "is empty, so the rule gives nothing: name the roles, or write `[\"*\"]`",
            ));
        }
        problems
    }

    /// How far the request fits.
    pub(crate) fn progress(&self, request: &Request) -> Progress {
        let unmet = self
            .attributes
            .iter()
            .find(|(name, wanted)| request.attribute(name).is_none_or(|value| !wanted.fits(value)));
        // Where attributes are all that a rule knows its workloads by, whoever lacks one is a stranger
        // to it, and is not told what it is for.
        if !self.is_for(request) || (self.is_by_attributes_alone() && unmet.is_some()) {
            return Progress::NoRule;
        }
        if !self.target.fits(request.target()) {
            return Progress::OtherTarget;
        }
        if !self.roles.iter().any(|role| role.fits(request.role())) {
            return Progress::OtherRole;
        }
        match unmet {
            Some((name, _)) => Progress::Attribute(name.clone()),
            None if self.require_verifier && request.resource("credential") != Some("verifier") => Progress::Credential,
            None => Progress::Fits,
        }
    }

    fn is_by_attributes_alone(&self) -> bool {
        self.workload.is_none()
            && self.spiffe_prefix.is_none()
            && self.k8s_namespace.is_none()
            && self.k8s_service_account.is_none()
    }

    /// Reads of the request what the rule names, and nothing else.
    fn is_for(&self, request: &Request) -> bool {
        let spiffe_id = || request.attribute("spiffe_id").unwrap_or_else(|| request.workload());
        fits(self.workload.as_ref(), || Some(request.workload()))
            && fits(self.issuer.as_ref(), || Some(request.issuer()))
            && fits(self.k8s_namespace.as_ref(), || request.attribute("k8s_namespace"))
            && fits(self.k8s_service_account.as_ref(), || request.attribute("k8s_service_account"))
            && self.spiffe_prefix.as_ref().is_none_or(|prefix| prefix.fits(spiffe_id()))
    }
}

/// What a rule does not name fits; what it names must be there.
fn fits<'r>(wanted: Option<&Pattern>, value: impl FnOnce() -> Option<&'r str>) -> bool {
    wanted.is_none_or(|wanted| value().is_some_and(|value| wanted.fits(value)))
}
