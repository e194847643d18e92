//! A database of MySQL or MariaDB for the kit, set up as the driver's page says.

use anyhow::{Context as _, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
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

impl KitFixture {
    /// A database and a broker's account of its own.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn mysql(server: Server) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = url::Url::parse(&surroundings(server.variable()))?;
        let ca = surroundings(&format!("{}_CA", server.variable()));
        let admin: MySqlConnectOptions = url.as_str().parse()?;
        let admin = admin.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(&ca).disable_statement_logging();
        // MariaDB knows fewer of the modes that would be set.
        let admin = admin.pipes_as_concat(false).no_engine_substitution(false);
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
        let mut session = admin.connect().await?;
        for statement in first.into_iter().chain(setup::statements(&text)) {
            let shown = statement.split(" IDENTIFIED ").next().unwrap_or_default().to_owned();
            session.execute(AssertSqlSafe(statement)).await.context(shown)?;
        }
        session.close().await?;
        let without = if server == Server::MariaDb { "[\"overlap\"]" } else { "[]" };
        let fixture = Self::new()?;
        fixture.secret("broker.password", &password)?;
        fixture.write(&format!(
            r#"
[connections.backend]
kind = "mysql"
url = "mysql://{broker}@{host}:{port}"
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
config = {{ host = "%" }}
# The broker's own account has nothing to do in it.
endpoint = {{ database = "{database}" }}
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
"#
        ))?;
        Ok(fixture)
    }
}
