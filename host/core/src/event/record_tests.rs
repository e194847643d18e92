//! The records of each kind, byte for byte: names, types and their order are what a collector reads and what the
//! log's hashes are over. One file for each kind, one line for each shape that its records have. `UPDATE_EXPECT=1` writes
//! the files again; the difference is then for a reviewer to see.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jit_api::problem::ProblemCode;

use super::*;
use crate::account::AccountName;
use crate::lease::{CallersVerifier, Cause, DriverRef, Idempotency, VerifierKind};
use crate::place::Place;
use crate::policy::{ContextOutcome, ContextRecord, Mode};
use crate::rotation::Generation;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn sha256(digit: &str) -> String {
    digit.repeat(64)
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(Into::into).to_vec()
}

/// A lease whose ids and account are not random.
fn lease() -> Lease {
    let id = "01mcc5rm007y8jmj4mjhctqawh";
    Lease {
        id: format!("lease_{id}").parse().unwrap(),
        request_id: serde_json::from_value(format!("req_{id}").into()).unwrap(),
        account: AccountName::from_backend("v-payment-service-hndwh46acy96u262"),
        ..crate::lease::tests::example()
    }
}

/// A lease of which all is known that may be.
fn full_lease() -> Lease {
    let place = Place::new(Some("postgres://db:5432".into()), vec![("server".into(), "7412".into())]);
    let plain = lease();
    Lease {
        username: Some("v-token-x".into()),
        external_id: Some("lease/1".into()),
        standing: true,
        driver: DriverRef {
            connection: Some("shop".into()),
            name: Some("postgres".into()),
            config: Some("{}".into()),
            place: Some(place),
            ..plain.driver.clone()
        },
        idempotency: Some(Idempotency { key: sha256("1"), body: sha256("2") }),
        verifier: Some(CallersVerifier { kind: VerifierKind::ScramSha256, digest: sha256("3"), takes_over: None }),
        ..plain
    }
}

/// The least that a decision says.
fn brief() -> Decided {
    let input = Box::new(crate::policy::tests::request());
    Decided { input, labels: BTreeMap::new(), contexts: Vec::new(), narrowed: None }
}

/// All that a decision may say.
fn decided() -> Decided {
    let context = ContextRecord {
        name: "oncall".into(),
        outcome: ContextOutcome::Asked,
        error: None,
        failed_open: false,
        plugin_sha256: sha256("c"),
        micros: 7,
    };
    let mut input = Box::new(crate::policy::tests::request());
    input.caller_address = Some([192, 0, 2, 7].into());
    input.resource.insert(crate::policy::LEASE.into(), "lease_1".into());
    Decided {
        input,
        labels: BTreeMap::from([("team".into(), "shop".into())]),
        contexts: vec![context],
        narrowed: Some(Narrowed { narrowed_to: "app_read_only".into(), narrowed_by: texts(["narrow"]) }),
    }
}

fn account(generation: Option<u64>, record: Option<u64>) -> RotatingAccount {
    RotatingAccount { connection: "shop".into(), generation: generation.map(Generation::from_number), record }
}

fn plugin(signed_by: Vec<String>) -> PluginServed {
    PluginServed {
        plugin: "postgres".into(),
        kind: "driver".into(),
        plugin_sha256: sha256("d"),
        grants: texts(["log", "sql"]),
        signed_by,
    }
}

fn braked(leases_without_account: usize) -> Braked {
    Braked { accounts: 2, named: texts(["v-a", "v-b"]), leases_without_account }
}

fn denied(by: DeniedBy) -> Denied {
    Denied { by: Some(by), ..Denied::default() }
}

fn ends() -> [Ended; 2] {
    let plain = Ended { cause: Cause::Expired, account_removed: true, account_removed_at: None, closed_because: None };
    let full = Ended {
        account_removed: false,
        account_removed_at: Some(at(-5)),
        closed_because: Some("the account has expired"),
        ..plain.clone()
    };
    [plain, full]
}

fn of_lease(event: Event) -> AuditEvent {
    AuditEvent::of_lease(event, at(0), &lease())
}

/// Of a workload in Kubernetes, which said why it asks.
fn of_pod(event: Event) -> AuditEvent {
    let attributes = [("k8s_namespace", "shop"), ("k8s_pod", "payment-7d9f"), ("env", "prod")];
    let lease = Lease {
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        reason: Some("a deploy of \"payment\" <2>".into()),
        ticket: Some("OPS-4711".into()),
        ..lease()
    };
    AuditEvent::of_lease(event, at(0), &lease)
}

