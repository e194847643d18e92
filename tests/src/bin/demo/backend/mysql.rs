//! A database of MySQL, reached over TLS with an authority of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use jit_tests::{Reply, random_name, setup};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use xtask::demo::Backend as Kind;
use xtask::servers::mysql::{self, MysqlServer};
use xtask::steps::Steps;

use super::{Backend, Process, Sections, Texts, copy_authority, masked, shown, write_credential};
use crate::screen::{Screen, table};

/// "Access denied for user": what a login gets without an account.
const ACCESS_DENIED: u16 = 1045;

/// A server with a database.
pub(crate) struct Mysql {
    server: MysqlServer,
    admin: MySqlConnectOptions,
    authority: PathBuf,
}

impl Backend for Mysql {
    type Session = MySqlConnection;

    const TEXTS: Texts = Texts {
        servers: "MySQL",
        holder: "MySQL",
        makes: "makes the account",
        ordinary: "An ordinary login, for ordinary drivers: nothing in the application knows of the broker.",
        ends: "Nobody has to remember to clean up. MySQL ends no account by the minute: the broker does, and never gives up.",
        got: "a database account",
        ended: "login, session and user",
    };
    const KIND: Kind = Kind::Mysql;

    async fn start(folder: &Path, steps: &Steps) -> Result<Self> {
        // The client of TLS takes the process's own.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = MysqlServer::start(&mysql::binaries(steps)?)?;
        let authority = copy_authority(folder, server.authority())?;
        let admin = verified(server.url().parse()?, &authority);
        let password = format!("broker-{}{}", random_name(), random_name());
        write_credential(folder, &password)?;
        let before = [
            "CREATE DATABASE inventory",
            "CREATE TABLE inventory.items (id int PRIMARY KEY, name varchar(20) NOT NULL)",
            "INSERT INTO inventory.items VALUES (1, 'bolt'), (2, 'nut'), (3, 'washer')",
        ];
        let documented = setup::file("driver-mysql", "setup/mysql.sql").replace('…', &password);
        let further = [
            "CREATE ROLE app_read_write",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON inventory.* TO app_read_write",
            "GRANT app_read_write TO jit_broker@'%' WITH ADMIN OPTION",
        ];
        let statements = before.map(str::to_owned).into_iter().chain(setup::statements(&documented));
        let mut session = admin.connect().await?;
        for statement in statements.chain(further.map(str::to_owned)) {
            let shown = statement.split(" IDENTIFIED ").next().unwrap_or_default().to_owned();
            session.execute(AssertSqlSafe(statement)).await.context(shown)?;
        }
        session.close().await?;
        Ok(Self { server, admin, authority })
    }

    fn started(&self) -> String {
        let port = self.server.port();
        format!("MySQL on port {port}, with TLS, a database `inventory` and a least-privilege user for the broker")
    }

    fn sections(&self) -> Sections {
        let connection = format!(
            r#"kind = "mysql"
url = "mysql://jit_broker@127.0.0.1:{}"
password = {{ file = "secrets/inventory" }}
ca = "ca.pem"                               # the only authority for the server's certificate"#,
            self.server.port()
        );
        let target = r#"[targets.inventory_db.endpoint]
database = "inventory"                      # told to callers; the broker itself has no right to it
[targets.inventory_db.config]
host = "127.0.0.1"                          # from where accounts may log in
[targets.inventory_db.roles.app_read_only]
roles = ["app_read_only"]
require_tls = true
[targets.inventory_db.roles.app_read_write]
roles = ["app_read_write"]
require_tls = true"#
            .to_owned();
        Sections { connection, target }
    }

    fn processes(&self) -> Vec<Process> {
        let address = format!("127.0.0.1:{}", self.server.port());
        Process::of("MySQL", &address, self.server.pid(), "TERM", self.server.folder()).into_iter().collect()
    }

    fn to_try(&self) -> String {
        format!(
            r#"mysql -h 127.0.0.1 -P {} --ssl-mode=VERIFY_IDENTITY --ssl-ca={} \
    -u "$(field username)" -p"$(field password)" inventory -e 'SELECT * FROM items'"#,
            self.server.port(),
            shown(&self.authority)
        )
    }

    fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    fn detach(self) {
        self.server.detach();
    }

    async fn accounts(&self) -> Result<Vec<String>> {
        let query = "SELECT CONVERT(User USING utf8mb4) FROM mysql.user WHERE User LIKE 'v-%' ORDER BY 1";
        Ok(sqlx::query_scalar(query).fetch_all(&mut self.admin.connect().await?).await?)
    }

