//! An account's life without faults.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jit_core::driver::{AccountView, Feature};
use jit_core::outcome::Outcome;

use crate::conformance::stand::{Stand, leave_out, shown, skip};

/// How much later than asked a backend may say that an account ends: some count in days.
const COARSEST: u64 = 86_400;
/// How long after its expiry an account may still log in: backends look every so often.
const EXPIRY_GRACE: Duration = Duration::from_secs(60);

pub(super) async fn an_account_logs_in(stand: &Stand) -> Result<String> {
    stand.login()?;
    let made = stand.create().await?;
    stand.session(&made).await?.close().await;
    let other = jit_core::secret::generate_password();
    ensure!(
        stand.can_log_in(&made.username, &other).await? == Some(false),
        "the account can log in with a password that nobody gave it"
    );
    let nothing = secrecy::SecretString::from("");
    // A server that does not even take an empty password says no in its own way.
    ensure!(
        !matches!(stand.can_log_in(&made.username, &nothing).await, Ok(Some(true))),
        "the account can log in without a password"
    );
    Ok(String::new())
}

pub(super) async fn it_may_do_what_its_role_may(stand: &Stand) -> Result<String> {
    let login = stand.login()?;
    if !login.knows_allowed() && !login.knows_refused() {
        return skip("[conformance.login] says neither what is allowed nor what is refused");
    }
    let made = stand.create().await?;
    let mut session = stand.session(&made).await?;
    let checked = login.check_privileges(&mut session).await;
    session.close().await;
    checked?;
    Ok(match (login.knows_allowed(), login.knows_refused()) {
        (true, true) => "what is allowed and what is refused",
        (true, false) => "what is allowed; what is to be refused was not tried",
        _ => "what is refused; what is to be allowed was not tried",
    }
    .to_owned())
}

pub(super) async fn it_is_seen(stand: &Stand) -> Result<String> {
    if !stand.has(Feature::Inspect) && !stand.has(Feature::ListAccounts) {
        return leave_out("the driver has neither inspect nor list-accounts");
    }
    let made = stand.create().await?;
    if stand.has(Feature::Inspect) {
        let state = stand.inspect(&stand.inspected_as(&made)).await?.context("inspect does not find the account")?;
        ensure!(state.can_login, "inspect says that the account cannot log in");
        if stand.has(Feature::Backstop) {
            let expiry = state.expires_at.context("a driver with backstop shows no expiry")?;
            let asked = made.account.expires_at;
            ensure!(
                expiry <= asked + COARSEST && (expiry + COARSEST >= asked || stand.has(Feature::ExternalAccounts)),
                "the backend's expiry is {expiry}, asked for was {asked}"
            );
        }
    }
    if stand.has(Feature::ListAccounts) {
        let listed = stand.listed_as(&made.account);
        let count = stand.list().await?.iter().filter(|name| **name == listed).count();
        ensure!(count == 1, "list-accounts has the account {count} times");
    }
    Ok(String::new())
}

pub(super) async fn it_is_renewed(stand: &Stand) -> Result<String> {
    stand.need(Feature::Renew, "renew")?;
    let made = stand.create_as(stand.account_for("conformance", 600)).await?;
    let asked = made.account.expires_at + 600;
    let account = AccountView { expires_at: asked, ..made.account.clone() };
    let outcome = stand.driver.renew(&stand.scope(), &stand.target, &stand.role, &account).await;
    stand.note(&outcome);
    let Outcome::Done(expiry) = outcome else {
        anyhow::bail!("renew: {}", shown(&outcome));
    };
    ensure!(expiry <= asked + COARSEST, "renew gives {expiry}, asked for was {asked}");
    if stand.has(Feature::Inspect) && stand.has(Feature::Backstop) && !stand.has(Feature::ExternalAccounts) {
        let state = stand.inspect(&stand.inspected_as(&made)).await?.context("the account is not there any more")?;
        let there = state.expires_at.context("the account has no expiry any more")?;
        ensure!(there.abs_diff(expiry) <= COARSEST, "renew gives {expiry}, and the backend has {there}");
        ensure!(there > made.account.expires_at, "the backend's expiry did not move");
    }
    stand.must_log_in(&made).await?;
    stand.revoke(&made.account).await?;
    let gone = stand.driver.renew(&stand.scope(), &stand.target, &stand.role, &account).await;
    ensure!(
        stand.has(Feature::StandingAccounts) || !matches!(gone, Outcome::Done(_)),
        "renew of an account that is gone is done"
    );
    Ok(format!("to {expiry}"))
}

pub(super) async fn it_ends(stand: &Stand) -> Result<String> {
    let made = stand.create().await?;
    stand.must_log_in(&made).await?;
    stand.revoke(&made.account).await?;
    if stand.has(Feature::StandingAccounts) {
        return Ok("a standing account: revocation takes nothing back, as the driver says".to_owned());
    }
    stand.must_be_gone(&made).await?;
    Ok(String::new())
}

pub(super) async fn a_second_revocation_succeeds(stand: &Stand) -> Result<String> {
    let made = stand.create().await?;
    stand.revoke(&made.account).await?;
    stand.revoke(&made.account).await.context("the second time")?;
    stand.revoke(&stand.account()).await.context("an account that never was")?;
    Ok(String::new())
}

pub(super) async fn a_session_ends_with_it(stand: &Stand) -> Result<String> {
    if !stand.login()?.keeps_sessions() {
        return skip("this kind of login keeps no session");
    }
    if stand.has(Feature::StandingAccounts) {
        return leave_out("a standing account stays");
    }
    if stand.says_that_sessions_stay() {
        return leave_out("the driver says that sessions stay open after a revocation");
    }
    let made = stand.create().await?;
    let mut session = stand.session(&made).await?;
    ensure!(session.is_alive().await, "the session does not serve");
    stand.revoke(&made.account).await?;
    ensure!(!session.is_alive().await, "the session still serves after the revocation");
    Ok(String::new())
}

pub(super) async fn it_expires_by_itself(stand: &Stand) -> Result<String> {
    stand.need(Feature::Backstop, "backstop")?;
    stand.login()?;
    let made = stand.create_as(stand.account_for("conformance", 4)).await?;
    let until = Instant::now() + Duration::from_secs(4) + EXPIRY_GRACE;
    while stand.can_log_in(&made.username, &made.password).await? == Some(true) {
        ensure!(Instant::now() < until, "the account can log in {} s after its expiry", EXPIRY_GRACE.as_secs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(String::new())
}

pub(super) async fn a_name_alone_is_enough(stand: &Stand) -> Result<String> {
    if stand.has(Feature::ExternalAccounts) {
        return leave_out("the backend chooses the names: its own id is what removes");
    }
    let made = stand.create().await?;
    let ghost = AccountView {
        workload: String::new(),
        expires_at: 0,
        external_id: None,
        ..AccountView { ..made.account.clone() }
    };
    stand.revoke(&ghost).await?;
    stand.must_be_gone(&made).await?;
    Ok(String::new())
}
