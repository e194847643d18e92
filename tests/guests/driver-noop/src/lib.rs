//! Fixture: succeeds at everything at once and keeps nothing, so that what is measured is the
//! broker.

use jit_plugin::{
    Account, AccountPage, AccountState, BareDriver, Description, Error, Feature, Issued, Role, RotationStep, Secret,
    Target,
};
use serde::de::IgnoredAny;

/// The driver. It takes any configuration.
#[derive(Debug)]
pub struct Noop;

impl BareDriver for Noop {
    type Target = IgnoredAny;
    type Role = IgnoredAny;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Rotate, Feature::Inspect, Feature::ListAccounts];
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Description::new(name, version, 63, &features)
    }

    fn create(_: &Target<IgnoredAny>, _: &Role<IgnoredAny>, _: &Account, _: Secret<'_>) -> Result<Issued, Error> {
        Ok(Issued::default())
    }

    fn renew(_: &Target<IgnoredAny>, _: &Role<IgnoredAny>, account: &Account) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn rotate(_: &Target<IgnoredAny>, _: &Account, _: RotationStep, _: Option<Secret<'_>>) -> Result<(), Error> {
        Ok(())
    }

    fn revoke(_: &Target<IgnoredAny>, _: &Account) -> Result<(), Error> {
        Ok(())
    }

    fn inspect(_: &Target<IgnoredAny>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(_: &Target<IgnoredAny>, _: &str, _: Option<&str>) -> Result<AccountPage, Error> {
        Ok(AccountPage { names: Vec::new(), next: None })
    }
}

jit_plugin::register_bare_driver!(Noop);
