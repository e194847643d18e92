//! Fixture: tries what the `sql` capability does on MySQL and MariaDB. Creation does what the
//! target's `mode` says, and tells what came of it as a refusal's text.

use jit_plugin::{
    Account, AccountPage, AccountState, Description, Encoding, Error, Issued, Param, Role, RotationStep, Rows, Secret,
    Sql, SqlDriver, SqlError, Statement, Target,
};
use serde::Deserialize;

jit_plugin::statements! {
    /// All that the fixture runs.
    pub(crate) const ALL;

    /// text
    ECHO = "SELECT {}, CHAR_LENGTH({})";
    /// text, number, timestamp, texts
    KINDS = "SELECT {}, {} + 1, {}, 'b' IN ({}), NULL, 1 AS a, 2 AS a";
    /// (none)
    SETTINGS = "SELECT @@sql_mode, @@time_zone, @@autocommit, @@lock_wait_timeout, @@character_set_client, \
                CURRENT_USER()";
    /// (none)
    MANY_ROWS = "SELECT REPEAT('x', 1000) FROM information_schema.COLLATIONS a, information_schema.COLLATIONS b, \
                 information_schema.COLLATIONS c";
    /// (none)
    LONG_CELL = "SELECT 'short', REPEAT('x', 10000000)";
    /// (none)
    BYTES = "SELECT UNHEX('FF')";
    /// (none)
    SLOW = "SELECT SLEEP(600)";
    /// (none)
    NO_SUCH_COLUMN = "SELECT no_such_column";
    /// role
    MAKE_ROLE = "CREATE ROLE {}";
    /// schema
    COUNT_UP = "UPDATE {}.counter SET n = n + 1";
    /// schema, secret
    KEEP = "INSERT INTO {}.kept VALUES ({})";
    /// secret
    SHOW = "SELECT {}";
    /// name, host, secret
    WRONG_GRAMMAR = "ALTER USER {}@{} IDENTIFIED BY {} NO SUCH CLAUSE";
    /// name, host, hash
    MAKE_CACHING = "CREATE USER {}@{} IDENTIFIED WITH caching_sha2_password AS {}";
    /// name, host, hash
    MAKE_NATIVE = "CREATE USER {}@{} IDENTIFIED VIA mysql_native_password USING {}";
    /// name, host, secret
    MAKE_PLAIN = "CREATE USER {}@{} IDENTIFIED BY {}";
}

/// `[targets.T.config]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    mode: String,
    /// A schema of the test's own.
    #[serde(default)]
    schema: String,
    #[serde(default)]
    texts: Vec<String>,
}

/// The driver.
#[derive(Debug)]
pub struct Probe;