fn plain(event: Event) -> AuditEvent {
    AuditEvent::new(event, at(0))
}

fn with_policies(mut event: AuditEvent) -> AuditEvent {
    event.policies = vec![PolicyRecord::unanswered("quota", Mode::Enforce)];
    event
}

fn of_account(event: Event) -> AuditEvent {
    AuditEvent {
        target_db: Some("inventory_db".into()),
        role: Some("app_admin".into()),
        ephemeral_id: Some("app".into()),
        driver_sha256: Some(sha256("d")),
        ..plain(event)
    }
}

fn operator() -> Operator {
    Operator { uid: 0, pid: Some(4_242) }
}

/// Every shape of every kind of record.
fn examples() -> Vec<AuditEvent> {
    let no_process = Operator { uid: 1_000, pid: None };
    let asked = |at_once| RotationAsked { account: account(Some(3), Some(8)), at_once };
    let rotated = |previous, next_rotation_at| {
        let account = account(Some(3), Some(7));
        of_account(Event::AccountRotated(Rotated { account, previous, next_rotation_at }))
    };
    let reset = |password_reset, decision| Replayed::Own { password_reset, decision };
    let rejected = |plugin: Option<&str>, plugin_sha256| PluginRejected {
        trigger: "start",
        plugin: plugin.map(Into::into),
        plugin_sha256,
    };
    let reloaded = Reloaded {
        trigger: "admin",
        targets_added: texts(["orders_db"]),
        targets_removed: Vec::new(),
        needs_restart: texts(["store"]),
        orphans: Vec::new(),
    };
    let jump = |what, seconds| plain(Event::ClockJumped(ClockJump { what, seconds }));
    let process = Process { version: "0.1.0", account_mark: None };
    let started = Process { account_mark: Some("AbCd".into()), ..process.clone() };
    let rest = || LeaseRest::of(&lease());
    let counted = CountedDenials { count: 12, since: at(-60), input_sha256: Some(sha256("e")) };
    let policy = || DeniedBy::Policy("quota".into());
    let full = || Some(Basis::Decision(decided()));
    let many = |counted| Some(Basis::Counted(counted));
    let mut examples = vec![
        with_policies(of_lease(Event::IssueGranted(Granted {
            decision: brief(),
            generation: None,
            verifier: None,
            lease: rest(),
        }))),
        with_policies(of_lease(Event::IssueGranted(Granted {
            decision: decided(),
            generation: Some(Generation::from_number(3)),
            verifier: None,
            lease: LeaseRest::of(&full_lease()),
        }))),
        with_policies(of_pod(Event::IssueGranted(Granted {
            decision: brief(),
            generation: None,
            verifier: Some(VerifierKind::ScramSha256),
            lease: rest(),
        }))),
        plain(Event::IssueDenied(denied(DeniedBy::Code(ProblemCode::RoleNotAllowed)))).with_error("no"),
        with_policies(plain(Event::IssueDenied(Denied { basis: full(), ..denied(policy()) }))).with_error("no"),
        plain(Event::IssueDenied(Denied { basis: many(counted.clone()), ..denied(policy()) })).with_error("no"),
        plain(Event::IssueDenied(Denied {
            basis: many(CountedDenials { input_sha256: None, ..counted.clone() }),
            ..denied(DeniedBy::Code(ProblemCode::UnknownTarget))
        })),
        of_lease(Event::IssueDenied(Denied::default())).with_error("elsewhere"),
        with_policies(of_lease(Event::IssueFailed(Failed { decision: Some(decided()), cause: None })))
            .with_error("refused"),
        of_lease(Event::IssueFailed(Failed { decision: None, cause: Some(Cause::NotAudited) })),
        of_lease(Event::IssueReplayed(reset(false, None))),
        with_policies(of_lease(Event::IssueReplayed(reset(true, Some(decided()))))),
        of_lease(Event::IssueReplayed(Replayed::Rotating { generation: Generation::from_number(3) })),
        with_policies(of_lease(Event::LeaseRenewed(decided()))),
        with_policies(plain(Event::RenewDenied(Denied { basis: full(), ..denied(policy()) }))).with_error("no"),
        of_lease(Event::RenewDenied(Denied::default())).with_error("moved"),
        of_lease(Event::LeaseDoubtful(Doubtful { cause: None, lease: rest() })).with_error("no answer"),
        of_lease(Event::LeaseDoubtful(Doubtful { cause: Some(Cause::Doubtful), lease: rest() })),
        of_lease(Event::RevokeFailed(Attempted { attempts: 2 })).with_error("down"),
        of_lease(Event::WrongPlace(Attempted { attempts: 1 })).with_error("elsewhere"),
        plain(Event::RemovalBraked(braked(1))).with_error("too many"),
        plain(Event::RemovalConfirmed(braked(0))),
        plain(Event::RemovalConfirmed(braked(1))),
        jump(Jump::Jumped, Some(-3_600)),
        jump(Jump::Back, None),
        jump(Jump::Taken, Some(3_600)),
        jump(Jump::Confirmed, Some(-3_600)).by(operator()),
        of_lease(Event::Drift(Plain {})).with_error("the account is missing"),
        rotated(PreviousPassword::Overlaps { previous_valid_until: at(60), asked: false }, Some(at(3_600))),
        rotated(PreviousPassword::Replaced { at_once: true }, None),
        of_account(Event::AccountTampered(account(Some(3), Some(8)))).with_error("somebody else changed it"),
        of_account(Event::OverlapEnded(account(Some(3), Some(9)))),
        of_account(Event::RotationFailed(RotationFailed { account: account(None, None), attempts: 4 }))
            .with_error("down"),
        with_policies(plain(Event::ShadowDiff(ShadowDiff {
            basis: Basis::Decision(decided()),
            policy: "quota".into(),
        })))
        .with_error("no"),
        plain(Event::ShadowDiff(ShadowDiff { basis: Basis::Counted(counted), policy: "quota".into() })),
        plain(Event::PluginLoaded(plugin(Vec::new()))),
        plain(Event::PluginLoaded(plugin(texts(["release+12ab34cd"])))).by(operator()),
        plain(Event::PluginUnloaded(plugin(texts(["release+12ab34cd"])))),
        plain(Event::PluginRejected(rejected(None, None))).with_error("not there"),
        plain(Event::PluginRejected(rejected(Some("postgres"), Some(sha256("d"))))).with_error("not signed"),
        plain(Event::ConfigReloaded(Reloaded { trigger: "signal", ..reloaded.clone() })),
        plain(Event::ConfigReloaded(reloaded)).by(operator()),
        of_lease(Event::AdminRevoke(Plain {})).by(operator()),
        plain(Event::AdminReconcile(ReconcileAsked { dry_run: false, confirm: true })).by(no_process),
        of_account(Event::AdminRotate(asked(false))).by(operator()),
        of_account(Event::AdminRotate(asked(true))).by(operator()),
        plain(Event::AdminArchive(ArchiveAsked { keep: None })),
        plain(Event::AdminArchive(ArchiveAsked { keep: Some("30d".into()) })),
        plain(Event::LogArchived(Archived {
            from: 0,
            to: 10_000,
            root: sha256("a"),
            file: "archive/0-10000.jsonl".into(),
        })),
        plain(Event::BrokerStarted(started)),
        plain(Event::BrokerStopped(process)),
        plain(Event::BrokerFenced(FencedBroker { broker: "process 7 on host-a".into() })),
    ];
    for end in ends() {
        examples.push(of_lease(Event::LeaseRevoked(Ended { cause: Cause::Requested, ..end.clone() })));
        examples.push(of_lease(Event::LeaseExpired(end.clone())));
        examples.push(of_lease(Event::GhostRemoved(Ended { cause: Cause::Ghost, ..end })));
    }
    examples
}

#[test]
fn each_kind_of_record_is_what_it_was() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/event/records");
    let mut records: BTreeMap<&str, String> = BTreeMap::new();
    for event in examples() {
        // Every release has another version there, and nothing else of it.
        let record = serde_json::to_string(&event).unwrap().replace(ISSUED_BY, "ISSUED_BY");
        let lines = records.entry(event.event.word()).or_default();
        lines.push_str(&record);
        lines.push('\n');
    }
    for word in Event::WORDS {
        let file = folder.join(format!("{word}.jsonl"));
        let records = records.get(word).unwrap_or_else(|| panic!("{word} has no example"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, records).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(*records, expected, "{}", file.display());
    }
}
