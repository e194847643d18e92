//! Annotations of a permit that are conditions of its yes: `@max_ttl("30m")`, `@require("ticket")`,
//! `@role("app_read_only")`.

use std::collections::BTreeSet;

use cedar_policy::{Effect, Policy};
use jit_plugin::Seconds;

/// Annotations that this plugin reads, and those that are for people.
const KNOWN: [&str; 6] = ["id", "max_ttl", "require", "role", "advice", "description"];

/// What a request can be required to have.
const REQUIREMENTS: [&str; 3] = ["reason", "ticket", "approval"];

/// The conditions of a permit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Obligations {
    pub(crate) max_ttl: Option<Seconds>,
    pub(crate) requires: BTreeSet<&'static str>,
    pub(crate) role: Option<String>,
}

impl Obligations {
    /// Of one permit.
    ///
    /// # Errors
    /// What is wrong with an annotation, and what to write.
    pub(crate) fn of(policy: &Policy) -> Result<Self, String> {
        let mut obligations = Self::default();
        if let Some(text) = policy.annotation("max_ttl") {
            let ttl = Seconds::parse(text).ok_or("has a @max_ttl that is no duration: write `30m` or `1h`")?;
            obligations.max_ttl = Some(ttl);
        }
        for word in policy.annotation("require").iter().flat_map(|text| text.split(',')) {
            let known = REQUIREMENTS.iter().find(|known| **known == word.trim());
            let message = "has a @require that asks for something else than `reason`, `ticket` or `approval`, \
                           separated by commas";
            obligations.requires.insert(*known.ok_or(message)?);
        }
        if let Some(role) = policy.annotation("role") {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            if role.is_empty() || !role.bytes().all(plain) {
                return Err("has a @role that is no role's name".to_owned());
            }
            obligations.role = Some(role.to_owned());
        }
        Ok(obligations)
    }

    /// Both: the shorter life, all that either requires.
    ///
    /// # Errors
    /// When they name different roles.
    pub(crate) fn and(self, other: Self) -> Result<Self, String> {
        let max_ttl = match (self.max_ttl, other.max_ttl) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let role = match (self.role, other.role) {
            (Some(one), Some(other)) if one != other => {
                return Err(format!("one gives role `{one}` and another `{other}`: forbid one of them"));
            }
            (one, other) => one.or(other),
        };
        Ok(Self { max_ttl, role, requires: &self.requires | &other.requires })
    }
}

/// Mistakes in a policy's annotations.
pub(crate) fn problems(policy: &Policy) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in policy.annotations() {
        if !KNOWN.contains(&name) {
            let known = KNOWN.map(|name| format!("@{name}")).join(", ");
            problems.push(format!("has the annotation @{name}, which is none of {known}"));
        }
        if policy.effect() == Effect::Forbid && matches!(name, "max_ttl" | "require" | "role") {
            problems.push(format!("forbids, so that @{name} is a condition of nothing: put it on a permit"));
        }
        if value.len() > 200 || value.chars().any(char::is_control) {
            problems.push(format!("has a @{name} that is longer than 200 bytes or has control characters"));
        }
    }
    if policy.annotation("id").is_some_and(|id| id.trim().is_empty() || id.contains([',', '`'])) {
        problems.push("has an @id that is empty or has a comma or a backquote".to_owned());
    }
    problems.extend(Obligations::of(policy).err());
    problems
}
