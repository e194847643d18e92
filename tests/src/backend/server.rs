//! The backends that the broker's own drivers are for, each as its administrator sees it.

use anyhow::{Context as _, Result, bail};

use super::{BackendWorld, Login, TARGET};
use crate::database::Database;
use crate::kit::conjur::StoredAccount;
use crate::kit::vault::Engine;
use crate::kit::{KitFixture, directory, mysql};
use crate::surroundings;

/// A server, and what of it belongs to this test.
pub enum Backend {
    /// A database of PostgreSQL.
    Postgres(Box<Database>),
    /// MySQL or MariaDB.
    Mysql(mysql::Administered),
    /// OpenLDAP.
    OpenLdap(directory::Administered),
    /// Active Directory, as Samba has it.
    ActiveDirectory(directory::Administered),
    /// OpenBao with a database engine in front of PostgreSQL.
    Vault(Box<Engine>),
    /// The strict server, with one account of a database.
    Conjur(Box<StoredAccount>),
}

impl Backend {
    /// The suite's MySQL.
    #[must_use]
    pub fn mysql() -> Self {
        Self::Mysql(mysql::Administered::of_the_suite(mysql::Server::MySql))
    }

    /// The suite's MariaDB.
    #[must_use]
    pub fn mariadb() -> Self {
        Self::Mysql(mysql::Administered::of_the_suite(mysql::Server::MariaDb))
    }

    /// The suite's OpenLDAP.
    #[must_use]
    pub fn openldap() -> Self {
        Self::OpenLdap(directory::Administered::openldap())
    }

    /// The suite's Active Directory.
    #[must_use]
    pub fn active_directory() -> Self {
        Self::ActiveDirectory(directory::Administered::active_directory())
    }

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
            Self::Postgres(database) => {
                KitFixture::postgres_in(database, &format!("reassign_owned_to = \"{}\"", database.owner)).await?
            }
            Self::Mysql(server) => KitFixture::mysql_in(server).await?,
            Self::OpenLdap(server) => KitFixture::openldap_in(server)?,
            Self::ActiveDirectory(_) => KitFixture::active_directory()?,
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
            Self::Postgres(_) => "driver-postgres",
            Self::Mysql(_) => "driver-mysql",
            Self::OpenLdap(_) | Self::ActiveDirectory(_) => "driver-ldap",
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
            Self::Postgres(database) => database.roles(prefix).await,
            Self::Mysql(server) => server.users(prefix).await,
            Self::OpenLdap(server) | Self::ActiveDirectory(server) => {
                let (server, prefix, entry) = (server.clone(), prefix.to_owned(), world.login.entry("")?);
                let names = move || {
                    let (attribute, unit) = entry.split_once("=,").context("no unit")?;
                    server.names(unit, attribute, &prefix)
                };
                tokio::task::spawn_blocking(names).await?
            }
            Self::Vault(engine) => engine.accounts().await,
            Self::Conjur(_) => Ok(Vec::new()),
        }
    }

    /// The groups that a directory's account is in.
    ///
    /// # Errors
    /// When it is no directory, or refuses.
    pub fn groups(&self, login: &Login, name: &str) -> Result<Vec<String>> {
        match self {
            Self::OpenLdap(server) | Self::ActiveDirectory(server) => {
                server.connect()?.values(&login.entry(name)?, "memberOf")
            }
            _ => bail!("no directory"),
        }
    }
}
