use super::*;
use crate::account::{AccountPrefix, Mark};

pub(crate) fn example() -> Lease {
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    Lease {
        id: LeaseId::generate(now),
        version: 0,
        state: LeaseState::Pending,
        principal: Principal {
            issuer: "cluster".into(),
            workload: "payment-service".into(),
            subject: "system:serviceaccount:shop:payment-service".into(),
        },
        attributes: BTreeMap::new(),
        target: TargetName::new("inventory_db").unwrap(),
        role: RoleName::new("app_read_only").unwrap(),
        account: AccountPrefix::default().generate(&Mark::generate(), "payment-service", 63),
        username: None,
        external_id: None,
        standing: false,
        driver: DriverRef {
            plugin: "postgres".into(),
            connection: None,
            sha256: "00".into(),
            name: None,
            config: None,
            place: None,
        },
        request_id: RequestId::generate(now),
        issued_at: now,
        term_start: now,
        expires_at: now + Duration::from_secs(1_800),
        max_expires_at: now + Duration::from_secs(3_600),
        renewable: true,
        reason: None,
        ticket: None,
        metadata: BTreeMap::new(),
        idempotency: None,
        removal: None,
        verifier: None,
        rotating: None,
    }
}

#[test]
fn lives_and_ends() {
    let pending = example();
    let active = pending.settle(None, pending.expires_at).unwrap();
    let revoking = active.begin_revocation(Cause::Requested, active.issued_at).unwrap();
    let revoked = revoking.removed().unwrap();
    assert_eq!(revoked.state, LeaseState::Revoked);
    assert_eq!(revoked.version, 3);
    assert_eq!(revoked.due_at(), None);
}

#[test]
fn no_step_leaves_the_diagram() {
    let pending = example();
    let now = pending.issued_at;
    let active = pending.settle(None, pending.expires_at).unwrap();
    let revoking = active.begin_revocation(Cause::Expired, now).unwrap();
    let doubtful = pending.doubt(Cause::Doubtful, now).unwrap();
    let revoked = revoking.removed().unwrap();
    for lease in [&active, &revoking, &doubtful, &revoked] {
        assert!(lease.settle(None, now).is_err());
        assert!(lease.refuse(now, String::new()).is_err());
        assert!(lease.doubt(Cause::Doubtful, now).is_err());
    }
    for lease in [&pending, &revoking, &doubtful, &revoked] {
        assert!(lease.begin_revocation(Cause::Expired, now).is_err());
        assert!(lease.renew(now, lease.max_expires_at).is_err());
    }
    for lease in [&pending, &active, &revoked] {
        assert!(lease.removed().is_err());
        assert!(lease.removal_failed(String::new(), now).is_err());
    }
}

#[test]
fn renewal_never_passes_the_cap_and_never_shortens() {
    let pending = example();
    let active = pending.settle(None, pending.expires_at).unwrap();
    let far = active.renew(active.issued_at, active.max_expires_at + Duration::from_secs(9_999)).unwrap();
    assert_eq!(far.expires_at, far.max_expires_at);
    let near = active.renew(active.issued_at, active.issued_at).unwrap();
    assert_eq!(near.expires_at, active.expires_at);
}

#[test]
fn an_account_that_the_backend_named_goes_by_that_name() {
    let lease = example();
    let own = lease.clone().with_account(Some(lease.account.to_string()), None);
    assert_eq!((own.login(), &own.username), (lease.account.as_str(), &None));
    let theirs = lease.with_account(Some("v-root-abc".into()), Some("creds/a/1".into()));
    assert_eq!(theirs.login(), "v-root-abc");
    let later = theirs.with_account(Some("other".into()), Some("creds/a/2".into()));
    assert_eq!((later.login(), later.external_id.as_deref()), ("v-root-abc", Some("creds/a/1")));
}

#[test]
fn a_lease_of_an_earlier_release_can_be_read() {
    let mut json = serde_json::to_value(example()).unwrap();
    for key in ["username", "standing"] {
        assert!(json.as_object_mut().unwrap().remove(key).is_none(), "{key} is written only when it says something");
    }
    assert!(!json["driver"].as_object().unwrap().contains_key("config"));
    let read: Lease = serde_json::from_value(json).unwrap();
    assert_eq!((read.username.as_ref(), read.standing, read.driver.name.as_ref()), (None, false, None));
}

#[test]
fn another_driver_under_the_same_name_is_another_maker() {
    let made_by = DriverRef { name: Some("driver-vault".into()), ..example().driver };
    assert!(made_by.same_maker(&DriverRef { sha256: "01".into(), config: Some("{}".into()), ..made_by.clone() }));
    assert!(made_by.same_maker(&DriverRef { name: None, ..made_by.clone() }), "an earlier release did not say");
    assert!(!made_by.same_maker(&DriverRef { name: Some("driver-postgres".into()), ..made_by.clone() }));
    assert!(!made_by.same_maker(&DriverRef { connection: Some("other".into()), ..made_by.clone() }));
}

#[test]
fn a_clock_that_is_set_back_makes_no_lease_longer() {
    let active = example().settle(None, example().expires_at).unwrap();
    let moved = active.moved(SignedDuration::from_secs(-7_200));
    assert_eq!((moved.ttl(), moved.version), (active.ttl(), active.version + 1));
    assert_eq!(moved.expires_at + Duration::from_secs(7_200), active.expires_at);
    let doubtful = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
    let due = doubtful.moved(SignedDuration::from_secs(-7_200)).due_at().unwrap();
    assert_eq!(due + Duration::from_secs(7_200), doubtful.due_at().unwrap());
}

#[test]
fn waiting_is_no_failed_attempt() {
    let doubtful = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
    let then = doubtful.issued_at + Duration::from_secs(60);
    let waiting = doubtful.removal_waits("not yet".into(), doubtful.issued_at, then).unwrap();
    let removal = waiting.removal.as_ref().unwrap();
    assert_eq!((removal.attempts, waiting.due_at()), (0, Some(then)));
    let past = doubtful.removal_waits("not yet".into(), then, doubtful.issued_at).unwrap();
    assert!(past.due_at() > Some(then), "it does not spin");
}

#[test]
fn removal_is_tried_for_ever_at_a_bounded_pace() {
    let mut lease = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
    let mut now = lease.issued_at;
    for _ in 0..10_000 {
        lease = lease.removal_failed("down".into(), now).unwrap();
        let next = lease.due_at().unwrap();
        assert!(next > now && next <= now + Removal::CAP);
        now = next;
    }
    assert_eq!(lease.removal.as_ref().unwrap().attempts, 10_000);
}

#[test]
fn what_only_a_person_can_mend_is_tried_less_and_less_often_but_for_ever() {
    let mut lease = example().doubt(Cause::Doubtful, example().issued_at).unwrap();
    let mut now = lease.issued_at;
    let mut last = Duration::ZERO;
    for _ in 0..100 {
        lease = lease.removal_held("a view".into(), now).unwrap();
        let next = lease.due_at().unwrap();
        let wait = Duration::try_from(next.duration_since(now)).unwrap();
        assert!(wait >= last && wait <= Removal::HELD_CAP);
        (last, now) = (wait, next);
    }
    assert_eq!(last, Removal::HELD_CAP);
    assert!(lease.removal.as_ref().unwrap().held);
    let away = lease.removal_failed("down".into(), now).unwrap();
    assert!(!away.removal.as_ref().unwrap().held && away.due_at() <= Some(now + Removal::CAP));
}
