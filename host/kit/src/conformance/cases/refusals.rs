//! What must be said no to, and said rightly: a refusal is not a doubt, and nothing is left.

use anyhow::{Result, bail, ensure};
use jit_core::driver::AccountView;
use jit_core::outcome::{Outcome, Refusal};
use jit_runtime::DriverScope;
use secrecy::ExposeSecret as _;

use crate::conformance::stand::{Stand, leave_out, shown};

/// Shorter texts than that are in anything.
const SHORTEST: usize = 8;

pub(super) async fn the_fixture_is_valid(stand: &Stand) -> Result<String> {
    let outcome = stand.driver.validate(&stand.scope(), &stand.target, &stand.good_roles()).await;
    stand.note(&outcome);
    match outcome {
        Outcome::Done(()) => Ok(String::new()),
        other => bail!("validate: {}", shown(&other)),
    }
}

pub(super) async fn a_role_that_is_missing_is_refused(stand: &Stand) -> Result<String> {
    if stand.refused_roles.is_empty() {
        return leave_out("the fixture names no refused_roles");
    }
    let mut seen = Vec::new();
    for role in &stand.refused_roles {
        let outcome = stand.driver.validate(&stand.scope(), &stand.target, std::slice::from_ref(role)).await;
        stand.note(&outcome);
        ensure!(
            matches!(&outcome, Outcome::Refused(Refusal::Configuration(_) | Refusal::Target(_))),
            "validate of role {} is {}",
            role.name,
            shown(&outcome)
        );
        seen.push(shown(&outcome));
        let account = stand.account();
        let (outcome, _) = stand.try_create(&stand.scope(), role, &account).await;
        ensure!(matches!(outcome, Outcome::Refused(_)), "create in role {} is {}", role.name, shown(&outcome));
        stand.must_not_be_there(&account).await?;
    }
    Ok(seen.join("; "))
}

pub(super) async fn wrong_credentials_are_told(stand: &Stand) -> Result<String> {
    refused_and_nothing_left(stand, &stand.with_wrong_credentials()?).await
}

pub(super) async fn a_strange_authority_is_not_trusted(stand: &Stand) -> Result<String> {
    let seen = refused_and_nothing_left(stand, &stand.with_wrong_authority()?).await?;
    Ok(seen)
}

pub(super) async fn missing_permission_is_told(stand: &Stand) -> Result<String> {
    refused_and_nothing_left(stand, &stand.as_weak()?).await
}

async fn refused_and_nothing_left(stand: &Stand, scope: &DriverScope) -> Result<String> {
    let account: AccountView = stand.account();
    let (outcome, _) = stand.try_create(scope, &stand.role, &account).await;
    ensure!(matches!(outcome, Outcome::Refused(_)), "create is {}", shown(&outcome));
    stand.must_not_be_there(&account).await?;
    Ok(shown(&outcome))
}

pub(super) async fn nothing_told_a_secret(stand: &Stand) -> Result<String> {
    let (told, secrets) = stand.told_and_secret();
    if told.is_empty() {
        return leave_out("nothing was refused in this run");
    }
    for secret in &secrets {
        let secret = secret.expose_secret();
        let held = told.iter().find(|text| secret.len() >= SHORTEST && text.contains(secret));
        ensure!(held.is_none(), "an answer of the driver holds a password");
    }
    let canary = told.iter().find(|text| text.contains("not-the-credential-canary"));
    ensure!(canary.is_none(), "an answer of the driver holds the broker's credential");
    Ok(format!("{} answers, {} secrets", told.len(), secrets.len()))
}
