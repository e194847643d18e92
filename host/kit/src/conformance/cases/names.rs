//! Names: lengths, conflicts, and what is made to break out.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use jit_core::driver::Feature;
use jit_core::outcome::{Outcome, Refusal};

use crate::conformance::stand::{Stand, leave_out, shown};

/// What breaks out where somebody put texts together: SQL, DNs and filters, paths, headers, shells.
const HOSTILE: [&str; 18] = [
    "'; DROP TABLE items; --",
    "\"; DROP ROLE postgres; --",
    "`; DROP USER root; --",
    "x' OR '1'='1",
    "\\'; SELECT 1; --",
    "%",
    "_",
    "*",
    "*)(objectClass=*",
    "x,dc=example,dc=test",
    "x+cn=y",
    "\\2a",
    "../../sys/seal",
    "..%2f..%2fsys%2fseal",
    "x\r\nX-Vault-Token: y",
    "$(id)",
    "\u{202e}evil\u{0}",
    "é\u{1f600}",
];

/// How many accounts a listing has to bring at least, over pages where the driver has some.
const LISTED: usize = 12;

pub(super) async fn the_longest_name_works(stand: &Stand) -> Result<String> {
    let most = stand.driver.description().max_name_length;
    let made = stand.create_as(stand.account_for(&"w".repeat(most), 3_600)).await?;
    stand.must_log_in(&made).await?;
    stand.revoke(&made.account).await?;
    if !stand.has(Feature::StandingAccounts) {
        stand.must_be_gone(&made).await?;
    }
    Ok(format!("{} of {most} bytes", made.account.name.as_str().len()))
}

pub(super) async fn a_taken_name_is_a_conflict(stand: &Stand) -> Result<String> {
    if stand.has(Feature::ExternalAccounts) {
        return leave_out("the backend chooses the names");
    }
    let made = stand.create().await?;
    let (again, _) = stand.try_create(&stand.scope(), &stand.role, &made.account).await;
    ensure!(matches!(again, Outcome::Refused(Refusal::Conflict(_))), "the second creation is {}", shown(&again));
    stand.must_log_in(&made).await.context("after the conflict")?;
    stand.revoke(&made.account).await?;
    stand.must_be_gone(&made).await?;
    Ok(String::new())
}

pub(super) async fn hostile_names_reach_nothing(stand: &Stand) -> Result<String> {
    if !stand.has(Feature::Inspect) && !stand.has(Feature::ListAccounts) {
        return leave_out("the driver has neither inspect nor list-accounts");
    }
    let made = stand.create().await?;
    for name in HOSTILE {
        if stand.has(Feature::Inspect) {
            let outcome = stand.driver.inspect(&stand.scope(), &stand.target, name).await;
            stand.note(&outcome);
            ensure!(!matches!(outcome, Outcome::Done(_)), "inspect finds an account called {name:?}");
        }
        if stand.has(Feature::ListAccounts) && !stand.has(Feature::ExternalAccounts) {
            let outcome = stand.driver.list_accounts(&stand.scope(), &stand.target, name, None).await;
            stand.note(&outcome);
            if let Outcome::Done(page) = outcome {
                ensure!(page.names.is_empty(), "list-accounts finds {:?} for the prefix {name:?}", page.names);
            }
        }
    }
    stand.must_log_in(&made).await.context("after the hostile names")?;
    Ok(format!("{} names", HOSTILE.len()))
}

pub(super) async fn hostile_workloads_reach_nothing(stand: &Stand) -> Result<String> {
    // One after the other: a backend that hands out one account has room for no more.
    for workload in HOSTILE {
        let made =
            stand.create_as(stand.account_for(workload, 3_600)).await.with_context(|| format!("{workload:?}"))?;
        stand.must_log_in(&made).await.with_context(|| format!("{workload:?}"))?;
        stand.revoke(&made.account).await.with_context(|| format!("{workload:?}"))?;
    }
    Ok(format!("{} workloads", HOSTILE.len()))
}

pub(super) async fn listing_is_by_prefix(stand: &Stand) -> Result<String> {
    stand.need(Feature::ListAccounts, "list-accounts")?;
    let mut names = BTreeSet::new();
    for _ in 0..LISTED {
        names.insert(stand.listed_as(&stand.create().await?.account));
    }
    let listed = stand.list().await?;
    let distinct: BTreeSet<_> = listed.iter().cloned().collect();
    ensure!(distinct.len() == listed.len(), "a name is listed twice");
    ensure!(names.is_subset(&distinct), "{} accounts are missing", names.difference(&distinct).count());
    if !stand.has(Feature::ExternalAccounts) {
        let one = names.iter().next().context("no account")?;
        let outcome = stand.driver.list_accounts(&stand.scope(), &stand.target, one, None).await;
        let Outcome::Done(page) = outcome else { anyhow::bail!("list-accounts: {}", shown(&outcome)) };
        ensure!(page.names == [one.clone()], "the whole name as a prefix gives {:?}", page.names);
    }
    Ok(format!("{LISTED} accounts"))
}
