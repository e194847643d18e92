//! From a component and a fixture to a [`Stand`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use jit_core::account::AccountPrefix;
use jit_core::driver::{Feature, RoleView, TargetView};
use jit_core::name::TargetName;
use jit_core::trace::OnBehalf;
use jit_runtime::{CompileWatch, Connection, DriverPlugin, DriverScope, Lane, Plugin, PluginSpec, Runtime};
use tokio::net::TcpStream;

use super::clean::mark_of;
use super::fixture::{Fixture, Variant};
use super::gate::Gate;
use super::login::Login;
use super::stand::{Seen, Stand};
use jit_assembly::compose::{self, Mode};
use jit_config::Config;

/// How the names of the kit's accounts begin. Short: some backends take 20 bytes.
const PREFIX: &str = "jk-";

/// How long a server on this machine may take to accept a connection.
const LISTENS: Duration = Duration::from_secs(5);

impl Stand {
    /// Loads the driver and connects it to the fixture's backend. `watch` hears whether the driver is compiled.
    ///
    /// # Errors
    /// With what is wrong with the component, the fixture or its files.
    pub async fn set_up(
        component: &Path,
        fixture: &Fixture,
        scratch: &Path,
        watch: Arc<dyn CompileWatch>,
    ) -> Result<Self> {
        let gate = match &fixture.loopback {
            Some((host, port)) => {
                // Behind the gate it would look like an answer that was lost.
                must_listen(host, *port, fixture.connection.as_deref().unwrap_or_default()).await?;
                Some(Gate::open_before(host, *port).await?)
            }
            None => None,
        };
        let variant = gate.as_ref().map_or(Variant::Direct, |gate| Variant::Through(gate.port));
        let config = fixture.config(component, variant)?;
        let runtime = compose::runtime_of_user(Some(&config), Mode::default(), watch)?;
        let driver = load(&runtime, component)?;
        let (name, target) = config.targets.iter().next().context("the fixture has no target")?;
        let roles: Vec<RoleView> = target
            .roles
            .iter()
            .map(|(role, table)| RoleView { name: role.clone(), config: table.to_string() })
            .collect();
        let expectations = &fixture.expectations;
        let by_name = |wanted: &str| {
            let found = roles.iter().find(|role| role.name.as_str() == wanted).cloned();
            found.with_context(|| format!("[conformance]: the target has no role {wanted}"))
        };
        let refused_roles = expectations.refused_roles.iter().map(|name| by_name(name)).collect::<Result<Vec<_>>>()?;
        let role = match (&expectations.role, &target.default_role) {
            (Some(role), _) => by_name(role)?,
            (None, Some(role)) => by_name(role.as_str())?,
            (None, None) => bail!("[conformance] role is missing, and the target has no default_role"),
        };
        let feature = |word: &String| {
            Feature::from_word(word).with_context(|| format!("[conformance] without: there is no feature {word}"))
        };
        let without = expectations.without.iter().map(feature).collect::<Result<Vec<_>>>()?;
        let login = expectations.login.clone().map(Login::new).transpose()?;
        let connection = connection_of(&config, fixture.connection.as_deref())?;
        let wrong_file = scratch.join("wrong-credential");
        jit_files::private::write_new(&wrong_file, "not-the-credential-canary")?;
        let authority_file = scratch.join("wrong-authority.pem");
        std::fs::write(&authority_file, super::STRANGE_AUTHORITY)?;
        let variant = |wanted: bool, why: &str, variant: Variant<'_>| {
            if !wanted {
                return Err(why.to_owned());
            }
            let config = fixture.config(component, variant).map_err(|error| format!("{error:#}"))?;
            match connection_of(&config, fixture.connection.as_deref()) {
                Ok(Some(connection)) => Ok(connection),
                Ok(None) => Err("the target has no connection".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            }
        };
        let wrong_credentials = variant(
            fixture.has_credentials(),
            "the connection has no credentials",
            Variant::WrongCredentials(&wrong_file),
        );
        let wrong_authority =
            variant(fixture.names_authority(), "the connection names no ca", Variant::WrongAuthority(&authority_file));
        let weak = match &expectations.weak_connection {
            None => Err("the fixture names no weak_connection".to_owned()),
            Some(weak) => Ok(compose::connection(&config, weak)?),
        };
        Ok(Self {
            target: TargetView { name: TargetName::new(name.as_str())?, config: target.config.to_string() },
            prefix: AccountPrefix::try_from(PREFIX.to_owned()).map_err(|error| anyhow!("{error}"))?,
            mark: mark_of(fixture),
            many_accounts: expectations.many_accounts,
            without,
            driver,
            role,
            refused_roles,
            login,
            gate,
            scope: DriverScope {
                connection,
                deadline: target.timeout,
                lane: Lane::Live,
                on_behalf: OnBehalf::default(),
            },
            wrong_credentials,
            wrong_authority,
            weak,
            roles,
            seen: Seen::default(),
        })
    }
}

/// Whether something listens at the backend's address.
///
/// # Errors
/// With the address, where it comes from, and what the system says.
async fn must_listen(host: &str, port: u16, connection: &str) -> Result<()> {
    let place = format!("nothing answers on {host}:{port}, which is the url of [connections.{connection}]");
    match tokio::time::timeout(LISTENS, TcpStream::connect((host, port))).await {
        Ok(connected) => connected.map(drop).context(place),
        Err(_) => bail!("{place}: no connection within {} s", LISTENS.as_secs()),
    }
}

fn load(runtime: &Runtime, component: &Path) -> Result<DriverPlugin> {
    let spec = PluginSpec { name: "driver".to_owned(), path: component.to_owned(), sha256: None, grants: None };
    match runtime.load(&spec)? {
        Plugin::Driver(driver) => Ok(driver),
        other => bail!("{} is a {}, not a driver", component.display(), other.kind()),
    }
}

fn connection_of(config: &Config, name: Option<&str>) -> Result<Option<Connection>> {
    let Some(name) = name else { return Ok(None) };
    compose::connection(config, name).map(Some)
}
