//! Fixture: tries what the host must refuse, as the target's configuration says. A verb that a
//! mode does not name succeeds and does nothing. Where the host refuses a statement, the driver
//! passes that on; where it does not, the verb succeeds, and the test that expects a refusal fails.

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Feature, Issued, Param, Role, Secret, Sql,
    SqlDriver, Statement, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// All that the fixture lists; it tries others.
    pub(crate) const ALL;

    ONE = "SELECT 1";
    /// text
    ECHO = "SELECT {}";
    /// how many
    MANY_ROWS = "SELECT repeat('x', 1000) FROM generate_series(1, {})";
    /// bytes
    LONG_CELL = "SELECT repeat('x', {})";
    /// seconds
    SLEEP = "SELECT pg_sleep({})";
}

/// What it tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// create: a template that is not listed.
    UnlistedTemplate,
    /// create: a listed template with something behind it.
    ExtendedTemplate,
    /// create: fewer parameters than places.
    TooFewParams,
    /// create: more parameters than places.
    TooManyParams,
    /// create: an empty list of identifiers.
    EmptyIdents,
    /// create: a NUL in a literal.
    NulLiteral,
    /// create: the password in plain text as a column, to read it.
    ReadSecret,
    /// create: statements without end.
    EndlessExecute,
    /// create: a batch of a hundred thousand statements.
    HugeBatch,
    /// create: a literal of 20 MB.
    HugeParam,
    /// create: ten million rows, with the largest `max-rows`.
    HugeRows,
    /// create: one cell of 500 MB.
    HugeCell,
    /// create: a statement that takes ten minutes.
    SlowStatement,
    /// create: many databases, one after another.
    ManyDatabases,
    /// create: says that the account is called otherwise, with hostile text.
    HostileUsername,
    /// create: an expiry in the far future.
    FarExpiry,
    /// create: a hundred thousand properties.
    HugeProperties,
    /// create: an external id with hostile text.
    HostileExternalId,
    /// renew: an expiry in the far future.
    RenewFar,
    /// renew: an expiry of long ago.
    RenewPast,
    /// list-accounts: names with quotes, newlines and NUL.
    ListQuotes,
    /// list-accounts: names of others.
    ListOtherPrefix,
    /// list-accounts: pages without end.
    ListEndless,
    /// list-accounts: a page of a million names.
    ListHuge,
    /// inspect: cannot be believed.
    InspectHuge,
}

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
}

/// The driver.
#[derive(Debug)]
pub struct Hostile;

const HOSTILE: &str = "x'; DROP TABLE leases; --\n\u{1b}[31m\"\0";

impl SqlDriver for Hostile {
    type Target = Config;
    type Role = serde::de::IgnoredAny;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let features = [Feature::Renew, Feature::Inspect, Feature::ListAccounts];
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        Description::new(name, version, 63, &features)
    }

    fn validate(_: &mut dyn Sql, _: &Target<Config>, _: &[Role<serde::de::IgnoredAny>]) -> Result<(), Error> {
        Ok(())
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<Config>,
        _: &Role<serde::de::IgnoredAny>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        let mut issued = Issued::default();
        match target.config.mode {
            Mode::HostileUsername => issued.username = Some(HOSTILE.to_owned()),
            Mode::HostileExternalId => issued.external_id = Some(HOSTILE.to_owned()),
            Mode::FarExpiry => issued.expires_at = Some(u64::MAX),
            Mode::HugeProperties => {
                issued.properties = vec![("k".to_owned(), "v".repeat(100)); 100_000];
            }
            mode => run(sql, mode, account, password)?,
        }
        Ok(issued)
    }

    fn renew(
        _: &mut dyn Sql,
        target: &Target<Config>,
        _: &Role<serde::de::IgnoredAny>,
        account: &Account,
    ) -> Result<u64, Error> {
        Ok(match target.config.mode {
            Mode::RenewFar => u64::MAX,
            Mode::RenewPast => 1,
            _ => account.expires_at,
        })
    }

    fn revoke(_: &mut dyn Sql, _: &Target<Config>, _: &Account) -> Result<(), Error> {
        Ok(())
    }

    fn inspect(_: &mut dyn Sql, target: &Target<Config>, _: &str) -> Result<AccountState, Error> {
        if target.config.mode != Mode::InspectHuge {
            return Err(Error::NotFound);
        }
        Ok(AccountState {
            can_login: true,
            expires_at: Some(u64::MAX),
            properties: vec![(HOSTILE.to_owned(), "v".repeat(1000)); 50_000],
        })
    }

    fn list_accounts(
        _: &mut dyn Sql,
        target: &Target<Config>,
        prefix: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        let (names, next) = match target.config.mode {
            Mode::ListQuotes => (vec![format!("{prefix}{HOSTILE}")], None),
            Mode::ListOtherPrefix => (vec!["postgres".to_owned(), "jit_broker".to_owned()], None),
            Mode::ListEndless => (vec![format!("{prefix}again")], Some("on".to_owned())),
            Mode::ListHuge => ((0..1_000_000).map(|i| format!("{prefix}{i}")).collect(), None),
            _ => (Vec::new(), None),
        };
        Ok(AccountPage { names, next })
    }
}

