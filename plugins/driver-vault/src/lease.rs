//! Leases of Vault's: making, prolonging, giving up, looking at one.

use jit_plugin::{Account, AccountState, Error, Issued, OwnedSecret, log};
use serde_json::{Value, json};

use crate::client::{Call, Vault};
use crate::config::{RoleConfig, TargetConfig};
use crate::failure;
use crate::time::epoch_seconds;

/// A lease as Vault tells of it.
struct Made {
    id: String,
    lasts: u64,
    is_renewable: bool,
}

pub(crate) fn create(
    vault: &mut Vault<'_>,
    config: &TargetConfig,
    role: &RoleConfig,
    account: &Account,
) -> Result<Issued, Error> {
    let wanted = seconds_wanted(account)?;
    let call = Call::get(config.creds(&role.role)).withholding("/data/password").changing();
    let mut response = vault.call(&call)?;
    let password = response.withheld.pop().flatten();
    // From here on something was made.
    let doubt = |why: &str| Error::OutcomeUnknown(format!("{}: {why}", call.shown()));
    let body = response.json().map_err(|_| doubt("the answer is not JSON"))?;
    let lease = Made {
        id: text(&body, "/lease_id").ok_or_else(|| doubt("the answer names no lease"))?.to_owned(),
        lasts: body.pointer("/lease_duration").and_then(Value::as_u64).unwrap_or(0),
        is_renewable: body.pointer("/renewable").and_then(Value::as_bool).unwrap_or(false),
    };
    let username = text(&body, "/data/username").map(str::to_owned);
    settle(vault, &lease, username, password, account, wanted).map_err(|why| undo(vault, &lease.id, why))
}

/// Brings the lease to the wanted end, and tells what there is.
fn settle(
    vault: &mut Vault<'_>,
    lease: &Made,
    username: Option<String>,
    password: Option<OwnedSecret>,
    account: &Account,
    wanted: u64,
) -> Result<Issued, Error> {
    let (Some(username), Some(password)) = (username, password) else {
        let message = "the role gives no user name with a password: the driver hands out nothing else";
        return Err(Error::Refused(message.into()));
    };
    // Vault makes a lease for the role's own time. What follows sets the one that was asked for
    // (BACKSTOP): shorter too, so that Vault ends it when the broker cannot.
    let lasts =
        if lease.lasts == wanted || !lease.is_renewable { lease.lasts } else { extend(vault, &lease.id, wanted)? };
    if lasts == 0 {
        return Err(Error::Refused("the lease ends at once".into()));
    }
    if lasts > wanted {
        let message = "the role's leases cannot be shortened: Vault itself ends this one later than the broker does";
        log::warn(message, &[("vault_lease", &lease.id)]);
    }
    Ok(Issued {
        username: Some(username),
        secret: Some(password),
        external_id: Some(lease.id.clone()),
        expires_at: (lasts < wanted).then(|| account.now.saturating_add(lasts)),
        properties: Vec::new(),
    })
}

/// Takes back a lease that cannot be handed out, and says what that makes of the failure.
fn undo(vault: &mut Vault<'_>, id: &str, why: Error) -> Error {
    match give_up(vault, id) {
        Ok(()) => match why {
            Error::OutcomeUnknown(reason) => Error::retryable(reason),
            Error::Other(reason) => Error::Refused(reason),
            Error::NotFound => Error::retryable("Vault did not know its new lease any more"),
            why => why,
        },
        Err(error) => {
            // The host has no id to revoke it by. It ends by itself, or is found in the list.
            log::error("a lease was made, not handed out, and could not be taken back", &[("vault_lease", id)]);
            let (why, error) = (failure::reason(&why), failure::reason(&error));
            Error::OutcomeUnknown(format!("lease {id} was made and not handed out ({why}); taking it back: {error}"))
        }
    }
}

pub(crate) fn renew(vault: &mut Vault<'_>, account: &Account) -> Result<u64, Error> {
    let Some(id) = &account.external_id else {
        return Err(Error::Other("the account has no lease of Vault's to renew".into()));
    };
    let lasts = extend(vault, id, seconds_wanted(account)?)?;
    Ok(account.now.saturating_add(lasts).min(account.expires_at))
}

/// Without an id there is nothing to address a lease by: it was never heard of. Where the target is
/// `exclusive`, the host finds what was made by `list-accounts`; elsewhere Vault ends it.
pub(crate) fn revoke(vault: &mut Vault<'_>, account: &Account) -> Result<(), Error> {
    match &account.external_id {
        Some(id) => give_up(vault, id),
        None => Ok(()),
    }
}

/// Seconds from the host's now to the wanted end; at least one. Zero would mean the role's own
/// time to Vault.
fn seconds_wanted(account: &Account) -> Result<u64, Error> {
    match account.expires_at.saturating_sub(account.now) {
        0 => Err(Error::Refused("the end that was asked for is over already".into())),
        seconds => Ok(seconds),
    }
}

/// Moves the end of a lease to so many seconds from now, as far as the role allows; gives how many
/// it became.
fn extend(vault: &mut Vault<'_>, id: &str, seconds: u64) -> Result<u64, Error> {
    let body = json!({"lease_id": id, "increment": seconds});
    let call = Call::post(["sys", "leases", "renew"], body).changing();
    let response = vault.send(&call)?;
    match response.status {
        200 => {
            let lasts = response.json()?.pointer("/lease_duration").and_then(Value::as_u64);
            lasts.ok_or_else(|| Error::Other(format!("{}: the answer tells no duration", call.shown())))
        }
        _ if failure::is_unknown_lease(&response) => Err(Error::NotFound),
        _ => Err(failure::of(&call, &response)),
    }
}

/// Without `sync` Vault would answer before anything is done.
fn give_up(vault: &mut Vault<'_>, id: &str) -> Result<(), Error> {
    let call = Call::post(["sys", "leases", "revoke"], json!({"lease_id": id, "sync": true})).changing();
    let response = vault.send(&call)?;
    match response.status {
        204 if response.body.is_empty() => Ok(()),
        // With something to say beside it. A page of a gateway's is no revocation.
        200 if failure::is_vaults_success(&response) => Ok(()),
        200..=299 => Err(failure::not_vaults(&call, &response)),
        _ if failure::is_unknown_lease(&response) => Ok(()),
        _ => Err(failure::of(&call, &response)),
    }
}

/// Vault knows leases by their ids, and not by the names of accounts.
pub(crate) fn inspect(vault: &mut Vault<'_>, config: &TargetConfig, name: &str) -> Result<AccountState, Error> {
    let prefix = config.lease_prefix();
    if !name.starts_with(&prefix) {
        // Not `not-found`: that would say of an account under its name that it is gone.
        return Err(Error::Other(format!("Vault is asked by the id of a lease, which begins with {prefix}")));
    }
    let call = Call::post(["sys", "leases", "lookup"], json!({"lease_id": name}));
    let response = vault.send(&call)?;
    match response.status {
        200 => {}
        _ if failure::is_unknown_lease(&response) => return Err(Error::NotFound),
        _ => return Err(failure::of(&call, &response)),
    }
    let body = response.json().unwrap_or_default();
    let left = body.pointer("/data/ttl").and_then(Value::as_i64);
    let left = left.ok_or_else(|| failure::not_vaults(&call, &response))?;
    Ok(AccountState {
        can_login: left > 0,
        expires_at: text(&body, "/data/expire_time").and_then(epoch_seconds),
        properties: Vec::new(),
    })
}

fn text<'b>(body: &'b Value, pointer: &str) -> Option<&'b str> {
    body.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}
