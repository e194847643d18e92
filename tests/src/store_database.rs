//! A database for a broker's store, set up as docs/scaling.md says.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

use crate::{random_name, setup};

/// An empty database and its role, both of one name.
#[derive(Clone)]
pub struct StoreDatabase {
    admin: PgConnectOptions,
    /// `127.0.0.1:5432`
    pub address: String,
    /// The name of the database and of the role.
    pub name: String,
    /// The role's password.
    pub password: String,
}

impl StoreDatabase {
    /// Makes it in a running server, through a superuser's URL.
    ///
    /// # Errors
    /// When the server says no.
    pub async fn create(superuser: &str) -> Result<Self> {
        let url = url::Url::parse(superuser)?;
        let admin: PgConnectOptions = superuser.parse().context("the superuser's URL")?;
        let name = format!("store_{}", random_name());
        let database = Self {
            admin: admin.disable_statement_logging(),
            address: format!("{}:{}", url.host_str().unwrap_or("127.0.0.1"), url.port().unwrap_or(5432)),
            password: format!("store-{}{}", random_name(), random_name()),
            name,
        };
        let text = setup_sql()?.replace('…', &database.password);
        let text = setup::with_names(&text, &[("jit_store", &database.name)]);
        let connect = format!("\\connect {}", database.name);
        let (outside, inside) = text.split_once(&connect).context("the set-up connects to the new database")?;
        let mut server = database.admin.connect().await?;
        for statement in setup::statements(outside) {
            server.execute(AssertSqlSafe(statement)).await?;
        }
        let mut server = database.superuser().await?;
        for statement in setup::statements(inside) {
            server.execute(AssertSqlSafe(statement)).await?;
        }
        Ok(database)
    }

    /// Keys for `[store]`; the password is read from the file `store.password` beside the configuration.
    #[must_use]
    pub fn section(&self) -> String {
        self.section_at(&self.address)
    }

    /// The same by other addresses: `127.0.0.1:1,127.0.0.1:2`.
    #[must_use]
    pub fn section_at(&self, addresses: &str) -> String {
        let name = &self.name;
        format!("url = \"postgres://{name}@{addresses}/{name}\"\npassword = {{ file = \"store.password\" }}")
    }

    /// A superuser's connection to it.
    ///
    /// # Errors
    /// When the server is away.
    pub async fn superuser(&self) -> Result<PgConnection> {
        Ok(self.admin.clone().database(&self.name).connect().await?)
    }
}

/// The set-up that the page shows.
///
/// # Errors
/// When it is not there.
pub fn setup_sql() -> Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/ledger/postgres/setup.sql");
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_set_up() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scaling.md");
        assert!(std::fs::read_to_string(page).unwrap().contains(setup_sql().unwrap().trim()));
    }
}
