//! What the agent knows of its credentials, for whoever asks: probes, metrics.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jit_client::{AlertKind, Lease, Snapshot, State, SystemClock};

/// One row for each credential.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Vec<Row>>>);

struct Row {
    target: String,
    out: String,
    state: Option<State>,
    lease: Option<Lease>,
    /// The file holds the present account.
    written: bool,
    renewals: u64,
    rotations: u64,
    failures: u64,
    write_failures: u64,
    alert: Option<AlertKind>,
}

impl Board {
    /// Room for one more credential; its number.
    pub(crate) fn add(&self, target: &str, out: Option<&std::path::Path>) -> usize {
        let mut rows = self.rows();
        rows.push(Row {
            target: target.to_owned(),
            out: out.map(|out| out.display().to_string()).unwrap_or_default(),
            state: None,
            lease: None,
            written: false,
            renewals: 0,
            rotations: 0,
            failures: 0,
            write_failures: 0,
            alert: None,
        });
        rows.len() - 1
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, row: usize, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.rows().get_mut(row) {
            change(row);
        }
    }

    pub(crate) fn snapshot(&self, row: usize, snapshot: &Snapshot) {
        self.change(row, |row| {
            row.state = Some(snapshot.state);
            row.lease = Some(snapshot.lease.clone());
            (row.renewals, row.rotations, row.failures) = (snapshot.renewals, snapshot.generation, snapshot.failures);
        });
    }

    pub(crate) fn written(&self, row: usize, written: bool) {
        self.change(row, |row| row.written = written);
    }

    pub(crate) fn write_failed(&self, row: usize) {
        self.change(row, |row| {
            row.written = false;
            row.write_failures += 1;
        });
    }

    pub(crate) fn alert(&self, row: usize, kind: AlertKind) {
        self.change(row, |row| row.alert = Some(kind).filter(|kind| *kind != AlertKind::Recovered));
    }

    /// Nothing when every credential is good and where it belongs; otherwise what is missing.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let rows = self.rows();
        let mut missing = String::new();
        for row in rows.iter() {
            let why = match row.state {
                None => "not fetched yet",
                Some(State::Expired | State::Closed) => "expired",
                Some(_) if !row.written => "the file is not up to date",
                Some(_) => continue,
            };
            let _ = writeln!(missing, "{}: {why}", row.target);
        }
        (!missing.is_empty()).then_some(missing)
    }

    /// In Prometheus' text form.
    pub(crate) fn metrics(&self) -> String {
        let rows = self.rows();
        let now = SystemClock;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Row) -> Option<String>| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for row in rows.iter() {
                if let Some(value) = value(row) {
                    let labels = format!("target=\"{}\",out=\"{}\"", label(&row.target), label(&row.out));
                    let _ = writeln!(text, "{name}{{{labels}}} {value}");
                }
            }
        };
        let flag = |flag: bool| Some(u8::from(flag).to_string());
        let remaining = |row: &Row| row.lease.as_ref().map(|lease| lease.remaining(&now));
        family("jit_agent_credential_good", "gauge", "Whether the credential has not expired.", &|row| {
            flag(!matches!(row.state, None | Some(State::Expired | State::Closed)))
        });
        family("jit_agent_credential_at_risk", "gauge", "Whether its renewal is failing.", &|row| {
            flag(matches!(row.state, Some(State::AtRisk | State::Expired)))
        });
        family("jit_agent_written", "gauge", "Whether the file holds the present account.", &|row| flag(row.written));
        family("jit_agent_expires_in_seconds", "gauge", "How long the present term still is.", &|row| {
            remaining(row).map(|left: Duration| format!("{:.3}", left.as_secs_f64()))
        });
        family("jit_agent_renewals_total", "counter", "Leases renewed.", &|row| Some(row.renewals.to_string()));
        family("jit_agent_rotations_total", "counter", "New accounts after the first.", &|row| {
            Some(row.rotations.to_string())
        });
        family("jit_agent_failures_total", "counter", "Attempts at the broker that failed.", &|row| {
            Some(row.failures.to_string())
        });
        family("jit_agent_write_failures_total", "counter", "Attempts at the file that failed.", &|row| {
            Some(row.write_failures.to_string())
        });
        for kind in [AlertKind::BrokerUnreachable, AlertKind::BrokerRefuses, AlertKind::CredentialExpired] {
            let name = format!("jit_agent_alert_{}", kind.as_str().trim_start_matches("jit-").replace('-', "_"));
            family(&name, "gauge", "Whether this alert is the last one told and not over.", &|row| {
                flag(row.alert == Some(kind))
            });
        }
        text
    }
}

/// A label's value, as Prometheus escapes it.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::credential;

    #[test]
    fn a_board_tells_what_is_missing() {
        let board = Board::default();
        let row = board.add("inventory_db", Some(std::path::Path::new("/creds/\"db\".env")));
        assert_eq!(board.not_ready().as_deref(), Some("inventory_db: not fetched yet\n"));
        let snapshot = |state| Snapshot {
            lease: credential("v-app", "geheim").lease,
            credential: None,
            state,
            generation: 2,
            renewals: 3,
            failures: 4,
            last_error: None,
        };
        board.snapshot(row, &snapshot(State::AtRisk));
        board.write_failed(row);
        assert!(board.not_ready().is_some_and(|why| why.contains("not up to date")));
        board.written(row, true);
        board.alert(row, AlertKind::BrokerUnreachable);
        assert_eq!(board.not_ready(), None, "at risk is still good");
        let metrics = board.metrics();
        for line in [
            "jit_agent_renewals_total{target=\"inventory_db\",out=\"/creds/\\\"db\\\".env\"} 3",
            "# TYPE jit_agent_renewals_total counter",
            "jit_agent_alert_broker_unreachable{target=\"inventory_db\",out=\"/creds/\\\"db\\\".env\"} 1",
            "jit_agent_write_failures_total{target=\"inventory_db\",out=\"/creds/\\\"db\\\".env\"} 1",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{metrics}");
        }
        board.alert(row, AlertKind::Recovered);
        assert!(
            board.metrics().contains(
                "jit_agent_alert_broker_unreachable{target=\"inventory_db\",out=\"/creds/\\\"db\\\".env\"} 0"
            )
        );
        board.snapshot(row, &snapshot(State::Expired));
        assert!(board.not_ready().is_some_and(|why| why.contains("expired")));
    }
}
