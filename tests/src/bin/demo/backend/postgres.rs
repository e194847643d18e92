//! A database of PostgreSQL.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use jit_tests::{Database, Reply};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use xtask::demo::{Backend as Kind, POSTGRES};
use xtask::servers::postgres::{self, PostgresServer, PostgresSettings};
use xtask::steps::Steps;

use super::{Backend, Process, Sections, Texts, digits, masked, write_credential};
use crate::screen::{Screen, cut, table};

/// The longest message of a client's own that is shown.
const MAX_MESSAGE: usize = 120;

/// Reads as the account of a reply.
pub(super) const PSQL: &str = r#"psql "$(field uri)" -c 'SELECT * FROM items'"#;

/// A server with a database.
pub(crate) struct Postgres {
    server: PostgresServer,
    database: Database,
}

impl Postgres {
    /// A superuser's URL, to make the brokers' store.
    pub(crate) fn superuser_url(&self) -> String {
        self.server.url("postgres")
    }

    /// A superuser's connection, for looking.
    pub(crate) async fn superuser(&self) -> Result<PgConnection> {
        self.database.superuser().await
    }
}

impl Backend for Postgres {
    type Session = PgConnection;

    const TEXTS: Texts = Texts {
        servers: "PostgreSQL",
        holder: "PostgreSQL",
        makes: "makes the account",
        ordinary: "An ordinary login, for ordinary drivers: nothing in the application knows of the broker.",
        ends: "Nobody has to remember to clean up. The broker does, and PostgreSQL ends the login even without it.",
        got: "a database account",
        ended: "login, session and role",
    };
    const KIND: Kind = Kind::Postgres;

    async fn start(folder: &Path, steps: &Steps) -> Result<Self> {
        let (server, database) = start_server(steps).await?;
        write_credential(folder, &database.password)?;
        Ok(Self { server, database })
    }

    fn started(&self) -> String {
        let port = self.server.port();
        format!("PostgreSQL on port {port}, with a database `inventory` and a least-privilege role for the broker")
    }

    fn sections(&self) -> Sections {
        let Database { host, port, name, read_only, read_write, owner, broker, .. } = &self.database;
        let connection = format!(
            r#"kind = "postgres"
url = "postgres://{broker}@{host}:{port}/{name}"
password = {{ file = "secrets/inventory" }}"#
        );
        let target = format!(
            r#"[targets.inventory_db.config]
reassign_owned_to = "{owner}"      # keeps the tables that an account leaves behind
[targets.inventory_db.roles.app_read_only]
grants = ["{read_only}"]
[targets.inventory_db.roles.app_read_write]
grants = ["{read_write}"]"#
        );
        Sections { connection, target }
    }

    fn processes(&self) -> Vec<Process> {
        process(&self.server).into_iter().collect()
    }

    fn to_try(&self) -> String {
        PSQL.to_owned()
    }

    fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    fn detach(self) {
        self.server.detach();
    }

    async fn accounts(&self) -> Result<Vec<String>> {
        self.database.roles("v-").await
    }

    async fn use_account(&self, issued: &Reply, screen: &Screen) -> Result<PgConnection> {
        let session = query(issued, screen).await?;
        screen.say("What the server knows about it:");
        let until = show_role(&self.database, issued, screen).await?;
        let expires = issued.text_at("/expires_at");
        ensure!(digits(&until) == digits(expires), "valid until {until} is not the lease's end, {expires}");
        screen.holds("It reads and no more, and the server itself ends its login with the lease (VALID UNTIL).");
        Ok(session)
    }

    async fn gone(&self, issued: &Reply, session: PgConnection, screen: &Screen) -> Result<()> {
        login_refused(&self.database, issued, session, screen).await?;
        role_gone(&self.database, screen).await
    }
}

