//! What administration sees of the plugins and of the configuration.

use std::sync::Arc;

use async_trait::async_trait;
use jit_api::admin::{PluginRow, ReloadReport};
use jit_api::status::ConfigStatus;
use jit_assembly::reload::{Reloader, Trigger};
use jit_config::ConfigErrors;
use jit_core::operator::Operator;
use jit_http::admin::Administered;
use jit_runtime::Plugin;
use metrics_exporter_prometheus::PrometheusHandle;

/// The plugins and the configuration that serve.
pub(crate) struct Served {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) metrics: PrometheusHandle,
}

#[async_trait]
impl Administered for Served {
    fn plugins(&self) -> Vec<PluginRow> {
        self.reloader.loaded().plugins.values().map(plugin_row).collect()
    }

    fn config(&self) -> ConfigStatus {
        self.reloader.status()
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn store_kind(&self) -> &'static str {
        self.reloader.store_kind()
    }

    async fn reload(&self, operator: Operator, force: bool) -> Result<ReloadReport, String> {
        // To its end, also when the operator does not wait for it.
        let reloader = Arc::clone(&self.reloader);
        let reloading = tokio::spawn(async move { reloader.reload(Trigger::Admin(operator), force).await });
        let reloaded = reloading.await.unwrap_or_else(|error| Err(error.into()));
        reloaded.map_err(|error| match error.downcast_ref::<ConfigErrors>() {
            Some(problems) => problems.render(false),
            None => format!("{error:#}"),
        })
    }
}

/// A loaded plugin.
fn plugin_row(plugin: &Plugin) -> PluginRow {
    let statements = match plugin {
        Plugin::Driver(driver) => driver.templates().to_vec(),
        Plugin::Policy(_) | Plugin::Context(_) => Vec::new(),
    };
    PluginRow {
        name: plugin.name().to_owned(),
        kind: plugin.kind().to_string(),
        contract: plugin.contract_version().to_owned(),
        grants: plugin.grants().iter().map(ToString::to_string).collect(),
        sha256: plugin.sha256().to_owned(),
        path: plugin.path().display().to_string(),
        signed_by: plugin.signed_by().to_vec(),
        statements,
    }
}
