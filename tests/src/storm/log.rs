//! What must hold after a storm, read from the audit log: one account for each lease and key, one end for each lease, a
//! record for each secret, and never more leases than a quota allows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::client::{FEW, Known, MOST};
use super::diary::Diary;

/// Events that end a lease.
const ENDS: [&str; 3] = ["lease.revoked", "lease.expired", "reconcile.ghost_removed"];
/// Events with which a secret leaves the broker.
const DISCLOSES: [&str; 2] = ["issue.granted", "issue.replayed"];

/// What is there at the end.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    /// Accounts that were made for a lease that was granted.
    pub made: usize,
    /// Leases with a record of their end.
    pub removed: usize,
    /// Leases that are live at the end.
    pub live: usize,
    /// Records in the log.
    pub records: usize,
    /// Records that an account differed from its lease.
    pub drift: usize,
    /// The most leases that the workload with the quota had at once.
    pub at_once: usize,
}

/// A field that is a text; empty where it is not there.
#[must_use]
pub fn text<'value>(value: &'value Value, key: &str) -> &'value str {
    value[key].as_str().unwrap_or_default()
}

/// Holds what the clients know, and the leases, against the log.
#[must_use]
pub fn read_the_log(records: &[Value], leases: &[Value], known: &Known, diary: &Diary) -> Outcome {
    let of_event =
        |events: &'static [&str]| records.iter().filter(move |record| events.contains(&text(record, "event")));
    let mut granted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut accounts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut tickets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in of_event(&["issue.granted"]) {
        let (lease, account) = (text(record, "lease_id"), text(record, "ephemeral_id"));
        granted.entry(lease).or_default().push(account);
        accounts.entry(account).or_default().insert(lease);
        if !text(record, "ticket").is_empty() {
            tickets.entry(text(record, "ticket")).or_default().insert(lease);
        }
    }
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for record in of_event(&ENDS) {
        *ends.entry(text(record, "lease_id")).or_default() += 1;
    }
    for (lease, times) in granted.iter().filter(|(_, times)| times.len() > 1) {
        diary.broken("doubles", format!("{lease} was granted {} times: {times:?}", times.len()));
    }
    for (account, leases) in accounts.iter().filter(|(_, leases)| leases.len() > 1) {
        diary.broken("doubles", format!("the account {account} is of {leases:?}"));
    }
    for (key, leases) in tickets.iter().filter(|(_, leases)| leases.len() > 1) {
        diary.broken("doubles", format!("the Idempotency-Key {key} made {leases:?}"));
    }
    for (lease, times) in ends.iter().filter(|(_, times)| **times > 1) {
        diary.broken("accounts that were removed twice", format!("{lease} has {times} records of its end"));
    }
    let live: BTreeSet<&str> =
        leases.iter().filter(|lease| text(lease, "state") == "active").map(|lease| text(lease, "lease_id")).collect();
    for lease in granted.keys() {
        match (live.contains(lease), ends.contains_key(lease)) {
            (true, true) => diary.broken("live leases that have ended", (*lease).to_owned()),
            (false, false) => diary.broken("ends without a record", (*lease).to_owned()),
            _ => {}
        }
    }
    let disclosing: BTreeSet<(&str, &str)> =
        of_event(&DISCLOSES).map(|record| (text(record, "lease_id"), text(record, "ephemeral_id"))).collect();
    for (lease, account) in &known.disclosed {
        if !disclosing.contains(&(lease.as_str(), account.as_str())) {
            diary.broken("unrecorded secrets", format!("{lease} ({account})"));
        }
    }
    for (key, leases) in known.keys.iter().filter(|(_, leases)| leases.len() > 1) {
        diary.broken("doubles", format!("the Idempotency-Key {key} was answered with {leases:?}"));
    }
    for lease in known.revoked.keys().filter(|lease| !ends.contains_key(lease.as_str())) {
        diary.broken("ends without a record", format!("{lease} was revoked with 200"));
    }
    for held in known.kept.iter().filter(|held| !live.contains(held.lease.as_str())) {
        diary.broken("leases that ended before their time", format!("{} of {}", held.lease, held.workload));
    }
    Outcome {
        made: granted.len(),
        removed: ends.len(),
        live: live.len(),
        records: records.len(),
        drift: of_event(&["reconcile.drift"]).count(),
        at_once: at_once(records, diary),
    }
}

