//! Driver `mysql`, for MySQL and MariaDB.
//!
//! A *dynamic* role makes an account for each lease, which has the roles of the server that it
//! names. A *rotating* role changes the password of one standing account, whose old password stays
//! valid for a while (MySQL's dual passwords; MariaDB has none).
//!
//! In scope: MySQL 8.0.14 and later, MariaDB 10.6 and later. Not in scope: privileges on single
//! objects, which belong to the granted roles; a backstop: these servers expire passwords by the
//! day at most, and whoever holds an expired one may set a new one.
//!
//! `docs/drivers/mysql.md` says how to set it up; `setup/` has the statements.

mod account;
mod config;
mod failure;
mod flavour;
mod place;
mod powers;
mod prepared;
mod revoke;
mod rotate;
mod sessions;
mod statements;
mod validate;

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Issued, Role, RotationStep, Secret, Sql,
    SqlDriver, Target,
};

pub use config::{RoleConfig, Rotating, TargetConfig};
pub use flavour::Flavour;

/// Longest user name of MySQL. MariaDB takes longer ones.
const MAX_NAME_LENGTH: usize = 32;

/// The driver.
#[derive(Debug)]
pub struct MySql;

impl SqlDriver for MySql {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = statements::ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Rotate, Feature::Overlap, Feature::Inspect, Feature::ListAccounts];
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let mut description = Description::new(name, version, MAX_NAME_LENGTH as u32, &features);
        for (name, value) in [
            // The host reads the statements by the rules of that dialect.
            ("dialect", "mysql"),
            ("servers", "MySQL 8.0.14 and later, MariaDB 10.6 and later"),
            ("overlap", "MySQL only"),
            // The host reads it. What MariaDB stores has no salt, so it is not taken from callers.
            ("verifiers", "caching_sha2 when:server=mysql"),
        ] {
            description.properties.push((name.to_owned(), value.to_owned()));
        }
        description
    }

    fn validate(sql: &mut dyn Sql, target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        validate::validate(sql, target, roles)
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        account::create(sql, &target.config, &role.config, account, password)
    }

    fn renew(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        account::renew(sql, account)
    }

    fn rotate(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        account: &Account,
        step: RotationStep,
        password: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        rotate::rotate(sql, &target.config, account, step, password)
    }

    fn revoke(sql: &mut dyn Sql, target: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        revoke::revoke(sql, &target.config, account)
    }

    fn inspect(sql: &mut dyn Sql, _: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        account::inspect(sql, name)
    }

    fn list_accounts(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        account::list(sql, prefix, cursor)
    }

    fn place(sql: &mut dyn Sql, _: &Target<TargetConfig>) -> Result<Vec<(String, String)>, Error> {
        place::place(sql)
    }
}

jit_plugin::register_sql_driver!(MySql);

#[cfg(test)]
mod tests;
