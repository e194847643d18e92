//! Where the accounts are: which cluster, namespace and mount.

use jit_plugin::http::{Method, Part, Request};
use jit_plugin::{Error, Http};
use serde_json::Value;

use crate::client::Call;
use crate::config::TargetConfig;
use crate::failure;

/// The cluster's id, which needs no token and is the same on each of its nodes, and where in it the leases are.
/// A node that says nothing of it (one that is sealed, a gateway's answer) is no place: the host tries again.
pub(crate) fn place(http: &mut dyn Http, config: &TargetConfig) -> Result<Vec<(String, String)>, Error> {
    let call = Call::get(["sys", "health"]);
    // Of the root namespace, whatever the target's is. A standby answers as the active node does.
    let request = Request::new(Method::Get, ["v1", "sys", "health"])
        .header("X-Vault-Request", [Part::Text("true")])
        .query("standbyok", "true")
        .query("perfstandbyok", "true");
    let response = http.send(&request).map_err(|error| failure::of_sending(&call, error))?;
    if response.status != 200 {
        return Err(Error::retryable(format!("{}: status {}", call.shown(), response.status)));
    }
    let body = response.json()?;
    // Without a storage that clusters there is no id.
    let cluster = body.get("cluster_id").and_then(Value::as_str).filter(|id| !id.is_empty());
    if cluster.is_none() && body.get("initialized").and_then(Value::as_bool).is_none() {
        return Err(Error::retryable(format!("{}: the answer is not Vault's", call.shown())));
    }
    let pairs =
        [("server", cluster), ("mount", Some(config.mount.as_str())), ("namespace", config.namespace.as_deref())];
    let told = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    Ok(told.collect())
}
