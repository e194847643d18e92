//! The fixture: what the kit must know about a backend. Its first part is the broker's own
//! configuration (one connection, one target), its last the section `[conformance]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use toml::{Table, Value};
use url::Url;

use super::login::LoginConfig;
use jit_assembly::connection::usual_port;
use jit_config::Config;

/// The largest fixture, in bytes.
const MAX_FIXTURE: u64 = 256 * 1024;

/// `[conformance]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// Which role accounts are made in; the target's default role where it is left out.
    pub role: Option<String>,
    /// Roles of the target that the backend does not have, or that nobody could have: a driver must
    /// refuse them.
    #[serde(default)]
    pub refused_roles: Vec<String>,
    /// Another connection of the fixture, whose account may not make accounts.
    pub weak_connection: Option<String>,
    /// How it is seen that an account can log in.
    pub login: Option<LoginConfig>,
    /// Whether one account can be created while another is (`false` for a backend that hands out
    /// one standing account).
    #[serde(default = "yes")]
    pub many_accounts: bool,
    /// Features that this backend lacks although the driver has them (`overlap` on MariaDB): the
    /// cases then look for what holds without.
    #[serde(default)]
    pub without: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A fixture, read.
#[derive(Debug)]
pub struct Fixture {
    /// The kit's own part.
    pub expectations: Expectations,
    /// The name of the one target.
    pub target: String,
    /// The name of its connection, if it has one.
    pub connection: Option<String>,
    /// Host and port of the backend, where faults can be played to it: on loopback only.
    pub loopback: Option<(String, u16)>,
    table: Table,
    folder: PathBuf,
}

/// A variant of the fixture's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant<'a> {
    /// As it is, but through a gate on this port.
    Through(u16),
    /// As it is.
    Direct,
    /// With other credentials than the broker's: they are in this file.
    WrongCredentials(&'a Path),
    /// Trusting another authority: it is in this file.
    WrongAuthority(&'a Path),
}

impl Fixture {
    /// Reads a fixture.
    ///
    /// # Errors
    /// With what to mend.
    pub fn load(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
        ensure!(size <= MAX_FIXTURE, "{} has more than {MAX_FIXTURE} bytes", path.display());
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The message of the parser shows the line.
        let mut table: Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        let kit = table.remove("conformance").unwrap_or_else(|| Value::Table(Table::new()));
        let expectations: Expectations = kit.try_into().context("[conformance]")?;
        let target = only_target(&table)?;
        let section = table["targets"][&target].as_table().context("the target is not a table")?;
        let connection = section.get("connection").and_then(Value::as_str).map(str::to_owned);
        let loopback = connection.as_deref().map(|name| loopback(&table, name)).transpose()?.flatten();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { expectations, target, connection, loopback, table, folder })
    }

    /// Whether its connection names an authority, so that another one can be tried.
    #[must_use]
    pub fn names_authority(&self) -> bool {
        self.connection_table().is_some_and(|table| table.contains_key("ca"))
    }

    /// Whether its connection has credentials, so that other ones can be tried.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.connection_table().is_some_and(|table| table.contains_key("password") || table.contains_key("secrets"))
    }

    /// The URL of its connection, as it is written.
    pub(super) fn url(&self) -> Option<&str> {
        self.connection_table()?.get("url")?.as_str()
    }

    fn connection_table(&self) -> Option<&Table> {
        self.table.get("connections")?.get(self.connection.as_ref()?)?.as_table()
    }

    /// The fixture as a whole configuration of a broker, which is read by the broker's own reader.
    ///
    /// # Errors
    /// With every mistake.
    pub fn config(&self, driver: &Path, variant: Variant<'_>) -> Result<Config> {
        let mut table = self.table.clone();
        if let Some(name) = &self.connection {
            let connection = table
                .get_mut("connections")
                .and_then(|all| all.get_mut(name))
                .and_then(Value::as_table_mut)
                .with_context(|| format!("there is no [connections.{name}]"))?;
            apply(connection, variant)?;
        }
        let target = table["targets"][&self.target].as_table_mut().context("the target is not a table")?;
        target.insert("driver".into(), "driver".into());
        target.insert("policies".into(), Value::Array(vec!["nobody-is-asked".into()]));
        // What a broker needs and the kit does not: nothing of it is opened.
        let driver = std::path::absolute(driver)?;
        let rest = format!(
            "[plugins.driver]\npath = {}\n[plugins.nobody]\npath = \"nobody.wasm\"\n\
             [policies.nobody-is-asked]\nplugin = \"nobody\"\n\
             [store]\nurl = \"sqlite:conformance.db\"\n[audit]\nsigning_key = {{ file = \"conformance.key\" }}\n\
             [[identity.jwt]]\nname = \"conformance\"\nissuer = \"https://issuer.invalid\"\n\
             audiences = [\"jit-broker\"]\nworkload = \"{{sub}}\"\n",
            Value::from(driver.display().to_string())
        );
        for (name, value) in rest.parse::<Table>()? {
            ensure!(!table.contains_key(&name), "[{name}] has no place in a fixture: the kit brings its own");
            table.insert(name, value);
        }
        let file = self.folder.join("fixture");
        let text = toml::to_string(&table).context("the fixture cannot be written as TOML")?;
        Ok(Config::parse(&text, &file.display().to_string())?)
    }
}

