//! `plugin test --clean`: removes what earlier runs of the kit left behind. A broken driver leaves accounts; once it is
//! mended, it removes them itself.
//!
//! Only accounts that runs of this fixture made are touched: their names begin with the kit's prefix and carry its mark,
//! which is made of the fixture's target and server.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use aws_lc_rs::digest;
use jit_core::account::{AccountName, Mark};
use jit_core::driver::Feature;
use jit_core::outcome::Outcome;
use jit_runtime::CompileWatch;

use super::fixture::Fixture;
use super::stand::{Stand, shown};
use super::{Progress, Scratch};

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The names of the accounts that were removed.
    pub removed: Vec<String>,
    /// Those that were not, and why.
    pub left: Vec<(String, String)>,
}

/// The mark of a fixture's accounts: the same in each run, and another for each server and target. It keeps runs apart
/// and is no secret.
pub(super) fn mark_of(fixture: &Fixture) -> Mark {
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in ["conformance kit", &fixture.target, fixture.url().unwrap_or_default()] {
        digest.update(part.as_bytes());
        digest.update(&[0]);
    }
    // A digest is as long as a key.
    Mark::from_bytes(digest.finish().as_ref()).unwrap_or_else(Mark::generate)
}

/// Removes the accounts that earlier runs with this fixture left. `progress` hears of each.
///
/// # Errors
/// When the component, the fixture or the backend is not fit, or the driver cannot list accounts. An account that stays
/// is no error: it is in the result.
pub async fn clean(
    component: &Path,
    fixture: &Path,
    progress: &dyn Progress,
    watch: Arc<dyn CompileWatch>,
) -> Result<Cleaned> {
    let fixture = Fixture::load(fixture)?;
    let scratch = Scratch::new()?;
    let stand = Stand::set_up(component, &fixture, &scratch.0, watch).await?;
    stand.must_reach_the_backend().await?;
    ensure!(
        stand.has(Feature::ListAccounts) && !stand.has(Feature::ExternalAccounts),
        "the driver does not list accounts by their names, so nobody can tell which ones the kit made"
    );
    let names: Vec<String> = stand.list().await?.into_iter().filter(|name| stand.made(name)).collect();
    let mut cleaned = Cleaned::default();
    for (place, name) in names.iter().enumerate() {
        progress.begins(place + 1, names.len(), name);
        let account = stand.known_by_name(AccountName::from_backend(name));
        match stand.try_revoke(&stand.removal(), &account).await {
            Outcome::Done(()) => cleaned.removed.push(name.clone()),
            other => cleaned.left.push((name.clone(), shown(&other))),
        }
    }
    // A driver's word for it is not enough here: it was broken before.
    let listed = stand.list().await?;
    let (stayed, removed): (Vec<String>, Vec<String>) =
        cleaned.removed.into_iter().partition(|name| listed.contains(name));
    cleaned.removed = removed;
    let why = "the driver says that it removed it, and still lists it";
    cleaned.left.extend(stayed.into_iter().map(|name| (name, why.to_owned())));
    Ok(cleaned)
}
