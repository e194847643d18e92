//! The driver my-sql-driver: accounts in PostgreSQL, members of one role each.
//!
//! A place to begin from. It keeps the contract on the database that `setup.sql` makes: `plugin test` with
//! `fixture.toml` shows it. What it leaves out (objects that an account owns, rights that are granted to the account
//! itself) is in the drivers that come with the broker.

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Feature, Issued, Param, Role, Secret, Sql,
    SqlDriver, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// Every statement that this driver can ever run; the host quotes the parameters.
    pub const ALL;

    /// name, password, expiry, group
    CREATE = "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} IN ROLE {}";
    /// name, expiry
    RENEW = "ALTER ROLE {} VALID UNTIL {}";
    /// name
    LOCK = "ALTER ROLE {} NOLOGIN";
    /// name
    END_SESSIONS = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = {}";
    /// name
    DROP = "DROP ROLE {}";
    /// name
    INSPECT = "SELECT rolcanlogin::text, extract(epoch FROM rolvaliduntil)::bigint::text FROM pg_roles WHERE rolname = {}";
    /// group
    KNOWN = "SELECT rolname FROM pg_roles WHERE rolname = {}";
    /// prefix, the last name of the page before
    LIST = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, {}) AND rolname > {} ORDER BY rolname";
}

/// SQLSTATE: an object of that name exists.
const DUPLICATE: &str = "42710";
/// SQLSTATE: there is no such object.
const UNDEFINED: &str = "42704";
/// SQLSTATE: somebody else holds the row, longer than the host waits.
const LOCKED: &str = "55P03";
/// Names on a page.
const PAGE: u32 = 500;

/// `[targets.T.config]`: nothing to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {}

/// `[targets.T.roles.R]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleConfig {
    /// The role that accounts become members of.
    group: String,
}

/// The driver.
#[derive(Debug)]
pub struct MySqlDriver;

