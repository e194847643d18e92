//! A backend that is away, or silent, and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jit_core::driver::{AccountView, Feature};
use jit_core::outcome::{Outcome, Refusal};

use crate::conformance::stand::{Stand, made, shown};

/// The deadline of a call to a backend that says nothing.
const SILENCE: Duration = Duration::from_secs(3);
/// Connections from before that may be tried once more, at most.
const STALE: usize = 12;
/// Calls until a backend that is back has to serve again, and the wait between two.
const ATTEMPTS: usize = 40;
const BETWEEN: Duration = Duration::from_millis(250);

pub(super) async fn a_backend_that_is_away_is_told(stand: &Stand) -> Result<String> {
    let gate = stand.gate()?;
    let before = stand.create().await?;
    gate.close();
    // The first calls may be on connections from before, whose end is noticed only now.
    let mut tried = Vec::new();
    let said = loop {
        let account = stand.account();
        let (outcome, _) = stand.try_create(&stand.scope(), &stand.role, &account).await;
        tried.push(account);
        match &outcome {
            Outcome::Refused(Refusal::Unavailable { .. }) => break shown(&outcome),
            Outcome::Unknown(_) if tried.len() < STALE => {}
            other => bail!("while the backend is away, create is {}", shown(other)),
        }
    };
    let revoked = stand.try_revoke(&stand.removal(), &before.account).await;
    ensure!(
        matches!(revoked, Outcome::Refused(Refusal::Unavailable { .. }) | Outcome::Unknown(_))
            || stand.has(Feature::StandingAccounts),
        "while the backend is away, revoke is {}",
        shown(&revoked)
    );
    gate.open();
    stand.revoke_in_the_end(&before.account).await.context("after the backend came back")?;
    if !stand.has(Feature::StandingAccounts) {
        stand.must_be_gone(&before).await?;
    }
    for account in &tried {
        stand.revoke_in_the_end(account).await?;
        stand.must_not_be_there(account).await?;
    }
    serves_again(stand).await?;
    Ok(said)
}

pub(super) async fn a_silent_backend_ends_with_the_deadline(stand: &Stand) -> Result<String> {
    let gate = stand.gate()?;
    let ids_before = ids(stand).await?;
    stand.warm().await;
    gate.stall();
    let account = stand.account();
    let (outcome, _) = stand.try_create(&stand.scope_within(SILENCE), &stand.role, &account).await;
    ensure!(
        matches!(outcome, Outcome::Unknown(_) | Outcome::Refused(Refusal::Unavailable { .. })),
        "with a silent backend, create is {}",
        shown(&outcome)
    );
    gate.open();
    stand.revoke_in_the_end(&account).await?;
    stand.must_not_be_there(&account).await?;
    // What the backend made for a call that nobody heard of: only its listing knows.
    for id in ids(stand).await?.into_iter().filter(|id| !ids_before.contains(id)) {
        stand.revoke_in_the_end(&AccountView { external_id: Some(id), ..stand.account() }).await?;
    }
    serves_again(stand).await?;
    Ok(shown(&outcome))
}

async fn ids(stand: &Stand) -> Result<Vec<String>> {
    if stand.has(Feature::ExternalAccounts) && stand.has(Feature::ListAccounts) {
        return stand.list().await;
    }
    Ok(Vec::new())
}

/// Without a new driver, a new connection or a restart.
async fn serves_again(stand: &Stand) -> Result<()> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let account = stand.account();
        let (outcome, password) = stand.try_create(&stand.scope(), &stand.role, &account).await;
        if let Outcome::Done(issued) = outcome {
            let made = made(account, issued, password);
            stand.must_log_in(&made).await?;
            return stand.revoke(&made.account).await;
        }
        last = shown(&outcome);
        stand.revoke_in_the_end(&account).await?;
        tokio::time::sleep(BETWEEN).await;
    }
    bail!("the driver does not serve again after the backend came back: {last}")
}
