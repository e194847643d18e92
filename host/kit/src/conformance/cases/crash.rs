//! Calls that are cut off: at each answer of the backend in turn, that answer is lost and the
//! connection with it. What was asked had reached the backend. It is what a crash of the broker
//! between two steps leaves behind, too.

use anyhow::{Context as _, Result, ensure};
use jit_core::counted::counted;
use jit_core::driver::{AccountView, Feature, RotationStep};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;

use crate::conformance::stand::{Stand, leave_out, made, shown};

/// Answers of one call at most. A call that brings more is cut off at the first ones only.
const MOST_ANSWERS: u32 = 60;

/// Plays one call with its n-th answer lost, for each n until the call has fewer answers.
macro_rules! at_each_answer {
    ($stand:ident, |$after:ident| $play:block) => {{
        let gate = $stand.gate()?;
        let mut cuts = 0_u64;
        for $after in 0..MOST_ANSWERS {
            $stand.warm().await;
            gate.lose_answer($after);
            let played: Result<bool> = async { $play }.await;
            let lost = played.with_context(|| format!("with answer {} lost", $after + 1))?;
            if !lost {
                break;
            }
            cuts += 1;
        }
        if cuts == 0 && $stand.has(Feature::StandingAccounts) {
            return leave_out("this call asks the backend nothing: the account stands");
        }
        ensure!(cuts > 0, "no answer was lost: the call does not reach the backend through the gate");
        Ok(format!("cut off at {}", counted(cuts, "place", "places")))
    }};
}

pub(super) async fn create_can_be_cut_off_anywhere(stand: &Stand) -> Result<String> {
    let gate = stand.gate()?;
    let before = if stand.has(Feature::ExternalAccounts) && stand.has(Feature::ListAccounts) {
        stand.list().await?
    } else {
        Vec::new()
    };
    at_each_answer!(stand, |after| {
        let account = stand.account();
        let (outcome, password) = stand.try_create(&stand.scope(), &stand.role, &account).await;
        let lost = gate.lost_one();
        match outcome {
            Outcome::Done(issued) => {
                let made = made(account, issued, password);
                stand.must_log_in(&made).await?;
                stand.revoke_in_the_end(&made.account).await?;
                if !stand.has(Feature::StandingAccounts) {
                    stand.must_be_gone(&made).await?;
                }
            }
            Outcome::Unknown(_) | Outcome::Refused(Refusal::Unavailable { .. } | Refusal::Target(_)) => {
                let refused = matches!(outcome, Outcome::Refused(_));
                if stand.has(Feature::ExternalAccounts) {
                    remove_what_is_new(stand, &before, refused).await?;
                } else {
                    if refused {
                        stand.must_not_be_there(&account).await.context("refused, but made")?;
                    }
                    stand.revoke_in_the_end(&account).await?;
                    stand.must_not_be_there(&account).await?;
                }
            }
            other => anyhow::bail!("create is {}", shown(&other)),
        }
        Ok(lost)
    })
}

/// What the backend made under a name that nobody learned: its listing has it.
async fn remove_what_is_new(stand: &Stand, before: &[String], refused: bool) -> Result<()> {
    if !stand.has(Feature::ListAccounts) {
        return Ok(());
    }
    let new: Vec<String> = stand.list().await?.into_iter().filter(|id| !before.contains(id)).collect();
    ensure!(!refused || new.is_empty(), "refused, but made: {new:?}");
    for id in new {
        let account = AccountView { external_id: Some(id), ..stand.account() };
        stand.revoke_in_the_end(&account).await?;
        stand.must_not_be_there(&account).await?;
    }
    Ok(())
}

pub(super) async fn revoke_can_be_cut_off_anywhere(stand: &Stand) -> Result<String> {
    let gate = stand.gate()?;
    at_each_answer!(stand, |after| {
        let _ = gate.lost_one();
        let made = stand.create().await?;
        gate.lose_answer(after);
        let outcome = stand.try_revoke(&stand.scope(), &made.account).await;
        let lost = gate.lost_one();
        ensure!(
            matches!(&outcome, Outcome::Done(()) | Outcome::Unknown(_) | Outcome::Refused(Refusal::Unavailable { .. })),
            "revoke is {}",
            shown(&outcome)
        );
        stand.revoke_in_the_end(&made.account).await?;
        if !stand.has(Feature::StandingAccounts) {
            stand.must_be_gone(&made).await?;
        }
        Ok(lost)
    })
}

pub(super) async fn renew_can_be_cut_off_anywhere(stand: &Stand) -> Result<String> {
    stand.need(Feature::Renew, "renew")?;
    let gate = stand.gate()?;
    let made = stand.create_as(stand.account_for("conformance", 1_200)).await?;
    let later = AccountView { expires_at: made.account.expires_at + 600, ..made.account.clone() };
    at_each_answer!(stand, |after| {
        let outcome = stand.driver.renew(&stand.scope(), &stand.target, &stand.role, &later).await;
        stand.note(&outcome);
        let lost = gate.lost_one();
        ensure!(
            !matches!(&outcome, Outcome::Refused(Refusal::NotFound | Refusal::Conflict(_) | Refusal::Plugin(_))),
            "renew is {}",
            shown(&outcome)
        );
        stand.must_log_in(&made).await?;
        let again = stand.driver.renew(&stand.scope(), &stand.target, &stand.role, &later).await;
        ensure!(matches!(again, Outcome::Done(_)), "renewed again it is {}", shown(&again));
        Ok(lost)
    })
}

pub(super) async fn rotate_can_be_cut_off_anywhere(stand: &Stand) -> Result<String> {
    stand.need(Feature::Rotate, "rotate")?;
    stand.login()?;
    let gate = stand.gate()?;
    if !stand.many_accounts {
        return leave_out("the backend makes one account only");
    }
    at_each_answer!(stand, |after| {
        let _ = gate.lost_one();
        let made = stand.create().await?;
        let next = generate_password();
        gate.lose_answer(after);
        let first = stand.rotate(&made, RotationStep::Stage, Some(&next)).await;
        let lost = gate.lost_one();
        if first.is_err() {
            stand.rotate(&made, RotationStep::Stage, Some(&next)).await.context("staged again")?;
        }
        ensure!(stand.can_log_in(&made.username, &next).await? == Some(true), "the new password does not work");
        if stand.has(Feature::Overlap) {
            let old = stand.can_log_in(&made.username, &made.password).await?;
            ensure!(old == Some(true), "the old password was lost before it was discarded");
        }
        stand.rotate(&made, RotationStep::Discard, None).await?;
        stand.revoke(&made.account).await?;
        Ok(lost)
    })
}
