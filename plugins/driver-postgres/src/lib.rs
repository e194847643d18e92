//! Driver `postgres`: an account is a login role that is a member of the roles which the target's
//! role grants, with `VALID UNTIL` equal to the lease's expiry (BACKSTOP).
//!
//! In scope: PostgreSQL 14 and later, accounts by role membership. Not in scope: privileges on
//! single objects, which belong to the granted roles; backends that only speak PostgreSQL's
//! protocol (they lack roles, or `pg_shdepend`).
//!
//! `docs/drivers/postgres.md` has the least-privilege set-up of the broker's own role.

mod account;
mod config;
mod failure;
mod footprint;
mod handover;
mod place;
mod powers;
mod revoke;
mod statements;
mod validate;

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Error, Feature, Issued, Role, RotationStep, Secret, Sql,
    SqlDriver, Target,
};

pub use config::{RoleConfig, TargetConfig};

/// PostgreSQL's `NAMEDATALEN`, less the terminator.
const MAX_NAME_LENGTH: usize = 63;

/// The driver.
#[derive(Debug)]
pub struct Postgres;

impl SqlDriver for Postgres {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = statements::ALL;

    fn describe() -> Description {
        let mut description = Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            MAX_NAME_LENGTH as u32,
            &[Feature::Renew, Feature::Rotate, Feature::Backstop, Feature::Inspect, Feature::ListAccounts],
        );
        let servers = ("servers".to_owned(), "PostgreSQL 14 and later".to_owned());
        description.properties.push(servers);
        // The host reads it: this driver places a caller's verifier as it places the host's own. PostgreSQL sets no
        // password from the verifier of an empty one ("empty string is not a valid password, clearing password").
        let verifiers = "scram_sha_256 iterations:scram_iterations never-empty";
        let verifiers = ("verifiers".to_owned(), verifiers.to_owned());
        description.properties.push(verifiers);
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
        account::rotate(sql, &target.config, account, step, password)
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

jit_plugin::register_sql_driver!(Postgres);

#[cfg(test)]
mod tests;
