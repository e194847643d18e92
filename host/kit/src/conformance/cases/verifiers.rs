//! Accounts whose password the caller made.

use anyhow::{Context as _, Result, bail, ensure};
use jit_core::driver::PlacedVerifier;
use jit_core::lease::VerifierKind;
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::{AccountSecret, Verifier, generate_password, least_iterations, most_iterations};
use secrecy::SecretString;

use crate::conformance::stand::{Stand, leave_out, made, shown};

/// A kind of verifier, as it is tried.
struct Placed {
    kind: VerifierKind,
    iterations: u32,
    /// The driver says that its server lets nobody in with an empty password.
    never_empty: bool,
}

/// What the driver says that it places in this target.
fn placed(stand: &Stand) -> Result<Vec<Placed>> {
    let config = serde_json::from_str(&stand.target.config).context("the target's config")?;
    let placed = stand.driver.description().verifiers(&config).map_err(anyhow::Error::msg)?;
    if placed.is_empty() {
        return leave_out("the driver places no verifier in this target");
    }
    let asked = |kind, asked: Option<u32>| least_iterations(kind).max(asked.unwrap_or(0)).min(most_iterations(kind));
    let placed = placed.into_iter().map(|PlacedVerifier { kind, iterations, never_empty }| Placed {
        kind,
        iterations: asked(kind, iterations),
        never_empty,
    });
    Ok(placed.collect())
}

/// A password as a caller makes it, and its verifier. Neither may be told by anything.
fn of_a_caller(stand: &Stand, kind: VerifierKind, iterations: u32) -> Result<(SecretString, Verifier)> {
    let password = generate_password();
    let verifier = Verifier::of(kind, &password, iterations)?;
    stand.keep_secret(&password);
    stand.keep_secret(verifier.stored());
    Ok((password, verifier))
}

pub(super) async fn the_callers_password_logs_in(stand: &Stand) -> Result<String> {
    stand.login()?;
    let placed = placed(stand)?;
    for Placed { kind, iterations, never_empty } in &placed {
        let (password, verifier) = of_a_caller(stand, *kind, *iterations)?;
        let account = stand.account_for("conformance", 600);
        let secret = AccountSecret::Verifier(verifier);
        let outcome = stand.try_create_with(&stand.scope(), &stand.role, &account, secret).await;
        let Outcome::Done(issued) = outcome else { bail!("create with {kind}: {}", shown(&outcome)) };
        ensure!(issued.secret.is_none(), "the driver returned a secret for an account whose password the caller made");
        let made = made(account, issued, password);
        stand.session(&made).await?.close().await;
        ensure!(
            stand.can_log_in(&made.username, &generate_password()).await? == Some(false),
            "the account can log in with a password that nobody gave it"
        );
        if *never_empty {
            an_empty_password_lets_nobody_in(stand, *kind, *iterations).await?;
        }
    }
    Ok(placed.iter().map(|placed| placed.kind.as_str()).collect::<Vec<_>>().join(", "))
}

/// What `never-empty` promises: the host does not look whether a verifier is one of the empty password.
async fn an_empty_password_lets_nobody_in(stand: &Stand, kind: VerifierKind, iterations: u32) -> Result<()> {
    let verifier = Verifier::of_empty_password(kind, iterations).context("no verifier of an empty password")?;
    stand.keep_secret(verifier.stored());
    let account = stand.account_for("conformance", 600);
    let secret = AccountSecret::Verifier(verifier);
    let outcome = stand.try_create_with(&stand.scope(), &stand.role, &account, secret).await;
    let username = match outcome {
        Outcome::Done(issued) => issued.username.unwrap_or_else(|| account.name.to_string()),
        // A server that takes no such account lets nobody in either.
        Outcome::Refused(_) => return Ok(()),
        Outcome::Unknown(_) => bail!("create with the verifier of an empty password: {}", shown(&outcome)),
    };
    // A server may refuse an empty password in a way of its own.
    let lets_in = matches!(stand.can_log_in(&username, &SecretString::from("")).await, Ok(Some(true)));
    ensure!(
        !lets_in,
        "the driver says `never-empty` of {kind}, and an empty password logs in where the verifier is its"
    );
    Ok(())
}

pub(super) async fn another_kind_is_refused(stand: &Stand) -> Result<String> {
    let placed = placed(stand)?;
    let others = VerifierKind::ALL.into_iter().filter(|kind| placed.iter().all(|placed| placed.kind != *kind));
    for kind in others {
        let (_, verifier) = of_a_caller(stand, kind, least_iterations(kind))?;
        let account = stand.account_for("conformance", 600);
        let secret = AccountSecret::Verifier(verifier);
        let outcome = stand.try_create_with(&stand.scope(), &stand.role, &account, secret).await;
        let refused = matches!(&outcome, Outcome::Refused(Refusal::Verifier(_)));
        ensure!(refused, "create with {kind}: {}", shown(&outcome));
    }
    Ok(String::new())
}
