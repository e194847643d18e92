//! What a configuration has loaded and opened: plugins and connections. The pipeline reaches them through its ports;
//! here is what implements those over Wasm plugins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jit_core::driver::{
    AccountPage, AccountState, AccountView, Description, Feature, Issued, RoleView, RotationStep, TargetView,
};
use jit_core::outcome::Outcome;
use jit_core::policy::PolicyRequest;
use jit_core::secret::AccountSecret;
use jit_pipeline::ports::{
    Clock as _, Context, Driver, Drivers, FoundDriver, Policy, PolicyFault, PolicyReply, Scope, SystemClock,
};
use jit_pipeline::reach::Reach;
use jit_pipeline::target::Serving;
use jit_runtime::{
    ConfiguredAnswer, ConfiguredContext, ConfiguredPolicy, Connection, ContextScope, DriverPlugin, DriverScope,
    FaultKind, Plugin,
};
use secrecy::SecretString;

use crate::connection::Connected;
use crate::telemetry;

/// The plugins and connections of one configuration.
#[derive(Default)]
pub struct Loaded {
    /// The loaded plugins, by their names in the configuration.
    pub plugins: BTreeMap<String, Plugin>,
    /// The connections, by name: also of targets that were moved away from them.
    pub connections: BTreeMap<String, Connected>,
    /// Which targets are away; the same for all configurations of a process.
    pub reach: Arc<Reach>,
}

/// A configuration that can be served.
pub struct Active {
    /// The targets, for the pipeline.
    pub serving: Arc<Serving>,
    /// What the targets are made of, for what loads and reports it.
    pub loaded: Arc<Loaded>,
}

impl Drivers for Loaded {
    fn find(&self, plugin: &str, connection: Option<&str>) -> Result<FoundDriver, String> {
        let Some(Plugin::Driver(driver)) = self.plugins.get(plugin) else {
            return Err(format!("the configuration no longer has the driver {plugin}"));
        };
        let connected = match connection {
            None => None,
            Some(name) => match self.connections.get(name) {
                Some(connected) => Some(connected),
                None => return Err(format!("the configuration no longer has the connection {name}")),
            },
        };
        let site = connected.map(Connected::site).unwrap_or_default();
        let connection = connected.map(|connected| connected.connection.clone());
        let reach = Arc::clone(&self.reach);
        Ok(FoundDriver { driver: Arc::new(BoundDriver { plugin: driver.clone(), connection, reach }), site })
    }

    fn any_needs_upkeep(&self) -> bool {
        let needs =
            |plugin: &Plugin| matches!(plugin, Plugin::Driver(driver) if driver.description().has(Feature::Maintain));
        self.plugins.values().any(needs)
    }
}

/// A driver plugin on one connection.
#[derive(Debug)]
pub struct BoundDriver {
    /// The plugin.
    pub plugin: DriverPlugin,
    /// What it works on, if it has something.
    pub connection: Option<Connection>,
    /// Where it is noted which targets are away.
    pub reach: Arc<Reach>,
}

impl BoundDriver {
    /// Notes whether the target was there. For the verbs that every driver does at the target; the others may be done
    /// without it.
    fn noted<T>(&self, target: &TargetView, outcome: Outcome<T>) -> Outcome<T> {
        self.reach.noted(&target.name, SystemClock.wall(), outcome)
    }

    fn scope(&self, scope: &Scope) -> DriverScope {
        DriverScope {
            connection: self.connection.clone(),
            deadline: scope.deadline,
            lane: scope.lane,
            on_behalf: telemetry::on_behalf(),
        }
    }
}

#[async_trait]
impl Driver for BoundDriver {
    fn sha256(&self) -> &str {
        self.plugin.sha256()
    }

    fn description(&self) -> &Description {
        self.plugin.description()
    }

