//! Checking a target before it is used: everything that would make an issue or a removal fail later,
//! each with the line of the policy that mends it.

use std::collections::BTreeMap;

use jit_plugin::driver::of_role;
use jit_plugin::{ConfigProblem, Error, Http, Role, Target, log};
use serde_json::{Value, json};

use crate::client::{Call, Vault, policy_line};
use crate::config::{RoleConfig, TargetConfig};
use crate::failure;

/// How many paths one request asks for.
const PATHS: usize = 100;

/// How many roles are looked at in Vault itself.
const LOOKED_AT: usize = 100;

pub(crate) fn validate(
    http: &mut dyn Http,
    target: &Target<TargetConfig>,
    roles: &[Role<RoleConfig>],
) -> Result<(), Error> {
    let mut problems = target.config.problems();
    for role in roles {
        problems.extend(of_role(&role.name, role.config.problems()));
    }
    if problems.is_empty() {
        let mut vault = Vault::new(http, &target.config);
        let wanted = wanted(&target.config, roles);
        if let Some(allowed) = Allowed::ask(&mut vault, &wanted, roles, &target.config)? {
            problems.extend(allowed.problems(&wanted));
            problems.extend(role_problems(&mut vault, &allowed, &target.config, roles)?);
        }
        look_at_token(&mut vault, target)?;
        warn_of_lost_leases(target, roles);
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

/// What the token's policy has to allow.
struct Wanted {
    /// Where the configuration speaks of it.
    at: String,
    path: String,
    capabilities: &'static [&'static str],
}

fn wanted(config: &TargetConfig, roles: &[Role<RoleConfig>]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut want = |at: &str, path: String, capabilities| wanted.push(Wanted { at: at.to_owned(), path, capabilities });
    for role in roles {
        want(&format!("roles.{}.role", role.name), config.creds(&role.config.role).join("/"), &["read"]);
    }
    for path in ["renew", "revoke", "lookup"] {
        want("", format!("sys/leases/{path}"), &["update"]);
    }
    want("auth", "auth/token/lookup-self".to_owned(), &["read"]);
    want("auth", "auth/token/renew-self".to_owned(), &["update"]);
    if config.exclusive {
        let listed = |role: &str| format!("sys/leases/lookup/{}{role}", config.lease_prefix());
        let sudo: &[_] = &["list", "sudo"];
        if config.roles.is_empty() {
            want("exclusive", listed(""), sudo);
            for role in roles {
                want("exclusive", listed(&format!("{}/", role.config.role)), sudo);
            }
        }
        for role in &config.roles {
            want("exclusive", listed(&format!("{role}/")), sudo);
        }
    }
    wanted
}

/// Where Vault has a role's own settings.
fn settings<'a>(config: &'a TargetConfig, role: &'a RoleConfig) -> Vec<&'a str> {
    let mut path = crate::config::segments(&config.mount);
    path.extend(["roles", &role.role]);
    path
}

/// What the token may do, by path.
struct Allowed(BTreeMap<String, Vec<String>>);

impl Allowed {
    /// None where Vault does not say.
    fn ask(
        vault: &mut Vault<'_>,
        wanted: &[Wanted],
        roles: &[Role<RoleConfig>],
        config: &TargetConfig,
    ) -> Result<Option<Self>, Error> {
        let mut paths: Vec<String> = wanted.iter().map(|wanted| wanted.path.clone()).collect();
        paths.extend(roles.iter().map(|role| settings(config, &role.config).join("/")));
        let mut allowed = BTreeMap::new();
        for paths in paths.chunks(PATHS) {
            let call = Call::post(["sys", "capabilities-self"], json!({ "paths": paths }));
            let response = vault.send(&call)?;
            match response.status {
                200 => {}
                403 => {
                    log::warn("the token's permissions cannot be checked", &[("hint", call.policy_hint().as_str())]);
                    return Ok(None);
                }
                _ => return Err(failure::of(&call, &response)),
            }
            let body = response.json()?;
            for path in paths {
                let held = body.get("data").and_then(|data| data.get(path)).and_then(Value::as_array);
                let held = held.map(Vec::as_slice).unwrap_or_default();
                let held = held.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                allowed.insert(path.clone(), held);
            }
        }
        Ok(Some(Self(allowed)))
    }

    fn has(&self, path: &str, capability: &str) -> bool {
        let held = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        held.iter().any(|held| held == capability || held == "root")
    }

    fn problems(&self, wanted: &[Wanted]) -> Vec<ConfigProblem> {
        let lacking = |wanted: &&Wanted| !wanted.capabilities.iter().all(|needed| self.has(&wanted.path, needed));
        let told = |wanted: &Wanted| {
            let line = policy_line(&wanted.path, wanted.capabilities);
            ConfigProblem::new(wanted.at.clone(), format!("the broker's policy in Vault lacks a line: add {line}"))
        };
        wanted.iter().filter(lacking).map(told).collect()
    }
}

/// Roles that Vault does not have, or that give no password, as far as the policy lets the broker see.
fn role_problems(
    vault: &mut Vault<'_>,
    allowed: &Allowed,
    config: &TargetConfig,
    roles: &[Role<RoleConfig>],
) -> Result<Vec<ConfigProblem>, Error> {
    let mut problems = Vec::new();
    for role in roles.iter().take(LOOKED_AT) {
        let call = Call::get(settings(config, &role.config));
        if !allowed.has(&call.shown(), "read") {
            continue;
        }
        let response = vault.send(&call)?;
        let message = match response.status {
            200 => {
                let body = response.json()?;
                let kind = body.pointer("/data/credential_type").and_then(Value::as_str).unwrap_or("password");
                (kind != "password").then(|| format!("gives `{kind}`, and the driver hands out passwords only"))
            }
            // With words it is another engine, which has its roles elsewhere.
            404 if failure::is_wordless(&response) => {
                Some(format!("there is no role `{}` at `{}` in Vault", role.config.role, config.mount))
            }
            _ => None,
        };
        let problem = message.map(|message| ConfigProblem::new("role", message));
        problems.extend(of_role(&role.name, problem.into_iter().collect()));
    }
    Ok(problems)
}

/// Leases live no longer than the token that made them.
fn look_at_token(vault: &mut Vault<'_>, target: &Target<TargetConfig>) -> Result<(), Error> {
    let Some(state) = vault.state_of_token()? else { return Ok(()) };
    if state.full > 0 && !state.is_periodic {
        let message = "the broker's token has a longest life, and leases end with it: \
                       set `token_period` on the role that the broker logs in as";
        log::warn(message, &[("target", target.name.as_str())]);
    }
    Ok(())
}

fn warn_of_lost_leases(target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) {
    let config = &target.config;
    let listed = |role: &&Role<RoleConfig>| {
        config.exclusive && (config.roles.is_empty() || config.roles.contains(&role.config.role))
    };
    let unlisted: Vec<&str> = roles.iter().filter(|role| !listed(role)).map(|role| role.name.as_str()).collect();
    if !unlisted.is_empty() {
        let message = "not exclusive: credentials whose answer is lost on the way stay until Vault ends them";
        log::info(message, &[("target", target.name.as_str()), ("roles", &unlisted.join(","))]);
    }
}
