//! Handing out what variables have, and what can be done when a lease ends.

use jit_plugin::http::{self, Method, Request};
use jit_plugin::{Account, AccountState, Error, Issued, OwnedSecret, Retry, log};
use serde_json::Value;

use crate::client::{Call, Conjur, full_id};
use crate::config::RoleConfig;
use crate::failure::Asked;

/// The property that tells the caller what the end of a lease does to the account.
pub(crate) const REVOCATION: &str = "revocation";

/// What the external id of a lease begins with: what its end does, and then the variable's id.
const KEEP: &str = "keep/";
const ROTATE: &str = "rotate/";

/// How long a rotation that was triggered is waited for before it is triggered again, in seconds.
const ROTATION: u64 = 300;

/// When to look again for a rotation's result, in milliseconds. Rotators run in rounds of seconds.
const LOOK_AGAIN: u64 = 3_000;

pub(crate) fn create(conjur: &mut Conjur<'_>, role: &RoleConfig) -> Result<Issued, Error> {
    if !role.rotate_before {
        return fetch(conjur, role, role.version.map(u64::from));
    }
    let fresh = Rotation::ask(conjur, &role.password).map_err(undoubted)?;
    // Taken before it is read: of two calls that see the same new password, one gets it.
    fresh.take(conjur)?;
    fetch(conjur, role, Some(fresh.version)).inspect_err(|_| fresh.give_back(conjur))
}

/// What is handed out, at that version of the password.
fn fetch(conjur: &mut Conjur<'_>, role: &RoleConfig, version: Option<u64>) -> Result<Issued, Error> {
    let (password, values) = match version {
        Some(version) => (pinned(conjur, &role.password, version)?, several(conjur, &readable(role), None)?.1),
        None => several(conjur, &readable(role), Some(&role.password))?,
    };
    let missing = |id: &str| Error::Refused(format!("{id}: the answer has no text value for it"));
    let password = password.ok_or_else(|| missing(&role.password))?;
    let value = |id: &str| {
        let full = full_id(conjur.config, id);
        values.get(&full).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| missing(id))
    };
    let username = match (&role.username, &role.fixed_username) {
        (Some(id), _) => value(id)?,
        (None, fixed) => fixed.clone().unwrap_or_default(),
    };
    let end = if role.rotate_on_revoke { ROTATE } else { KEEP };
    let mut properties =
        vec![(REVOCATION.to_owned(), if role.rotate_on_revoke { "rotation" } else { "none" }.to_owned())];
    for (name, id) in &role.properties {
        properties.push((name.clone(), value(id)?));
    }
    Ok(Issued {
        username: Some(username),
        secret: Some(password),
        external_id: Some(format!("{end}{}", role.password)),
        expires_at: None,
        properties,
    })
}

/// Nothing was made: what is in doubt is only whether a rotation was triggered, which may be tried again.
fn undoubted(error: Error) -> Error {
    match error {
        Error::OutcomeUnknown(reason) => Error::retryable(reason),
        error => error,
    }
}

/// The variables that are no secrets.
fn readable(role: &RoleConfig) -> Vec<&str> {
    role.username.iter().chain(role.properties.values()).map(String::as_str).collect()
}

type Values = serde_json::Map<String, Value>;

/// Several variables in one request, all of them or none. The password's value stays with the host.
fn several(
    conjur: &mut Conjur<'_>,
    readable: &[&str],
    password: Option<&str>,
) -> Result<(Option<OwnedSecret>, Values), Error> {
    let ids: Vec<&str> = password.into_iter().chain(readable.iter().copied()).collect();
    if ids.is_empty() {
        return Ok((None, Values::new()));
    }
    let full: Vec<String> = ids.iter().map(|id| full_id(conjur.config, id)).collect();
    let (wanted, what) = (full.join(","), ids.join(", "));
    let pointer = password.map(|id| format!("/{}", full_id(conjur.config, id).replace('~', "~0").replace('/', "~1")));
    let mut request = Request::new(Method::Get, ["secrets"]).query("variable_ids", &wanted);
    request.withhold.extend(pointer.as_deref());
    let call = Call { request, asked: Asked { what: &what, privilege: "execute", changes: false } };
    let mut response = conjur.call(&call)?;
    let taken = response.withheld.pop().flatten();
    match response.json()? {
        Value::Object(values) => Ok((taken, values)),
        _ => Err(Error::Other(format!("{what}: the answer is not a JSON object"))),
    }
}

