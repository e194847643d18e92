//! Which leases there are: how the host finds one whose answer it never got.
//!
//! Vault does not say who made a lease. So they are listed only where the operator says that nobody
//! but the broker gets credentials there (`exclusive`): all others would be taken for its own, and
//! removed.

use jit_plugin::{AccountPage, Error};
use serde_json::Value;

use crate::client::{Call, Vault};
use crate::config::{TargetConfig, segments};
use crate::failure;

/// How many ids a page has.
const PAGE: usize = 500;

/// For how many roles one page asks at most.
const ROLES: usize = 50;

/// A page from a cursor on. The cursor is `role/id`: the role to go on with, and the last id that
/// was given of it.
pub(crate) fn list(vault: &mut Vault<'_>, config: &TargetConfig, cursor: Option<&str>) -> Result<AccountPage, Error> {
    if !config.exclusive {
        let message = "leases are listed only with `exclusive = true` in the target's config: \
                       say so when nobody but this broker gets credentials there";
        return Err(Error::Refused(message.into()));
    }
    let (from, mut after) = cursor.and_then(|cursor| cursor.split_once('/')).unwrap_or_default();
    let mut roles = roles(vault, config)?;
    roles.retain(|role| role.as_str() >= from);
    let mut names = Vec::new();
    for (asked, role) in roles.iter().enumerate() {
        if asked == ROLES {
            return Ok(AccountPage { names, next: Some(format!("{role}/")) });
        }
        if role != from {
            after = "";
        }
        for id in below(vault, config, Some(role))? {
            if id.as_str() <= after || id.ends_with('/') {
                continue;
            }
            if names.len() == PAGE {
                return Ok(AccountPage { next: last(&names, config), names });
            }
            names.push(format!("{}{role}/{id}", config.lease_prefix()));
        }
    }
    Ok(AccountPage { names, next: None })
}

/// Where a full page ended.
fn last(names: &[String], config: &TargetConfig) -> Option<String> {
    names.last()?.strip_prefix(&config.lease_prefix()).map(str::to_owned)
}

/// The roles to ask for, in order.
fn roles(vault: &mut Vault<'_>, config: &TargetConfig) -> Result<Vec<String>, Error> {
    let mut roles = config.roles.clone();
    if roles.is_empty() {
        let folders = below(vault, config, None)?;
        roles = folders.iter().filter_map(|folder| folder.strip_suffix('/')).map(str::to_owned).collect();
    }
    roles.sort();
    roles.dedup();
    Ok(roles)
}

/// What Vault lists below the mount's credentials, or below one role's, in order.
fn below(vault: &mut Vault<'_>, config: &TargetConfig, role: Option<&str>) -> Result<Vec<String>, Error> {
    let mut path = vec!["sys", "leases", "lookup"];
    path.extend(segments(&config.mount));
    path.push("creds");
    path.extend(role);
    let call = Call::list(path);
    let response = vault.send(&call)?;
    match response.status {
        200 => {}
        // An empty list, in Vault's own words, which are none. A gateway's 404 says nothing of leases, nor
        // does one of Vault's with words (no such namespace or mount, at the moment).
        404 if failure::is_wordless(&response) => return Ok(Vec::new()),
        404 => return Err(failure::not_vaults(&call, &response)),
        _ => return Err(failure::of(&call, &response)),
    }
    let body = response.json().unwrap_or_default();
    let keys = body.pointer("/data/keys").and_then(Value::as_array);
    let keys = keys.and_then(|keys| keys.iter().map(|key| key.as_str().map(str::to_owned)).collect());
    let mut keys: Vec<String> = keys.ok_or_else(|| failure::not_vaults(&call, &response))?;
    keys.sort();
    Ok(keys)
}