fn run(sql: &mut dyn Sql, config: &TargetConfig, account: &Account, secret: Secret<'_>) -> Result<String, SqlError> {
    let name = Param::Literal(&account.name);
    let plain = Param::Secret(secret, Encoding::Plain);
    let caching = Param::Secret(secret, Encoding::CachingSha2);
    let native = Param::Secret(secret, Encoding::MysqlNative);
    let host = Param::Literal("%");
    let role = Param::Ident(&account.name);
    let schema = Param::Ident(&config.schema);
    let done = |result: Result<(), SqlError>| result.map(|()| "done".to_owned());
    let one = |statement: Statement<'_>, sql: &mut dyn Sql| done(sql.execute(None, &[statement]));
    match config.mode.as_str() {
        "echo" => {
            for text in &config.texts {
                let given = Param::Literal(text);
                let rows = sql.query(None, &ECHO.with([given, given]), 1)?.rows;
                let expected = [Some(text.clone()), Some(text.chars().count().to_string())];
                if rows != [expected.to_vec()] {
                    return Ok(format!("{text:?} came back as {rows:?}"));
                }
            }
            Ok("same".to_owned())
        }
        "kinds" => {
            let texts = ["a'".to_owned(), "b".to_owned()];
            let params =
                [Param::Literal("\\"), Param::Number(-43), Param::Timestamp(1_800_000_000), Param::Literals(&texts)];
            sql.query(None, &KINDS.with(params), 5).map(shown)
        }
        "settings" => sql.query(None, &SETTINGS.with([]), 1).map(shown),
        "many-rows" => sql
            .query(None, &MANY_ROWS.with([]), 10_000)
            .map(|rows| format!("{} rows, truncated: {}", rows.rows.len(), rows.truncated)),
        "long-cell" => sql.query(None, &LONG_CELL.with([]), 1).map(shown),
        "bytes" => sql.query(None, &BYTES.with([]), 1).map(shown),
        "slow" => sql.query(None, &SLOW.with([]), 1).map(shown),
        "refused-query" => sql.query(None, &NO_SUCH_COLUMN.with([]), 1).map(shown),
        "execute-a-query" => one(SETTINGS.with([]), sql),
        "query-a-change" => sql.query(None, &MAKE_ROLE.with([role]), 1).map(shown),
        "count-up" => one(COUNT_UP.with([schema]), sql),
        "elsewhere" => sql.query(Some(&config.schema), &SETTINGS.with([]), 1).map(shown),
        "twice" => done(sql.execute(None, &[MAKE_ROLE.with([role]), MAKE_ROLE.with([role])])),
        "once" => one(MAKE_ROLE.with([role]), sql),
        "keep" => one(KEEP.with([schema, plain]), sql),
        "show" => sql.query(None, &SHOW.with([plain]), 1).map(shown),
        "quoted-in-an-error" => one(WRONG_GRAMMAR.with([name, host, plain]), sql),
        "caching-sha2" => one(MAKE_CACHING.with([name, host, caching]), sql),
        "mysql-native" => one(MAKE_NATIVE.with([name, host, native]), sql),
        "plain" => one(MAKE_PLAIN.with([name, host, plain]), sql),
        "authenticate" => sql.authenticate(&account.name, secret).map(|succeeds| succeeds.to_string()),
        other => Ok(format!("no mode {other}")),
    }
}

fn shown(rows: Rows) -> String {
    let row = |row: &Vec<Option<String>>| {
        row.iter().map(|column| column.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join("|")
    };
    rows.rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

impl SqlDriver for Probe {
    type Target = TargetConfig;
    type Role = serde::de::IgnoredAny;

    const STATEMENTS: &'static [&'static str] = ALL;

    fn describe() -> Description {
        let mut description = Description::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"), 32, &[]);
        description.properties.push(("dialect".to_owned(), "mysql".to_owned()));
        description
    }

    fn validate(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &[Role<Self::Role>]) -> Result<(), Error> {
        Ok(())
    }

    fn create(
        sql: &mut dyn Sql,
        target: &Target<TargetConfig>,
        _: &Role<Self::Role>,
        account: &Account,
        password: Secret<'_>,
    ) -> Result<Issued, Error> {
        // `other`: what the host makes of it depends on what it saw being sent.
        Err(Error::Other(match run(sql, &target.config, account, password) {
            Ok(text) => text,
            Err(SqlError::Refused(error)) => format!("refused {}: {}", error.code, error.message),
            Err(SqlError::Unavailable(text)) => format!("unavailable: {text}"),
            Err(SqlError::Unknown(text)) => format!("unknown: {text}"),
            Err(SqlError::Denied(text)) => format!("denied: {text}"),
        }))
    }

    fn renew(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &Role<Self::Role>, account: &Account) -> Result<u64, Error> {
        Ok(account.expires_at)
    }

    fn rotate(
        _: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &Account,
        _: RotationStep,
        _: Option<Secret<'_>>,
    ) -> Result<(), Error> {
        Ok(())
    }

    fn revoke(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &Account) -> Result<(), Error> {
        Ok(())
    }

    fn inspect(_: &mut dyn Sql, _: &Target<TargetConfig>, _: &str) -> Result<AccountState, Error> {
        Err(Error::NotFound)
    }

    fn list_accounts(
        _: &mut dyn Sql,
        _: &Target<TargetConfig>,
        _: &str,
        _: Option<&str>,
    ) -> Result<AccountPage, Error> {
        Ok(AccountPage { names: Vec::new(), next: None })
    }
}

jit_plugin::register_sql_driver!(Probe);
