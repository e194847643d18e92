//! Keeping the broker's token alive: every lease ends with the token that made it.

use jit_plugin::{Error, Target, log};
use serde_json::{Value, json};

use crate::client::{Call, Vault};
use crate::config::{AuthMethod, TargetConfig};
use crate::failure;

/// The longest wait between two looks, in seconds.
const DAY: u64 = 86_400;

/// Renews the token and says when to come again. A new login is the last way out: with the old
/// token end the leases that it made.
pub(crate) fn maintain(vault: &mut Vault<'_>, target: &Target<TargetConfig>) -> Result<u64, Error> {
    let logs_in = target.config.auth.method != AuthMethod::Token;
    if logs_in {
        match vault.kept() {
            Some(token) => vault.work_with(token),
            None => return Ok(pace(vault.log_in(0)?.valid_for)),
        }
    }
    let fields = [("target", target.name.as_str())];
    let Some(state) = vault.state_of_token()? else {
        if !logs_in {
            let secret = &target.config.auth.secret;
            return Err(Error::Refused(format!("Vault does not take the token in the secret `{secret}`")));
        }
        log::warn("the token is gone, and with it the leases that it made: logging in anew", &fields);
        return Ok(pace(vault.replace_gone()?.valid_for));
    };
    if state.full == 0 {
        // It never ends.
        return Ok(DAY);
    }
    let renewed = if state.is_renewable { renew_self(vault)? } else { None };
    let left = renewed.unwrap_or(state.left);
    if logs_in {
        vault.keep_for(left);
    }
    // A renewal that gives less than half of the time has met the token's longest life. New leases
    // get a token that lives; the old one's go on until it ends.
    if left < state.full / 2 {
        let seconds = left.to_string();
        let fields = [fields[0], ("seconds_left", seconds.as_str())];
        if logs_in {
            log::warn("the token cannot be prolonged: logging in anew; older leases end with the old token", &fields);
            return Ok(pace(vault.log_in(u64::MAX)?.valid_for));
        }
        log::warn("the token cannot be prolonged, and all leases end with it: put a new one into its file", &fields);
    }
    Ok(pace(left))
}

/// Gives the seconds that it has now; none when Vault does not renew it.
fn renew_self(vault: &mut Vault<'_>) -> Result<Option<u64>, Error> {
    // The answer repeats the token.
    let call = Call::post(["auth", "token", "renew-self"], json!({})).withholding("/auth/client_token");
    let response = vault.send(&call)?;
    match response.status {
        200 => Ok(response.json()?.pointer("/auth/lease_duration").and_then(Value::as_u64).filter(|left| *left > 0)),
        400..=404 => {
            let words = failure::words(&response);
            log::warn("Vault does not renew the broker's token", &[("reason", words.as_str())]);
            Ok(None)
        }
        _ => Err(failure::of(&call, &response)),
    }
}

/// Two renewals may fail before the token runs out.
fn pace(left: u64) -> u64 {
    (left / 3).clamp(1, DAY)
}