impl SqlDriver for MySqlDriver {
    type Target = TargetConfig;
    type Role = RoleConfig;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Backstop, Feature::Inspect, Feature::ListAccounts];
        Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 63, &features)
    }

    fn validate(sql: &mut dyn Sql, _: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) -> Result<(), Error> {
        for role in roles {
            let group = &role.config.group;
            let known = sql.query(None, &KNOWN.with([Param::Literal(group)]), 1).map_err(|error| error.of_read())?;
            if known.rows.is_empty() {
                let message = format!("the server has no role {group:?}: CREATE ROLE it, NOLOGIN");
                return Err(Error::invalid_config(format!("roles.{}.group", role.name), message));
            }
        }
        Ok(())
    }

    fn create(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        role: &Role<RoleConfig>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        // The expiry is set in the same step: whatever happens to the broker, the account dies.
        let create = CREATE.with([
            Param::Ident(&account.name),
            Param::Secret(password, Encoding::ScramSha256(4096)),
            Param::Timestamp(account.expires_at),
            Param::Ident(&role.config.group),
        ]);
        match sql.execute(None, &[create]) {
            Ok(()) => Ok(Issued::default()),
            Err(error) if error.code() == Some(DUPLICATE) => Err(Error::Conflict(account.name.clone())),
            Err(error) => Err(error.into()),
        }
    }

    fn renew(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &Role<RoleConfig>,
        account: &Account,
    ) -> Result<u64, Error> {
        match sql.execute(None, &[RENEW.with([Param::Ident(&account.name), Param::Timestamp(account.expires_at)])]) {
            Ok(()) => Ok(account.expires_at),
            Err(error) if error.code() == Some(UNDEFINED) => Err(Error::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    fn revoke(sql: &mut dyn Sql, _: &Target<TargetConfig>, account: &Account) -> Result<(), Error> {
        // Locked first and committed: no new session comes while the old ones are ended.
        let lock = |sql: &mut dyn Sql| sql.execute(None, &[LOCK.with([Param::Ident(&account.name)])]);
        let end_sessions = |sql: &mut dyn Sql| sql.execute(None, &[END_SESSIONS.with([Param::Literal(&account.name)])]);
        let locked = match lock(sql) {
            // The account itself may hold its row: without its sessions it does not.
            Err(error) if error.code() == Some(LOCKED) => {
                end_sessions(sql)?;
                lock(sql)
            }
            other => other,
        };
        match locked {
            Err(error) if error.code() == Some(UNDEFINED) => return Ok(()),
            other => other?,
        }
        end_sessions(sql)?;
        // A login that was under way shows a moment later.
        end_sessions(sql)?;
        match sql.execute(None, &[DROP.with([Param::Ident(&account.name)])]) {
            Err(error) if error.code() == Some(UNDEFINED) => Ok(()),
            other => Ok(other?),
        }
    }

    fn inspect(sql: &mut dyn Sql, _: &Target<TargetConfig>, name: &str) -> Result<AccountState, Error> {
        let rows = sql.query(None, &INSPECT.with([Param::Literal(name)]), 1).map_err(|error| error.of_read())?;
        let row = rows.rows.into_iter().next().ok_or(Error::NotFound)?;
        let mut columns = row.into_iter();
        Ok(AccountState {
            can_login: columns.next().flatten().as_deref() == Some("true"),
            expires_at: columns.next().flatten().and_then(|seconds| seconds.parse().ok()),
            properties: Vec::new(),
        })
    }

    fn list_accounts(
        sql: &mut dyn Sql,
        _: &Target<TargetConfig>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let list = LIST.with([Param::Literal(prefix), Param::Literal(cursor.unwrap_or_default())]);
        let rows = sql.query(None, &list, PAGE).map_err(|error| error.of_read())?;
        let names: Vec<String> = rows.rows.into_iter().flatten().flatten().collect();
        Ok(AccountPage { next: if rows.truncated { names.last().cloned() } else { None }, names })
    }
}

jit_plugin::register_sql_driver!(MySqlDriver);

#[cfg(test)]
mod tests {
    use jit_plugin::testing::{FakeSql, account, role, secret, target};
    use jit_plugin::{ServerError, SqlError};

    use super::*;

    const HERE: TargetConfig = TargetConfig {};

    fn group() -> RoleConfig {
        RoleConfig { group: "readers".to_owned() }
    }

    fn refused(code: &str) -> SqlError {
        SqlError::Refused(ServerError { code: code.to_owned(), message: "no".to_owned() })
    }

    #[test]
    fn an_account_expires_in_the_step_that_makes_it() {
        let mut sql = FakeSql::new(ALL, |_| Ok(vec![]));
        MySqlDriver::create(&mut sql, &target(HERE), &role(group()), &account("v-a", 1_800_000_000), secret("pw"))
            .expect("it is made");
        let [run] = &sql.runs[..] else { panic!("{:?}", sql.runs) };
        assert_eq!(run.params, ["ident:v-a", "secret:pw:scram-sha-256/4096", "timestamp:1800000000", "ident:readers"]);
    }

    #[test]
    fn a_name_that_exists_is_a_conflict() {
        let mut sql = FakeSql::new(ALL, |_| Err(refused(DUPLICATE)));
        let made = MySqlDriver::create(&mut sql, &target(HERE), &role(group()), &account("v-a", 2), secret("pw"));
        assert_eq!(made.map(|_| ()), Err(Error::Conflict("v-a".to_owned())));
    }

    #[test]
    fn revoking_what_is_not_there_is_success_and_else_it_is_locked_first() {
        let mut nobody = FakeSql::new(ALL, |_| Err(refused(UNDEFINED)));
        assert_eq!(MySqlDriver::revoke(&mut nobody, &target(HERE), &account("v-a", 2)), Ok(()));
        let mut sql = FakeSql::new(ALL, |_| Ok(vec![]));
        assert_eq!(MySqlDriver::revoke(&mut sql, &target(HERE), &account("v-a", 2)), Ok(()));
        assert!(sql.templates()[0].ends_with("NOLOGIN") && sql.templates()[3].starts_with("DROP"));
    }

    #[test]
    fn a_role_that_the_server_does_not_have_is_refused() {
        let mut nobody = FakeSql::new(ALL, |_| Ok(vec![]));
        assert!(MySqlDriver::validate(&mut nobody, &target(HERE), &[role(group())]).is_err());
        let mut known = FakeSql::new(ALL, |_| Ok(vec![vec![Some("readers".to_owned())]]));
        assert_eq!(MySqlDriver::validate(&mut known, &target(HERE), &[role(group())]), Ok(()));
    }

    #[test]
    fn names_come_a_page_at_a_time() {
        let mut sql = FakeSql::new(ALL, |_| Ok((0..=PAGE).map(|i| vec![Some(format!("v-{i:04}"))]).collect()));
        let page = MySqlDriver::list_accounts(&mut sql, &target(HERE), "v-", None).expect("a page");
        assert_eq!((page.names.len(), page.next.as_deref()), (500, Some("v-0499")));
    }
}