/// One version of a variable; the whole answer stays with the host.
fn pinned(conjur: &mut Conjur<'_>, id: &str, version: u64) -> Result<Option<OwnedSecret>, Error> {
    let (config, version) = (conjur.config, version.to_string());
    let request =
        Request::new(Method::Get, ["secrets", &config.account, "variable", id]).query("version", &version).withhold("");
    let what = format!("version {version} of {id}");
    let call = Call { request, asked: Asked { what: &what, privilege: "execute", changes: false } };
    Ok(conjur.call(&call)?.withheld.pop().flatten())
}

/// A password that was changed since somebody asked for it.
struct Rotation {
    version: u64,
    /// The note that it was asked for.
    key: String,
    note: OwnedSecret,
}

impl Rotation {
    /// Conjur changes a variable in a round of its own, and a driver cannot wait: it has no clock.
    /// So the first call triggers, and leaves a note with the version that there was; a later call
    /// that finds a new version takes it. The note is the token's handle under a key: all that a
    /// driver can keep.
    fn ask(conjur: &mut Conjur<'_>, id: &str) -> Result<Self, Error> {
        let empty = || Error::Refused(format!("{id} has no value yet: give it one, so that it can be changed"));
        let version = conjur.variable(id)?.version.ok_or_else(empty)?;
        let before = key(conjur, id, version.saturating_sub(1));
        if let Some(note) = conjur.http.kept(&before, 1) {
            return Ok(Self { version, key: before, note });
        }
        let pending = key(conjur, id, version);
        if conjur.http.kept(&pending, 1).is_none() {
            let token = conjur.token()?;
            // Before it is triggered: without a note, each call that waits would trigger another one.
            let kept = conjur.http.keep(&pending, token.borrow(), ROTATION, 0);
            let full =
                |why: String| Error::Refused(format!("too many passwords are being changed; retry shortly: {why}"));
            let note = kept.map_err(full)?;
            if let Err(error) = conjur.rotate(id) {
                conjur.http.forget(&pending, note.borrow());
                return Err(error);
            }
            let after = conjur.variable(id)?.version.ok_or_else(empty)?;
            if after > version {
                return Ok(Self { version: after, key: pending, note });
            }
        }
        let reason = format!("{id} is being changed: its rotator has not run yet");
        Err(Error::Retryable(Retry { reason, after_ms: Some(LOOK_AGAIN) }))
    }

    /// The new password is this call's: whoever comes next needs another one.
    fn take(&self, conjur: &mut Conjur<'_>) -> Result<(), Error> {
        if conjur.http.forget(&self.key, self.note.borrow()) {
            return Ok(());
        }
        let reason = "another lease has already taken the new password; retry".to_owned();
        Err(Error::Retryable(Retry { reason, after_ms: Some(LOOK_AGAIN) }))
    }

    /// It was not handed out.
    fn give_back(&self, conjur: &mut Conjur<'_>) {
        // Where there is no room any more, the next call has it changed again.
        let _ = conjur.http.keep(&self.key, self.note.borrow(), ROTATION, 0);
    }
}

/// Where the note stands that a change of this version was triggered.
fn key(conjur: &Conjur<'_>, id: &str, version: u64) -> String {
    http::key("rotation", &[&conjur.config.account, id, &version.to_string()])
}

/// The account stands. What can be done is to have its password changed, where the role says so;
/// whoever else has the same one loses it too. Without an id nothing was handed out.
pub(crate) fn revoke(conjur: &mut Conjur<'_>, account: &Account) -> Result<(), Error> {
    let Some(id) = account.external_id.as_deref().and_then(|id| id.strip_prefix(ROTATE)) else {
        return Ok(());
    };
    conjur.rotate(id)?;
    log::info("a lease has ended: its password's rotator was triggered", &[("variable", id)]);
    Ok(())
}

/// By the external id of a lease: Conjur knows variables, not accounts.
pub(crate) fn inspect(conjur: &mut Conjur<'_>, name: &str) -> Result<AccountState, Error> {
    let Some(id) = name.strip_prefix(KEEP).or_else(|| name.strip_prefix(ROTATE)) else {
        return Err(Error::Other("Conjur has variables and no accounts: use the lease's external id".into()));
    };
    let variable = conjur.variable(id)?;
    let version = variable.version.map(|version| ("version".to_owned(), version.to_string()));
    // Whether the account itself is there, Conjur does not know.
    Ok(AccountState { can_login: version.is_some(), expires_at: None, properties: version.into_iter().collect() })
}
