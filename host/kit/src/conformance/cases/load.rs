//! Many at once.

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use jit_core::driver::Feature;

use crate::conformance::stand::{Stand, leave_out};

const AT_ONCE: usize = 16;

pub(super) async fn accounts_are_made_at_once(stand: &Stand) -> Result<String> {
    if !stand.many_accounts {
        return leave_out("the backend makes one account only");
    }
    let made = try_join_all((0..AT_ONCE).map(|_| stand.create())).await?;
    for one in &made {
        stand.must_log_in(one).await?;
    }
    try_join_all(made.iter().map(|one| stand.revoke(&one.account))).await?;
    if !stand.has(Feature::StandingAccounts) {
        for one in &made {
            stand.must_be_gone(one).await?;
        }
    }
    Ok(format!("{AT_ONCE} accounts"))
}

pub(super) async fn creation_and_removal_do_not_disturb_each_other(stand: &Stand) -> Result<String> {
    if !stand.many_accounts {
        return leave_out("the backend makes one account only");
    }
    let old = try_join_all((0..AT_ONCE / 2).map(|_| stand.create())).await?;
    let removing = try_join_all(old.iter().map(|one| stand.revoke(&one.account)));
    let making = try_join_all((0..AT_ONCE / 2).map(|_| stand.create()));
    let (removed, made) = tokio::join!(removing, making);
    removed.context("removing")?;
    for one in made.context("making")? {
        stand.must_log_in(&one).await?;
        stand.revoke(&one.account).await?;
    }
    Ok(format!("{AT_ONCE} accounts"))
}
