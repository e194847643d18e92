//! What each metric is, for whoever reads `/metrics`.

use metrics::{describe_counter, describe_gauge, describe_histogram};

use self::Kind::{Counter, Gauge, Histogram};

/// How a metric is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It is what is now.
    Gauge,
    /// How often, and in what distribution.
    Histogram,
}

/// Each metric with what it is. docs/reference/metrics.md says more.
#[rustfmt::skip]
const METRICS: &[(&str, Kind, &str)] = &[
    ("jit_accounts_removed_total", Counter, "Accounts that were removed"),
    ("jit_auth_rejected_total", Counter, "Tokens that were not accepted"),
    ("jit_brokers", Gauge, "Brokers that serve from the store, where it may have several"),
    ("jit_brokers_config_drift", Gauge, "1 while brokers of the store have different configurations"),
    ("jit_clock_jump_seconds", Gauge, "How far the wall clock has jumped, while leases do not follow it"),
    ("jit_connections_refused_total", Counter, "Connections that were closed at once for want of room"),
    ("jit_context_seconds", Histogram, "Duration of asking a context provider"),
    ("jit_context_total", Counter, "Questions to context providers: asked, cached, failed, failed_open"),
    ("jit_denials_counted_total", Counter, "Denials beyond a workload's budget, which are on record as counts"),
    ("jit_disk_free_bytes", Gauge, "Free bytes on the disk of that place"),
    ("jit_disk_reserve_bytes", Gauge, "Size of the reserve for the removals' records"),
    ("jit_disk_room", Gauge, "Room on the disks of store and export: 0, 1 below the first mark, 2 below the second"),
    ("jit_identity_key_fetches_total", Counter, "Requests for an issuer's keys"),
    ("jit_identity_keys_age_seconds", Gauge, "How long ago the issuer confirmed its keys"),
    ("jit_issue_seconds", Histogram, "Duration of requests for an account"),
    ("jit_issue_total", Counter, "Requests for an account: granted, or the problem's code"),
    ("jit_leases", Gauge, "Leases that are not over"),
    ("jit_maintain_failures_total", Counter, "Upkeep of a driver's login that failed"),
    ("jit_overloaded_total", Counter, "Requests that were refused because the broker was overloaded"),
    ("jit_place_changes_total", Counter, "Connections behind which another server answered than a moment before"),
    ("jit_plugin_faults_total", Counter, "Policies and context providers that failed"),
    ("jit_policy_copied_total", Counter, "Decisions on a copy of the instance that was prepared once"),
    ("jit_policy_remembered_total", Counter, "Decisions that were remembered: no instance ran"),
    ("jit_policy_seconds", Histogram, "Duration of a decision"),
    ("jit_policy_shadow_diff_total", Counter, "Decisions that a shadow would have made differently"),
    ("jit_ready_passwords", Gauge, "Passwords whose hash is computed and that wait for a request"),
    ("jit_ready_passwords_total", Counter, "Passwords that the broker made: hash ready, or computed during the request"),
    ("jit_reconcile_ghosts", Gauge, "Accounts without a lease that the last comparison found and removed"),
    ("jit_reload_total", Counter, "Reloads: done, or refused, after which the old configuration stays in force"),
    ("jit_removals_braked", Gauge, "Accounts and leases without each other that wait for an operator"),
    ("jit_removals_unrecorded", Gauge, "Accounts that are removed and not on record yet"),
    ("jit_removals_wrong_place_total", Counter, "Removals that were refused because another server answers"),
    ("jit_revocations_oldest_overdue_seconds", Gauge, "Age of the oldest account that should be gone and is not"),
    ("jit_revocations_overdue", Gauge, "Accounts that should be gone and are not"),
    ("jit_revoke_failed_total", Counter, "Attempts to remove an account that failed"),
    ("jit_rotation_last_timestamp_seconds", Gauge, "When the last rotation succeeded, as seconds since the Unix epoch"),
    ("jit_rotation_overdue_seconds", Gauge, "How late a rotation is"),
    ("jit_rotation_total", Counter, "Steps of rotations"),
    ("jit_store_fenced_writes_total", Counter, "Transactions that were refused because another broker fenced this one"),
    ("jit_store_set_back", Gauge, "1 while leases may be alive that the store lacks, since it was set back"),
    ("jit_target_away", Gauge, "1 while calls to the target reach nobody, or its server refuses the broker's login"),
    ("jit_target_wrong", Gauge, "1 while the driver finds mistakes in the target's configuration"),
    ("jit_task_last_success_seconds", Gauge, "When a pass of the background task last succeeded, in Unix time"),
    ("jit_task_running", Gauge, "1 while a pass of the background task is at work"),
    ("jit_task_runs_total", Counter, "Passes of the background task that ended: ok, failed or panicked"),
    ("jit_task_side_panics_total", Counter, "Panics in work that a background task began beside its passes"),
    ("jit_task_stuck", Gauge, "1 while a pass of the background task is at work for longer than its deadline"),
    ("jit_tls_reload_total", Counter, "Replacements of the listener's certificate: done or refused"),
    ("jit_trace_batches_total", Counter, "Batches of spans for the collector of [traces]: sent or lost"),
];

/// Describes all of them to the recorder.
pub(crate) fn describe() {
    for (name, kind, help) in METRICS.iter().copied() {
        match kind {
            Counter => describe_counter!(name, help),
            Gauge => describe_gauge!(name, help),
            Histogram => describe_histogram!(name, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn they_are_those_of_the_page() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let of_page: BTreeSet<(String, String)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                let name = cells.next()?.trim_matches(['*', '`']).to_owned();
                name.starts_with("jit_").then_some((name, cells.next()?.to_owned()))
            })
            .collect();
        let described: BTreeSet<(String, String)> =
            METRICS.iter().map(|(name, kind, _)| ((*name).to_owned(), format!("{kind:?}").to_lowercase())).collect();
        assert_eq!(described, of_page);
        assert!(METRICS.iter().all(|(_, _, help)| help.len() > 10));
    }
}