    async fn use_account(&self, issued: &Reply, screen: &Screen) -> Result<MySqlConnection> {
        screen.command(&format!(
            "mysql -h {} -P {} --ssl-mode=VERIFY_IDENTITY --ssl-ca={} \\\n    -u {} -p{} {} -e 'SELECT * FROM items'",
            issued.text_at("/connection/host"),
            self.server.port(),
            shown(&self.authority),
            issued.username(),
            masked(issued.password()),
            issued.text_at("/connection/database"),
        ));
        let mut session = self.login(issued).await.context("the new account's login")?;
        let rows = sqlx::query("SELECT id, name FROM items ORDER BY id").fetch_all(&mut session).await?;
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| vec![row.get::<i32, _>(0).to_string(), row.get::<String, _>(1)]).collect();
        ensure!(cells.len() == 3, "the table has {} rows", cells.len());
        screen.output(&table(&["id", "name"], &cells));
        let refused = session.execute("DELETE FROM items").await;
        let refused = refused.err().context("the account may delete, although its role only reads")?;
        screen.command("… -e 'DELETE FROM items'");
        screen.output(&server_said(&refused)?);
        screen.say("What the server knows about it:");
        self.show_user(issued, screen).await?;
        screen.holds("It reads and no more, and logs in over TLS only.");
        Ok(session)
    }

    async fn gone(&self, issued: &Reply, mut session: MySqlConnection, screen: &Screen) -> Result<()> {
        screen.command("mysql … -e 'SELECT 1'     # with the same user name and password");
        let refused = self.login(issued).await.err().context("the account can still log in")?;
        let said = server_said(&refused)?;
        ensure!(said.contains(&ACCESS_DENIED.to_string()), "the login failed otherwise: {said}");
        screen.output(&said);
        screen.holds("The login is refused.");
        let ended = session.execute("SELECT 1").await;
        ensure!(ended.is_err(), "the session that was open goes on");
        screen.holds("The session that step 3 left open was ended too.");
        let users = self.accounts().await?;
        ensure!(users.is_empty(), "users are left: {users:?}");
        screen.holds("The user is gone from mysql.user.");
        Ok(())
    }
}

impl Mysql {
    /// Logs in as the reply says, as an application does that checks whom it talks to.
    async fn login(&self, issued: &Reply) -> Result<MySqlConnection, sqlx::Error> {
        verified(issued.text_at("/connection/uri").parse()?, &self.authority).connect().await
    }

    /// The account's row, as an administrator sees it.
    async fn show_user(&self, issued: &Reply, screen: &Screen) -> Result<()> {
        let columns = ["u.User", "u.Host", "u.plugin", "u.ssl_type", "u.account_locked"];
        let columns = columns.map(|column| format!("CONVERT({column} USING utf8mb4)")).join(", ");
        let query = format!(
            "SELECT {columns}, (SELECT CONVERT(GROUP_CONCAT(e.FROM_USER) USING utf8mb4) FROM mysql.role_edges e \
             WHERE e.TO_USER = u.User AND e.TO_HOST = u.Host) FROM mysql.user u WHERE u.User = ?"
        );
        let query = sqlx::query(AssertSqlSafe(query)).bind(issued.username());
        let row = query.fetch_one(&mut self.admin.connect().await?).await?;
        let cells: Vec<String> =
            (0..6).map(|column| row.get::<Option<String>, _>(column).unwrap_or_default()).collect();
        ensure!(cells[5] == "app_read_only", "the account has the roles {}", cells[5]);
        ensure!(cells[3] == "ANY" && cells[4] == "N", "the account is not as it should be: {cells:?}");
        screen.output(&table(&["user", "host", "plugin", "ssl_type", "locked", "roles"], &[cells]));
        Ok(())
    }
}

/// TLS, and nothing but this authority's certificate for the host's name.
fn verified(options: MySqlConnectOptions, authority: &Path) -> MySqlConnectOptions {
    let options = options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(authority).disable_statement_logging();
    // The newest servers do not know all of the modes that would be set.
    options.pipes_as_concat(false).no_engine_substitution(false)
}

/// What the server said, as its own client shows it.
fn server_said(error: &sqlx::Error) -> Result<String> {
    let said = error.as_database_error().with_context(|| format!("the server is away: {error}"))?;
    let number = said.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
    let state = said.code().unwrap_or_default();
    Ok(format!("ERROR {number} ({state}): {}", said.message()))
}