/// A server in a process group of its own, with the database.
pub(super) async fn start_server(steps: &Steps) -> Result<(PostgresServer, Database)> {
    let binaries = postgres::any(POSTGRES, steps)?;
    let settings = PostgresSettings { own_group: true, ..PostgresSettings::default() };
    let server = PostgresServer::start(binaries.bin(), &settings)?;
    let database = Database::create_named(&server.url("postgres"), "").await?;
    Ok((server, database))
}

/// Its process.
pub(super) fn process(server: &PostgresServer) -> Option<Process> {
    let log = server.log_path();
    // SIGINT is its "fast" shutdown.
    Process::of("PostgreSQL", &format!("127.0.0.1:{}", server.port()), server.pid(), "INT", log.parent()?)
}

/// Logs in as the reply says, reads, and is refused a change.
pub(super) async fn query(issued: &Reply, screen: &Screen) -> Result<PgConnection> {
    let uri = issued.text_at("/connection/uri");
    let shown = uri.replace(issued.password(), &masked(issued.password()));
    screen.command(&format!("psql '{shown}' -c 'SELECT * FROM items'"));
    let options: PgConnectOptions = uri.parse().context("the reply's connection URI")?;
    let mut session = options.disable_statement_logging().connect().await.context("the new account's login")?;
    let rows = sqlx::query("SELECT id, name FROM items ORDER BY id").fetch_all(&mut session).await?;
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| vec![row.get::<i32, _>(0).to_string(), row.get::<String, _>(1)]).collect();
    ensure!(cells.len() == 3, "the table has {} rows", cells.len());
    screen.output(&table(&["id", "name"], &cells));
    let refused = session.execute("DELETE FROM items").await;
    let refused = refused.err().context("the account may delete, although its role only reads")?;
    screen.command("… -c 'DELETE FROM items'");
    screen.output(&format!("ERROR: {}", server_said(&refused)));
    Ok(session)
}

/// Shows the account's role; gives the end of its login.
pub(super) async fn show_role(database: &Database, issued: &Reply, screen: &Screen) -> Result<String> {
    let query = format!(
        "SELECT rolname, rolcanlogin, rolsuper, coalesce(rolvaliduntil::text, ''), \
         array_to_string(ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
         WHERE m.member = r.oid), ', ') FROM pg_roles r WHERE rolname = '{}'",
        issued.username()
    );
    let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut database.superuser().await?).await?;
    let yes = |column: usize| if row.get::<bool, _>(column) { "yes" } else { "no" }.to_owned();
    let until: String = row.get(3);
    let member_of: String = row.get(4);
    ensure!(member_of == database.read_only, "the account is a member of {member_of}");
    screen.output(&table(
        &["role", "login", "superuser", "valid until", "member of"],
        &[vec![row.get(0), yes(1), yes(2), until.clone(), member_of]],
    ));
    Ok(until)
}

/// Neither a new login nor the open session works.
pub(super) async fn login_refused(
    database: &Database,
    issued: &Reply,
    mut session: PgConnection,
    screen: &Screen,
) -> Result<()> {
    screen.command("psql … -c 'SELECT 1'     # with the same user name and password");
    let login = database.login(issued.username(), issued.password()).await;
    let refused = login.err().context("the account can still log in")?;
    ensure!(refused.as_database_error().is_some(), "the server is away: {refused}");
    screen.output(&format!("FATAL: {}", server_said(&refused)));
    screen.holds("The login is refused.");
    let ended = session.execute("SELECT 1").await;
    ensure!(ended.is_err(), "the session that was open goes on");
    screen.holds("The session that step 3 left open was ended too.");
    Ok(())
}

/// No role of the broker's is left.
pub(super) async fn role_gone(database: &Database, screen: &Screen) -> Result<()> {
    let roles = database.roles("v-").await?;
    ensure!(roles.is_empty(), "roles are left: {roles:?}");
    screen.holds("The role is gone from pg_roles.");
    Ok(())
}

/// What the server said, without what the client adds.
fn server_said(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(server) => server.message().to_owned(),
        None => cut(&error.to_string(), MAX_MESSAGE),
    }
}
