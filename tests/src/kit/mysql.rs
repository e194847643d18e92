//! A database of MySQL or MariaDB for the kit, set up as the driver's page says.

use anyhow::{Context as _, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use super::KitFixture;
use crate::{random_name, setup, surroundings};

/// Which server, by the name of its set-up file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// `setup/mysql.sql`
    MySql,
    /// `setup/mariadb.sql`
    MariaDb,
}

impl Server {
    fn variable(self) -> &'static str {
        match self {
            Self::MySql => "JIT_TEST_MYSQL",
            Self::MariaDb => "JIT_TEST_MARIADB",
        }
    }

    fn setup(self) -> &'static str {
        match self {
            Self::MySql => "setup/mysql.sql",
            Self::MariaDb => "setup/mariadb.sql",
        }
    }
}

/// A running server, as its administrator.
#[derive(Debug, Clone)]
pub struct Administered {
    /// What it is.
    pub server: Server,
    /// The administrator's URL.
    pub url: String,
    /// The file with the authority that signed its certificate.
    pub ca: String,
}

impl Administered {
    /// The suite's.
    #[must_use]
    pub fn of_the_suite(server: Server) -> Self {
        let variable = server.variable();
        Self { server, url: surroundings(variable), ca: surroundings(&format!("{variable}_CA")) }
    }

    /// A session of the administrator.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn session(&self) -> Result<MySqlConnection> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let admin: MySqlConnectOptions = self.url.parse()?;
        let admin = admin.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(&self.ca).disable_statement_logging();
        // MariaDB knows fewer of the modes that would be set.
        Ok(admin.pipes_as_concat(false).no_engine_substitution(false).connect().await?)
    }

    /// One statement.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        self.session().await?.execute(AssertSqlSafe(statement.to_owned())).await?;
        Ok(())
    }

    /// The users whose name begins so, in order.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn users(&self, prefix: &str) -> Result<Vec<String>> {
        let query = "SELECT CAST(user AS CHAR) FROM mysql.user WHERE user LIKE CONCAT(?, '%') ORDER BY 1";
        Ok(sqlx::query_scalar(query).bind(prefix).fetch_all(&mut self.session().await?).await?)
    }
}

impl KitFixture {
    /// A database and a broker's account of its own, in the suite's server.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn mysql(server: Server) -> Result<Self> {
        Self::mysql_in(&Administered::of_the_suite(server)).await
    }

    /// The same in that server.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn mysql_in(place: &Administered) -> Result<Self> {
        let &Administered { server, ref url, ref ca } = place;
        let url = url::Url::parse(url)?;
        let (host, port) = (url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(3306));
        let name = |base: &str, suffix: &str| format!("{base}_{suffix}");
        let suffix = random_name();
        let [database, role, broker, weak] = ["inventory", "read_only", "jit", "weak"].map(|base| name(base, &suffix));
        let password = format!("Broker-{}{}-1", random_name(), random_name());
        let text = setup::file("driver-mysql", server.setup());
        let names = [("inventory", database.as_str()), ("app_read_only", &role), ("jit_broker", &broker)];
        let text = setup::with_names(&text, &names).replace('…', &password);
        let first = [
            format!("CREATE DATABASE {database}"),
            format!("CREATE TABLE {database}.items (id int PRIMARY KEY, name varchar(20) NOT NULL)"),
            format!("INSERT INTO {database}.items VALUES (1, 'bolt')"),
            format!("CREATE USER {weak}@'%' IDENTIFIED BY '{password}' REQUIRE SSL"),
        ];
        let mut session = place.session().await?;
        for statement in first.into_iter().chain(setup::statements(&text)) {
            let shown = statement.split(" IDENTIFIED ").next().unwrap_or_default().to_owned();
            session.execute(AssertSqlSafe(statement)).await.context(shown)?;
        }
        session.close().await?;
        let without = if server == Server::MariaDb { "[\"overlap\"]" } else { "[]" };
        let (kind, change, end) = match server {
            Server::MySql => ("mysql", "ALTER USER USER() IDENTIFIED BY", ""),
            Server::MariaDb => ("mariadb", "SET PASSWORD = PASSWORD(", ")"),
        };
        let fixture = Self::new()?;
        fixture.secret("broker.password", &password)?;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "mysql"
url = "mysql://{broker}@{host}:{port}/{database}"
password = {{ file = "broker.password" }}
ca = "{ca}"
[connections.weak]
kind = "mysql"
url = "mysql://{weak}@{host}:{port}"
password = {{ file = "broker.password" }}
ca = "{ca}"
[targets.inventory]
connection = "backend"
default_role = "app_read_only"
config = {{ host = "%", server = "{kind}" }}
roles.app_read_only = {{ roles = ["{role}"] }}
roles.missing = {{ roles = ["no_such_role"] }}
roles.hostile = {{ roles = ["{role}`; DROP TABLE items; --"] }}
[conformance]
refused_roles = ["missing", "hostile"]
weak_connection = "weak"
without = {without}
[conformance.login]
kind = "mysql"
url = "mysql://{host}:{port}/{database}?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"
allowed = ["SELECT * FROM items"]
refused = ["DELETE FROM items", "CREATE USER x", "CREATE TABLE t (a int)"]
holds = ["DO GET_LOCK('{database}', 0); START TRANSACTION; SELECT * FROM items LOCK IN SHARE MODE"]
change_password = "{change} '{{new}}'{end}"
"#
        ))?;
        Ok(fixture)
    }
}
