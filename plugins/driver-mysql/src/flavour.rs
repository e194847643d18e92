//! Which server answers.

use jit_plugin::{Error, Sql};
use serde::Deserialize;

use crate::{failure, statements};

/// What the driver has to know of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) flavour: Flavour,
    /// Major, minor, patch.
    pub(crate) version: (u32, u32, u32),
    /// As it says it.
    pub(crate) shown: String,
    /// The broker's own account: name and host.
    pub(crate) broker: (String, String),
    /// The performance schema is on: it tells who logged in, whatever a session runs.
    pub(crate) shows_logins: bool,
}

/// Two servers that have grown apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// MySQL and Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavour {
    /// The configuration's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

impl Server {
    pub(crate) fn ask(sql: &mut dyn Sql) -> Result<Self, Error> {
        let answer = sql.query(None, &statements::SERVER.with([]), 1).map_err(failure::of_read)?;
        let strange = || Error::Other("the server does not return its version".into());
        let row = answer.rows.into_iter().next().ok_or_else(strange)?;
        let [Some(shown), Some(account), schema] = &row[..] else {
            return Err(strange());
        };
        // A name may have an @; a host has none.
        let (name, host) = account.rsplit_once('@').ok_or_else(strange)?;
        let flavour = if shown.to_ascii_lowercase().contains("mariadb") { Flavour::MariaDb } else { Flavour::MySql };
        Ok(Self {
            flavour,
            version: version(shown).ok_or_else(strange)?,
            shown: shown.clone(),
            broker: (name.to_owned(), host.to_owned()),
            shows_logins: schema.as_deref() == Some("1"),
        })
    }

    pub(crate) fn is_mariadb(&self) -> bool {
        self.flavour == Flavour::MariaDb
    }
}

/// `8.0.42-33`, `9.7.4`, `10.11.6-MariaDB-0+deb12u1`, `5.5.5-10.6.1-MariaDB`
fn version(shown: &str) -> Option<(u32, u32, u32)> {
    // Old clients took a first number of two digits for a mistake.
    let shown = shown.strip_prefix("5.5.5-").unwrap_or(shown);
    let mut parts = shown.split(['.', '-', '+']).map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_as_servers_say_them() {
        for (shown, expected) in [
            ("8.0.14", (8, 0, 14)),
            ("9.7.4-2", (9, 7, 4)),
            ("10.11.19-MariaDB-0+deb12u1", (10, 11, 19)),
            ("5.5.5-10.6.1-MariaDB", (10, 6, 1)),
            ("8.4-log", (8, 4, 0)),
        ] {
            assert_eq!(version(shown), Some(expected), "{shown}");
        }
        assert_eq!(version("x"), None);
    }
}
