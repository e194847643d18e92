//! Changing a password.

use anyhow::{Result, ensure};
use jit_core::driver::{Feature, RotationStep};
use jit_core::secret::generate_password;

use crate::conformance::stand::{Made, Stand};

pub(super) async fn a_new_password_replaces_the_old(stand: &Stand) -> Result<String> {
    stand.need(Feature::Rotate, "rotate")?;
    stand.login()?;
    let made = stand.create().await?;
    let next = generate_password();
    stand.rotate(&made, RotationStep::Stage, Some(&next)).await?;
    ensure!(stand.can_log_in(&made.username, &next).await? == Some(true), "the new password does not work");
    let old_works = stand.can_log_in(&made.username, &made.password).await? == Some(true);
    let overlap = stand.has(Feature::Overlap);
    ensure!(old_works == overlap, "after staging, the old password works: {old_works}; overlap: {overlap}");
    stand.rotate(&made, RotationStep::Commit, Some(&next)).await?;
    stand.rotate(&made, RotationStep::Discard, None).await?;
    only_the_new_works(stand, &made, &next).await?;
    Ok(if overlap { "with overlap" } else { "at once" }.to_owned())
}

pub(super) async fn each_step_can_be_repeated(stand: &Stand) -> Result<String> {
    stand.need(Feature::Rotate, "rotate")?;
    stand.login()?;
    let made = stand.create().await?;
    let next = generate_password();
    for _ in 0..2 {
        stand.rotate(&made, RotationStep::Stage, Some(&next)).await?;
    }
    ensure!(stand.can_log_in(&made.username, &next).await? == Some(true), "the new password does not work");
    if stand.has(Feature::Overlap) {
        // What callers hold must not be lost by doing a step again after its answer was.
        let old_works = stand.can_log_in(&made.username, &made.password).await? == Some(true);
        ensure!(old_works, "staged twice, the old password is lost before it was discarded");
    }
    for _ in 0..2 {
        stand.rotate(&made, RotationStep::Commit, Some(&next)).await?;
    }
    for _ in 0..2 {
        stand.rotate(&made, RotationStep::Discard, None).await?;
    }
    only_the_new_works(stand, &made, &next).await?;
    Ok(String::new())
}

async fn only_the_new_works(stand: &Stand, made: &Made, next: &secrecy::SecretString) -> Result<()> {
    ensure!(stand.can_log_in(&made.username, next).await? == Some(true), "the new password does not work in the end");
    let old = stand.can_log_in(&made.username, &made.password).await?;
    ensure!(old == Some(false), "the old password still works in the end");
    Ok(())
}