fn apply(connection: &mut Table, variant: Variant<'_>) -> Result<()> {
    let in_file = |path: &Path| {
        let mut table = Table::new();
        table.insert("file".into(), path.display().to_string().into());
        Value::Table(table)
    };
    match variant {
        Variant::Direct => {}
        Variant::Through(port) => {
            let text = connection.get("url").and_then(Value::as_str).context("the connection has no url")?;
            let mut url = Url::parse(text)?;
            if url.set_port(Some(port)).is_err() {
                bail!("the connection's url takes no port");
            }
            connection.insert("url".into(), url.to_string().into());
        }
        Variant::WrongCredentials(path) => {
            if connection.contains_key("password") {
                connection.insert("password".into(), in_file(path));
            }
            if let Some(secrets) = connection.get_mut("secrets").and_then(Value::as_table_mut) {
                let names: Vec<String> = secrets.keys().cloned().collect();
                for name in names {
                    secrets.insert(name, in_file(path));
                }
            }
        }
        Variant::WrongAuthority(path) => {
            connection.insert("ca".into(), path.display().to_string().into());
        }
    }
    Ok(())
}

fn only_target(table: &Table) -> Result<String> {
    let targets = table.get("targets").and_then(Value::as_table).context("the fixture has no [targets.NAME]")?;
    let mut names = targets.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        _ => bail!("the fixture must have exactly one [targets.NAME]"),
    }
}

/// Where the backend listens, when that is this machine.
fn loopback(table: &Table, connection: &str) -> Result<Option<(String, u16)>> {
    let there = table.get("connections").and_then(|all| all.get(connection));
    let url = there.and_then(|section| section.get("url")).and_then(Value::as_str);
    let url = url.with_context(|| format!("there is no [connections.{connection}] with a url"))?;
    let url = Url::parse(url).with_context(|| format!("[connections.{connection}] url"))?;
    let Some(host) = url.host_str() else { return Ok(None) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
        return Ok(None);
    }
    let port = url.port_or_known_default().or_else(|| usual_port(url.scheme()));
    Ok(port.map(|port| (host.to_owned(), port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Fixture> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fixture.toml");
        std::fs::write(&path, text).unwrap();
        Fixture::load(&path)
    }

    const GOOD: &str = r#"
        [connections.backend]
        kind = "postgres"
        url = "postgres://jit_broker@127.0.0.1:5433/inventory"
        password = { env = "SOME" }
        [targets.inventory]
        connection = "backend"
        default_role = "app"
        roles.app = { grants = ["app"] }
        [conformance]
        refused_roles = ["missing"]
    "#;

    #[test]
    fn a_fixture_becomes_a_configuration() {
        let fixture = load(GOOD).unwrap();
        assert_eq!(fixture.target, "inventory");
        assert_eq!(fixture.loopback, Some(("127.0.0.1".to_owned(), 5433)));
        assert_eq!(fixture.expectations.refused_roles, ["missing"]);
        let config = fixture.config(Path::new("driver.wasm"), Variant::Through(7)).unwrap();
        assert_eq!(config.connections["backend"].url.port(), Some(7));
        assert_eq!(config.targets.len(), 1);
        assert!(fixture.has_credentials() && !fixture.names_authority());
    }

    #[test]
    fn what_is_wrong_with_a_fixture_is_told() {
        let message = |text: &str| format!("{:#}", load(text).unwrap_err());
        assert!(message("").contains("no [targets.NAME]"));
        assert!(message("[targets.a]\n[targets.b]").contains("exactly one"));
        assert!(message("[targets.a]\nconnection = \"x\"").contains("[connections.x]"));
        assert!(message("[targets.a]\n[conformance]\nrefuses = []").contains("refuses"));
        assert!(message("targets =").contains("not TOML"));
        let mixed = load(&GOOD.replace("[conformance]", "[store]\nurl = \"x\"\n[conformance]")).unwrap();
        let refused = mixed.config(Path::new("driver.wasm"), Variant::Direct).unwrap_err();
        assert!(format!("{refused:#}").contains("[store] has no place"));
    }

    #[test]
    fn faults_are_played_on_loopback_only() {
        let elsewhere = load(&GOOD.replace("127.0.0.1:5433", "db.example:5433")).unwrap();
        assert_eq!(elsewhere.loopback, None);
        let default = load(&GOOD.replace("127.0.0.1:5433", "[::1]")).unwrap();
        assert_eq!(default.loopback, Some(("::1".to_owned(), 5432)));
    }
}
