//! What must be true again after every fault, however it came about.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::database::Database;
use crate::world::{World, eventually};

/// The bound for a test that fails; no test waits for it otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

impl World {
    /// Waits until the broker has nothing left to mend, then checks the promises that no fault may
    /// break. `disclosed` are the leases whose secret a caller holds or held.
    ///
    /// - NO-GHOST: the server has exactly the accounts of active leases, and no lease stays
    ///   pending, doubtful or revoking;
    /// - AUDITED-OR-NOTHING: an active lease has one `issue.granted` record, and so has every lease
    ///   whose secret got out;
    /// - the audit log verifies.
    ///
    /// # Panics
    /// When it never comes true.
    pub async fn assert_settled(&self, disclosed: &[String]) {
        self.assert_settled_in(&[&self.database], disclosed).await;
    }

    /// The same where targets are in several servers.
    ///
    /// # Panics
    /// When it never comes true.
    pub async fn assert_settled_in(&self, servers: &[&Database], disclosed: &[String]) {
        let begun = Instant::now();
        loop {
            let leases = self.leases();
            let unsettled: Vec<&Value> =
                leases.iter().filter(|lease| !matches!(lease["state"].as_str(), Some("active" | "revoked"))).collect();
            let active = accounts_of(&leases, "active");
            let mut there = BTreeSet::new();
            for server in servers {
                there.extend(server.roles(&self.prefix).await.unwrap_or_else(|error| panic!("no roles: {error:#}")));
            }
            if unsettled.is_empty() && active == there {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the broker never settled: {unsettled:?}; active {active:?}; in the server {there:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.assert_log_is_intact();
        let records = self.audit();
        let count = |lease: &str, events: &[&str]| {
            records
                .iter()
                .filter(|record| record["lease_id"] == lease && events.iter().any(|event| record["event"] == *event))
                .count()
        };
        for lease in self.leases().iter().filter(|lease| lease["state"] == "active") {
            let id = lease["lease_id"].as_str().unwrap_or_default();
            assert_eq!(count(id, &["issue.granted"]), 1, "an active lease and its records: {lease}");
        }
        for id in disclosed {
            assert_eq!(count(id, &["issue.granted"]), 1, "the secret of {id} got out without a record");
        }
    }

    /// One lease as the operator sees it.
    ///
    /// # Panics
    /// When the broker does not know it, or does not run.
    #[must_use]
    pub fn lease(&self, id: &str) -> Value {
        let output = self.cli(&["lease", "show", id, "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until a lease stands so.
    ///
    /// # Panics
    /// When it never does.
    pub async fn lease_becomes(&self, id: &str, state: &str) {
        eventually(&format!("lease {id} is {state}"), async || self.lease(id)["state"] == state).await;
    }

    /// How many records of an event a lease has.
    #[must_use]
    pub fn records_of(&self, lease: &str, event: &str) -> usize {
        self.events(event).iter().filter(|record| record["lease_id"] == lease).count()
    }
}

fn accounts_of(leases: &[Value], state: &str) -> BTreeSet<String> {
    let of_state = leases.iter().filter(|lease| lease["state"] == state);
    of_state.filter_map(|lease| lease["account"].as_str().map(str::to_owned)).collect()
}