/// The most leases that the workload with the quota had at once, in the order of the log.
fn at_once(records: &[Value], diary: &Diary) -> usize {
    let mut records: Vec<&Value> = records.iter().filter(|record| text(record, "workload") == FEW).collect();
    records.sort_by_key(|record| record["seq"].as_u64());
    let (mut held, mut most) = (BTreeSet::new(), 0);
    for record in records {
        let lease = text(record, "lease_id");
        match text(record, "event") {
            "issue.granted" => {
                held.insert(lease);
                if held.len() > MOST {
                    diary.broken("quota breaches", format!("{lease} is one too many: {held:?}"));
                }
            }
            event if ENDS.contains(&event) => drop(held.remove(lease)),
            _ => {}
        }
        most = most.max(held.len());
    }
    most
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(seq: u64, event: &str, lease: &str) -> Value {
        json!({"seq": seq, "event": event, "lease_id": lease, "ephemeral_id": format!("v-{lease}"), "workload": FEW})
    }

    fn good() -> (Vec<Value>, Vec<Value>, Known) {
        let records = vec![
            record(1, "issue.granted", "a"),
            record(2, "issue.granted", "b"),
            record(3, "lease.expired", "a"),
            record(4, "issue.granted", "c"),
            record(5, "issue.granted", "d"),
        ];
        let leases = ["b", "c", "d"].map(|id| json!({"lease_id": id, "state": "active"})).to_vec();
        let disclosed = ["a", "b", "c"].map(|id| (id.to_owned(), format!("v-{id}"))).into();
        (records, leases, Known { disclosed, ..Known::default() })
    }

    /// What is found broken in a log, with what was changed in a good one.
    fn broken(change: impl FnOnce(&mut Vec<Value>, &mut Vec<Value>, &mut Known)) -> Vec<&'static str> {
        let (mut records, mut leases, mut known) = good();
        change(&mut records, &mut leases, &mut known);
        let diary = Diary::new(0);
        let _ = read_the_log(&records, &leases, &known, &diary);
        diary.snapshot().broken.into_keys().collect()
    }

    #[test]
    fn a_good_log_breaks_nothing() {
        let (records, leases, known) = good();
        let diary = Diary::new(0);
        let outcome = read_the_log(&records, &leases, &known, &diary);
        assert!(diary.snapshot().broken.is_empty(), "{:?}", diary.snapshot().broken);
        assert_eq!((outcome.made, outcome.removed, outcome.live, outcome.at_once), (4, 1, 3, 3));
    }

    #[test]
    fn each_fault_of_a_log_is_found() {
        let again = |records: &mut Vec<Value>, event, lease| records.push(record(6, event, lease));
        assert_eq!(broken(|records, _, _| again(records, "issue.granted", "b")), ["doubles"]);
        assert_eq!(broken(|records, _, _| again(records, "lease.revoked", "a")), ["accounts that were removed twice"]);
        assert_eq!(broken(|records, _, _| again(records, "lease.revoked", "b")), ["live leases that have ended"]);
        assert_eq!(broken(|_, leases, _| drop(leases.pop())), ["ends without a record"]);
        let (fourth, with) = (record(6, "issue.granted", "e"), json!({"lease_id": "e", "state": "active"}));
        let too_many = broken(|records, leases, _| {
            records.push(fourth);
            leases.push(with);
        });
        assert_eq!(too_many, ["quota breaches"]);
    }

    #[test]
    fn what_a_client_knows_and_the_log_does_not_is_found() {
        let unrecorded = broken(|_, _, known| drop(known.disclosed.insert("x".into(), "v-x".into())));
        assert_eq!(unrecorded, ["unrecorded secrets"]);
        let other_account = broken(|_, _, known| drop(known.disclosed.insert("b".into(), "v-other".into())));
        assert_eq!(other_account, ["unrecorded secrets"]);
        let twice = broken(|_, _, known| drop(known.keys.insert("key".into(), vec!["b".into(), "c".into()])));
        assert_eq!(twice, ["doubles"]);
        let revoked = broken(|_, _, known| drop(known.revoked.insert("b".into(), FEW.into())));
        assert_eq!(revoked, ["ends without a record"]);
    }

    #[test]
    fn one_account_or_one_key_of_two_leases_is_found() {
        let same_account = broken(|records, _, known| {
            known.disclosed.remove("c");
            records[3]["ephemeral_id"] = "v-b".into();
        });
        assert_eq!(same_account, ["doubles"]);
        let same_key = broken(|records, _, _| {
            records[3]["ticket"] = "key".into();
            records[4]["ticket"] = "key".into();
        });
        assert_eq!(same_key, ["doubles"]);
    }
}
