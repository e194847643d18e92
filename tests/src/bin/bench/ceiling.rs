//! The database alone: the broker's own statement from a plain client that computes nothing.

use std::rc::Rc;

use anyhow::{Context as _, Result};
use jit_tests::Database;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use tokio::sync::Semaphore;

use crate::load::Asks;

/// How accounts of this bench begin; the broker's and OpenBao's begin with `v-`.
const PREFIX: &str = "ceiling-";
/// The verifier after its iterations. All accounts get the same: computing it is the broker's work.
const VERIFIER: &str = "c2FsdHNhbHRzYWx0c2FsdA==$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// How many roles one DROP ROLE names.
const BATCH: usize = 500;
/// How often a lost race is tried again, as the broker does.
const RETRIES: usize = 8;

/// As many connections as the broker may use.
pub(crate) struct Connections {
    free: std::cell::RefCell<Vec<PgConnection>>,
    permits: Semaphore,
    next: std::cell::Cell<u64>,
    role: String,
    run: String,
    /// Of the verifier, which the server counts too: it checks that the password is not empty.
    iterations: u32,
}

impl Connections {
    /// Opens them, as the broker's own role.
    pub(crate) async fn open(database: &Database, most: u32, iterations: u32) -> Result<Rc<Self>> {
        let mut free = Vec::new();
        for _ in 0..most {
            let options = PgConnectOptions::new_without_pgpass()
                .host(&database.host)
                .port(database.port)
                .database(&database.name)
                .username(&database.broker)
                .password(&database.password)
                .disable_statement_logging();
            free.push(options.connect().await.context("the broker's role cannot log in")?);
        }
        Ok(Rc::new(Self {
            permits: Semaphore::new(free.len()),
            free: free.into(),
            next: 0.into(),
            role: database.read_only.clone(),
            run: jit_tests::random_name(),
            iterations,
        }))
    }

    /// Closes them.
    pub(crate) async fn close(self: Rc<Self>) -> Result<()> {
        let free = self.free.take();
        for connection in free {
            connection.close().await?;
        }
        Ok(())
    }
}

/// One client of them.
pub(crate) struct PlainClient(pub(crate) Rc<Connections>);

impl Asks for PlainClient {
    async fn ask(&mut self) -> Result<()> {
        let Self(shared) = self;
        let number = shared.next.get();
        shared.next.set(number + 1);
        let _permit = shared.permits.acquire().await?;
        let mut connection = shared.free.borrow_mut().pop().context("no connection is free")?;
        // The text of driver-postgres (statements.rs, CREATE), as the host fills it in.
        let statement = format!(
            "CREATE ROLE \"{PREFIX}{}-{number}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
             INHERIT CONNECTION LIMIT -1 PASSWORD 'SCRAM-SHA-256${}:{VERIFIER}' VALID UNTIL '2099-01-01T00:00:00Z' IN ROLE \"{}\"",
            shared.run, shared.iterations, shared.role
        );
        let mut done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await;
        for _ in 0..RETRIES {
            let lost_race = done
                .as_ref()
                .is_err_and(|e| e.as_database_error().is_some_and(|e| e.code().as_deref() == Some("XX000")));
            if !lost_race {
                break;
            }
            done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await;
        }
        shared.free.borrow_mut().push(connection);
        done.map(|_| ()).context("CREATE ROLE")
    }
}

/// Drops the accounts of all parties, outside of what is measured.
pub(crate) async fn drop_accounts(database: &Database) -> Result<usize> {
    let mut names = database.roles("v-").await?;
    names.extend(database.roles(PREFIX).await?);
    let mut superuser = database.superuser().await?;
    for batch in names.chunks(BATCH) {
        let quoted: Vec<String> = batch.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        superuser.execute(AssertSqlSafe(format!("DROP ROLE {}", quoted.join(", ")))).await?;
    }
    superuser.execute("CHECKPOINT").await?;
    superuser.close().await?;
    Ok(names.len())
}