    #[tracing::instrument(level = "debug", name = "driver.validate", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn validate(&self, scope: &Scope, target: &TargetView, roles: &[RoleView]) -> Outcome<()> {
        self.noted(target, self.plugin.validate(&self.scope(scope), target, roles).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.create", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn create(
        &self,
        scope: &Scope,
        target: &TargetView,
        role: &RoleView,
        account: &AccountView,
        secret: &AccountSecret,
    ) -> Outcome<Issued> {
        self.noted(target, self.plugin.create(&self.scope(scope), target, role, account, secret).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.renew", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn renew(&self, scope: &Scope, target: &TargetView, role: &RoleView, account: &AccountView) -> Outcome<u64> {
        self.plugin.renew(&self.scope(scope), target, role, account).await
    }

    #[tracing::instrument(level = "debug", name = "driver.rotate", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn rotate(
        &self,
        scope: &Scope,
        target: &TargetView,
        account: &AccountView,
        step: RotationStep,
        password: Option<&SecretString>,
    ) -> Outcome<()> {
        self.noted(target, self.plugin.rotate(&self.scope(scope), target, account, step, password).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.revoke", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn revoke(&self, scope: &Scope, target: &TargetView, account: &AccountView) -> Outcome<()> {
        self.noted(target, self.plugin.revoke(&self.scope(scope), target, account).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.inspect", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn inspect(&self, scope: &Scope, target: &TargetView, name: &str) -> Outcome<AccountState> {
        self.noted(target, self.plugin.inspect(&self.scope(scope), target, name).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.list_accounts", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn list_accounts(
        &self,
        scope: &Scope,
        target: &TargetView,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Outcome<AccountPage> {
        self.noted(target, self.plugin.list_accounts(&self.scope(scope), target, prefix, cursor).await)
    }

    #[tracing::instrument(level = "debug", name = "driver.maintain", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn maintain(&self, scope: &Scope, target: &TargetView) -> Outcome<Duration> {
        self.plugin.maintain(&self.scope(scope), target).await
    }

    #[tracing::instrument(level = "debug", name = "driver.place", skip_all, fields(plugin = self.plugin.name(), target = %target.name))]
    async fn place(&self, scope: &Scope, target: &TargetView) -> Outcome<Vec<(String, String)>> {
        self.plugin.place(&self.scope(scope), target).await
    }

    async fn authenticate(&self, scope: &Scope, user: &str, password: &SecretString) -> Option<Result<bool, String>> {
        self.scope(scope).authenticate(user, password).await
    }
}

/// A policy plugin with its configuration.
pub struct BoundPolicy {
    /// Both.
    pub policy: ConfiguredPolicy,
}

impl Policy for BoundPolicy {
    fn sha256(&self) -> &str {
        self.policy.plugin().sha256()
    }

    fn decide(&self, request: &PolicyRequest) -> PolicyReply {
        let ConfiguredAnswer { answer, by } = self.policy.ask(request);
        let verdict = answer.verdict.map_err(|fault| match fault.kind {
            FaultKind::Overloaded => PolicyFault::Overloaded,
            _ => PolicyFault::Failed(fault.to_string()),
        });
        PolicyReply { verdict, looked_at: answer.looked_at, by }
    }
}

/// A context plugin with its configuration and connection.
pub struct BoundContext {
    /// The plugin with its configuration.
    pub provider: ConfiguredContext,
    /// Connection and deadline.
    pub scope: ContextScope,
}

#[async_trait]
impl Context for BoundContext {
    fn sha256(&self) -> &str {
        self.provider.plugin().sha256()
    }

    #[tracing::instrument(
        level = "debug", name = "context.gather", skip_all, fields(plugin = self.provider.plugin().name())
    )]
    async fn gather(&self, request: &PolicyRequest) -> Result<BTreeMap<String, String>, String> {
        let scope = ContextScope { on_behalf: telemetry::on_behalf(), ..self.scope.clone() };
        self.provider.gather(&scope, request).await.map_err(|fault| fault.to_string())
    }
}
