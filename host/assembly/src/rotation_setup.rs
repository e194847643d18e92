//! Whether rotating roles can be served: what only shows when plugins and connections are there.

use std::collections::BTreeMap;

use jit_core::account::AccountName;
use jit_core::driver::Feature;
use jit_core::name::RoleName;

use jit_config::{Config, Problem};
use jit_pipeline::rotation::RotatingAccount;
use jit_pipeline::target::{Serving, Target};

/// The rotating account of a role, checked.
///
/// # Errors
/// In words for operators: what to mend.
pub fn account(
    config: &Config,
    target: &jit_config::Target,
    role: &RoleName,
    driver: &jit_runtime::DriverPlugin,
) -> Result<Option<RotatingAccount>, String> {
    let Some(rotating) = target.rotating.get(role) else { return Ok(None) };
    let description = driver.description();
    for (feature, word) in [(Feature::Rotate, "rotate"), (Feature::Overlap, "overlap")] {
        if !description.has(feature) {
            return Err(format!(
                "the driver {} ({}) cannot rotate accounts: it lacks the feature `{word}`",
                target.driver, description.name
            ));
        }
    }
    let account = AccountName::from_backend(rotating.account.as_str());
    if rotating.account.len() > description.max_name_length {
        return Err(format!("the driver takes names of at most {} bytes", description.max_name_length));
    }
    if account.has_shape() {
        return Err(format!("{account} looks like a name that the broker makes, and would be removed as a ghost"));
    }
    let connection = target.connection.as_ref().and_then(|name| config.connections.get(name));
    if connection.is_some_and(|connection| connection.url.username() == rotating.account) {
        return Err(format!("{account} is the broker's own account: with a new password it would lock itself out"));
    }
    Ok(Some(RotatingAccount { account, schedule: rotating.schedule }))
}

/// Where an account is: the server, whatever the connection to it is called.
fn server(target: &Target) -> String {
    target.site.address.clone().unwrap_or_else(|| target.driver_name.clone())
}

/// Roles that would rotate one account against each other.
#[must_use]
pub fn conflicts(config: &Config, serving: &Serving) -> Vec<Problem> {
    let mut seen: BTreeMap<(String, AccountName), String> = BTreeMap::new();
    let mut problems = Vec::new();
    for target in serving.targets.values() {
        for (role, rotating) in target.roles.iter().filter_map(|(name, role)| Some((name, role.rotating.as_ref()?))) {
            let path = format!("targets.{}.roles.{role}", target.name);
            let place = (server(target), rotating.account.clone());
            if let Some(other) = seen.get(&place) {
                let message = format!("the account {} is rotated by {other} already", rotating.account);
                problems.push(config.explain(&format!("{path}.rotating"), message));
            } else {
                seen.insert(place, path);
            }
        }
    }
    problems
}
