//! The backends that the broker's own drivers are for, each as its administrator sees it.

use anyhow::{Context as _, Result, ensure};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{BackendWorld, Login, TARGET};
use crate::database::Database;
use crate::kit::KitFixture;
use crate::kit::conjur::StoredAccount;
use crate::kit::mysql::Server;
use crate::kit::vault::Engine;
use crate::servers::Scope;
use crate::surroundings;

/// One of the suite's servers, and what of it belongs to this test.
pub enum Backend {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
    /// OpenLDAP.
    OpenLdap,
    /// Active Directory, as Samba has it.
    ActiveDirectory,
    /// OpenBao with a database engine in front of PostgreSQL.
    Vault(Box<Engine>),
    /// The strict server, with one account of a database.
    Conjur(Box<StoredAccount>),
}

impl Backend {
    /// OpenBao with an engine of its own.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn vault() -> Result<Self> {
        Ok(Self::Vault(Box::new(Engine::mount(Database::create(&surroundings("JIT_TEST_POSTGRES")).await?).await?)))
    }

    /// The strict Conjur server.
    ///
    /// # Errors
    /// When a server says no.
    pub async fn conjur() -> Result<Self> {
        Ok(Self::Conjur(Box::new(StoredAccount::store().await?)))
    }

    /// A world in front of it, not started; `more` is laid over its configuration.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn world(&self, more: &str) -> Result<BackendWorld> {
        let fixture = match self {
            Self::MySql => KitFixture::mysql(Server::MySql).await?,
            Self::MariaDb => KitFixture::mysql(Server::MariaDb).await?,
            Self::OpenLdap => KitFixture::openldap()?,
            Self::ActiveDirectory => KitFixture::active_directory()?,
            Self::Vault(engine) => KitFixture::in_front_of(engine).await?,
            Self::Conjur(stored) => KitFixture::conjur(stored)?,
        };
        let mut world = BackendWorld::prepared(fixture, self.driver(), "")?;
        if matches!(self, Self::Vault(_) | Self::Conjur(_)) {
            // What is behind an API is not where the API is.
            let (host, port) = (world.login.url.host_str().context("no host")?, world.login.url.port());
            let (port, database) = (port.context("no port")?, world.login.url.path().trim_start_matches('/'));
            let endpoint = format!(
                "[targets.{TARGET}.endpoint]\nscheme = \"postgres\"\nhost = \"{host}\"\nport = {port}\n\
                 database = \"{database}\"\n"
            );
            world.change(&endpoint)?;
        }
        world.change(more)?;
        Ok(world)
    }

    /// The driver's component.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match self {
            Self::MySql | Self::MariaDb => "driver-mysql",
            Self::OpenLdap | Self::ActiveDirectory => "driver-ldap",
            Self::Vault(_) => "driver-vault",
            Self::Conjur(_) => "driver-conjur",
        }
    }

    /// The accounts that this world's broker has in the backend, as its administrator sees them.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn accounts(&self, world: &BackendWorld) -> Result<Vec<String>> {
        let prefix = world.prefix.as_str();
        match self {
            Self::MySql | Self::MariaDb => mysql_users(self.variable(), prefix).await,
            Self::OpenLdap | Self::ActiveDirectory => {
                let (login, variable, prefix) = (world.login.clone(), self.variable(), prefix.to_owned());
                tokio::task::spawn_blocking(move || entries(&login, variable, &prefix)).await?
            }
            Self::Vault(engine) => engine.accounts().await,
            Self::Conjur(_) => Ok(Vec::new()),
        }
    }

    /// The groups that a directory's account is in.
    ///
    /// # Errors
    /// When it is no directory.
    pub fn groups(&self, login: &Login, name: &str) -> Result<Vec<String>> {
        let (admin, password) = administrator(self.variable());
        login.directory(&admin, &password)?.values(&login.entry(name)?, "memberOf")
    }

    /// What its surroundings' names begin with.
    fn variable(&self) -> &'static str {
        match self {
            Self::MySql => "JIT_TEST_MYSQL",
            Self::MariaDb => "JIT_TEST_MARIADB",
            Self::OpenLdap => "JIT_TEST_LDAP",
            Self::ActiveDirectory => "JIT_TEST_AD",
            Self::Vault(_) => "JIT_TEST_OPENBAO",
            Self::Conjur(_) => "JIT_TEST_POSTGRES",
        }
    }
}

fn administrator(variable: &str) -> (String, String) {
    (surroundings(&format!("{variable}_ADMIN")), surroundings(&format!("{variable}_ADMIN_PASSWORD")))
}

async fn mysql_users(variable: &str, prefix: &str) -> Result<Vec<String>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options: MySqlConnectOptions = surroundings(variable).parse()?;
    let options = options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(surroundings(&format!("{variable}_CA")));
    let options = options.pipes_as_concat(false).no_engine_substitution(false).disable_statement_logging();
    let mut session = options.connect().await?;
    let query = "SELECT CAST(user AS CHAR) FROM mysql.user WHERE user LIKE CONCAT(?, '%') ORDER BY 1";
    let users = sqlx::query_scalar(query).bind(prefix).fetch_all(&mut session).await?;
    session.close().await?;
    Ok(users)
}

fn entries(login: &Login, variable: &str, prefix: &str) -> Result<Vec<String>> {
    let (admin, password) = administrator(variable);
    let unit = login.entry("")?;
    let (first, unit) = unit.split_once(',').context("no unit")?;
    let attribute = first.trim_end_matches('=');
    let mut directory = login.directory(&admin, &password)?;
    let (code, entries) = directory.search(unit, Scope::One, "objectClass", &[attribute])?;
    ensure!(code == 0, "the search ends with {code}");
    let values = entries.into_iter().flat_map(|(_, attributes)| attributes).flat_map(|(_, values)| values);
    Ok(values.filter(|name| name.starts_with(prefix)).collect())
}
