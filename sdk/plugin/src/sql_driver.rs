//! Drivers for backends that speak SQL.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::bindings::statements::exports::jit::plugin::statements::Guest;
use crate::driver::{
    Account, AccountPage, AccountState, BareDriver, Description, Issued, Role, RotationStep, Secret, Target,
};
use crate::error::Error;
use crate::sql::{HostSql, Sql};

/// A driver for a backend that speaks SQL. Its verbs are those of [`BareDriver`], with a connection.
pub trait SqlDriver {
    /// The target's `config` table. Give it `#[serde(deny_unknown_fields)]`.
    type Target: DeserializeOwned;
    /// A role's table. Give it `#[serde(deny_unknown_fields)]`.
    type Role: DeserializeOwned;

    /// Every template that the driver will ever run: the list of [`crate::statements!`]. The host
    /// runs no other.
    const STATEMENTS: &'static [&'static str];

    /// See [`BareDriver::describe`].
    fn describe() -> Description;

    /// See [`BareDriver::validate`]; with a connection it can look whether the roles exist.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with what to mend.
    fn validate(sql: &mut dyn Sql, target: &Target<Self::Target>, roles: &[Role<Self::Role>]) -> Result<(), Error>;

    /// See [`BareDriver::create`].
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name exists.
    fn create(
        sql: &mut dyn Sql,
        target: &Target<Self::Target>,
        role: &Role<Self::Role>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error>;

    /// See [`BareDriver::renew`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the account is not there.
    fn renew(
        sql: &mut dyn Sql,
        target: &Target<Self::Target>,
        role: &Role<Self::Role>,
        account: &Account,
    ) -> Result<u64, Error>;

    /// See [`BareDriver::rotate`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when the account is not there.
    fn rotate(
        sql: &mut dyn Sql,
        target: &Target<Self::Target>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        let _ = (sql, target, account, step, password);
        Err(Error::Other("this driver does not rotate".into()))
    }

    /// See [`BareDriver::revoke`].
    ///
    /// # Errors
    /// Any but [`Error::NotFound`], which the host takes for success.
    fn revoke(sql: &mut dyn Sql, target: &Target<Self::Target>, account: &Account) -> Result<(), Error>;

    /// See [`BareDriver::inspect`].
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there.
    fn inspect(sql: &mut dyn Sql, target: &Target<Self::Target>, name: &str) -> Result<AccountState, Error>;

    /// See [`BareDriver::list_accounts`].
    ///
    /// # Errors
    /// When the backend does not answer.
    fn list_accounts(
        sql: &mut dyn Sql,
        target: &Target<Self::Target>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error>;
}

/// What [`crate::register_sql_driver!`] exports: the driver on the host's connection.
#[doc(hidden)]
pub struct OnHost<D>(PhantomData<D>);

impl<D: SqlDriver> Guest for OnHost<D> {
    fn templates() -> Vec<String> {
        crate::panic::install();
        D::STATEMENTS.iter().map(|text| (*text).to_owned()).collect()
    }
}

impl<D: SqlDriver> BareDriver for OnHost<D> {
    type Target = D::Target;
    type Role = D::Role;

    fn describe() -> Description {
        D::describe()
    }

    fn validate(target: &Target<D::Target>, roles: &[Role<D::Role>]) -> Result<(), Error> {
        D::validate(&mut HostSql::default(), target, roles)
    }

    fn create(
        target: &Target<D::Target>,
        role: &Role<D::Role>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        D::create(&mut HostSql::default(), target, role, account, password)
    }

    fn renew(target: &Target<D::Target>, role: &Role<D::Role>, account: &Account) -> Result<u64, Error> {
        D::renew(&mut HostSql::default(), target, role, account)
    }

    fn rotate(
        target: &Target<D::Target>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        D::rotate(&mut HostSql::default(), target, account, step, password)
    }

    fn revoke(target: &Target<D::Target>, account: &Account) -> Result<(), Error> {
        D::revoke(&mut HostSql::default(), target, account)
    }

    fn inspect(target: &Target<D::Target>, name: &str) -> Result<AccountState, Error> {
        D::inspect(&mut HostSql::default(), target, name)
    }

    fn list_accounts(target: &Target<D::Target>, prefix: &str, cursor: Option<&str>) -> Result<AccountPage, Error> {
        D::list_accounts(&mut HostSql::default(), target, prefix, cursor)
    }
}