/// What is tried with statements, in `create`.
fn run(sql: &mut dyn Sql, mode: Mode, account: &Account, password: Secret<'_>) -> Result<(), Error> {
    let literal = Param::Literal(&account.name);
    match mode {
        Mode::UnlistedTemplate => execute(sql, Statement::raw("SELECT 2", vec![])),
        Mode::ExtendedTemplate => execute(sql, Statement::raw("SELECT 1; DROP SCHEMA public CASCADE", vec![])),
        Mode::TooFewParams => execute(sql, Statement::raw(ECHO.text(), vec![])),
        Mode::TooManyParams => execute(sql, Statement::raw(ECHO.text(), vec![literal, literal])),
        Mode::EmptyIdents => execute(sql, ECHO.with([Param::Idents(&[])])),
        Mode::NulLiteral => execute(sql, ECHO.with([Param::Literal("a\0b")])),
        Mode::ReadSecret => {
            let statement = ECHO.with([Param::Secret(password, Encoding::Plain)]);
            match sql.query(None, &statement, 1)?.rows.first() {
                Some(row) => Err(Error::Refused(format!("the password is {row:?}"))),
                None => Ok(()),
            }
        }
        Mode::EndlessExecute => loop {
            execute(sql, ONE.with([]))?;
        },
        Mode::HugeBatch => {
            let batch: Vec<Statement<'_>> = (0..100_000).map(|_| ONE.with([])).collect();
            Ok(sql.execute(None, &batch)?)
        }
        Mode::HugeParam => execute(sql, ECHO.with([Param::Literal(&"x".repeat(20_000_000))])),
        Mode::HugeRows => query(sql, MANY_ROWS.with([Param::Number(10_000_000)])),
        Mode::HugeCell => query(sql, LONG_CELL.with([Param::Number(500_000_000)])),
        Mode::SlowStatement => query(sql, SLEEP.with([Param::Number(600)])),
        Mode::ManyDatabases => {
            for number in 0..10_000 {
                let database = format!("database_{number}");
                // Whether it exists does not matter: each try may cost the host a connection.
                let tried = sql.execute(Some(&database), &[ONE.with([])]);
                if let Err(jit_plugin::SqlError::Denied(reason)) = tried {
                    return Err(Error::Other(reason));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn execute(sql: &mut dyn Sql, statement: Statement<'_>) -> Result<(), Error> {
    Ok(sql.execute(None, &[statement])?)
}

fn query(sql: &mut dyn Sql, statement: Statement<'_>) -> Result<(), Error> {
    sql.query(None, &statement, u32::MAX)?;
    Ok(())
}

jit_plugin::register_sql_driver!(Hostile);
