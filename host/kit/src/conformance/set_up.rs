//! From a component and a fixture to a [`Stand`].

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use jit_core::account::{AccountPrefix, Mark};
use jit_core::driver::{Feature, RoleView, TargetView};
use jit_core::name::TargetName;
use jit_core::trace::OnBehalf;
use jit_runtime::{Connection, DriverPlugin, DriverScope, Lane, Plugin, PluginSpec, Runtime};

use super::fixture::{Fixture, Variant};
use super::gate::Gate;
use super::login::Login;
use super::stand::{Seen, Stand};
use jit_assembly::compose::{self, Mode};
use jit_config::Config;

/// How the names of the kit's accounts begin. Short: some backends take 20 bytes.
const PREFIX: &str = "jk-";

impl Stand {
    /// Loads the driver and connects it to the fixture's backend.
    ///
    /// # Errors
    /// With what is wrong with the component, the fixture or its files.
    pub async fn set_up(component: &Path, fixture: &Fixture, scratch: &Path) -> Result<Self> {
        let gate = match &fixture.loopback {
            Some((host, port)) => Some(Gate::open_before(host, *port).await?),
            None => None,
        };
        let variant = gate.as_ref().map_or(Variant::Direct, |gate| Variant::Through(gate.port));
        let mut config = fixture.config(component, variant)?;
        // A driver with an interpreter in it takes long to compile: once, and not in every run.
        config.plugin_limits.cache_dir = Some(compose::compiled_by_user().unwrap_or_else(|_| scratch.join("cache")));
        let runtime = compose::runtime(&config, Mode::default())?;
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
            mark: Mark::generate(),
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
