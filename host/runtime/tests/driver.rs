//! Drivers without a backend: outcomes, limits, checked answers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;

use std::time::Duration;

use fixtures::{Bench, account, bench, bench_with, role, scope, target};
use jit_core::driver::{Issued, RotationStep};
use jit_core::outcome::{Outcome, Refusal};
use jit_core::secret::generate_password;
use jit_runtime::{DriverPlugin, DriverScope, Limits};

async fn create(driver: &DriverPlugin, config: &str) -> Outcome<Issued> {
    driver.create(&scope(), &target(config), &role("{}"), &account(), &generate_password()).await
}

/// The plugin's own doing, with nothing sent to a backend.
fn plugin_fault<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Outcome::Refused(Refusal::Plugin(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The futures of calls cross threads.
#[allow(dead_code, reason = "compiled, not run")]
fn calls_are_send(driver: DriverPlugin, scope: DriverScope) {
    fn is_send<T: Send>(_: T) {}
    let (target, role, account, password) = (target("{}"), role("{}"), account(), generate_password());
    is_send(async move {
        let _ = driver.create(&scope, &target, &role, &account, &password).await;
        let _ = driver.validate(&scope, &target, &[]).await;
        let _ = driver.list_accounts(&scope, &target, "v-", None).await;
    });
}

#[tokio::test]
async fn a_driver_that_does_nothing_does_it_well() {
    let bench = bench();
    let driver = bench.driver("driver-noop");
    let (target, role, account) = (target("{}"), role("{}"), account());
    let password = generate_password();
    for _ in 0..100 {
        assert!(matches!(driver.validate(&scope(), &target, std::slice::from_ref(&role)).await, Outcome::Done(())));
        assert!(matches!(driver.create(&scope(), &target, &role, &account, &password).await, Outcome::Done(_)));
        assert_eq!(driver.renew(&scope(), &target, &role, &account).await, Outcome::Done(account.expires_at));
        let rotated = driver.rotate(&scope(), &target, &account, RotationStep::Stage, Some(&password)).await;
        assert_eq!(rotated, Outcome::Done(()));
        assert_eq!(driver.revoke(&scope(), &target, &account).await, Outcome::Done(()));
        let inspected = driver.inspect(&scope(), &target, account.name.as_str()).await;
        assert_eq!(inspected, Outcome::Refused(Refusal::NotFound));
        assert!(
            matches!(driver.list_accounts(&scope(), &target, "v-", None).await, Outcome::Done(page) if page.names.is_empty())
        );
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn each_error_of_the_contract_has_its_outcome() {
    let bench = bench();
    let driver = bench.driver("driver-scripted");
    let text = || "as configured".to_owned();
    for (end, refusal) in [
        ("refused", Refusal::Target(text())),
        ("retryable", Refusal::Unavailable { reason: text(), answered: false, after_ms: Some(1) }),
        ("conflict", Refusal::Conflict(text())),
        ("not-found", Refusal::NotFound),
        ("dependents", Refusal::Dependents(vec![text()])),
        // Nothing was sent to a backend, so nothing can have happened there.
        ("other", Refusal::Target(text())),
    ] {
        match create(&driver, &format!(r#"{{"create":"{end}"}}"#)).await {
            Outcome::Refused(actual) => assert_eq!(actual, refusal, "{end}"),
            other => panic!("{end}: {other:?}"),
        }
    }
    assert!(matches!(create(&driver, r#"{"create":"unknown"}"#).await, Outcome::Unknown(t) if t == "as configured"));
    // A verb that only reads has no unknown outcome.
    let listed = driver.list_accounts(&scope(), &target(r#"{"list":"unknown"}"#), "v-", None).await;
    assert!(matches!(listed, Outcome::Refused(Refusal::Unavailable { .. })), "{listed:?}");
    let revoked = driver.revoke(&scope(), &target(r#"{"revoke":"not-found"}"#), &account()).await;
    assert_eq!(revoked, Outcome::Done(()));
    let wrong = create(&driver, r#"{"no_such_setting":1}"#).await;
    assert!(matches!(wrong, Outcome::Refused(Refusal::Configuration(_))), "{wrong:?}");
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn traps_loops_and_floods_are_faults_by_name() {
    let bench = bench();
    let driver = bench.driver("driver-scripted");
    let trap = plugin_fault(create(&driver, r#"{"create":"trap"}"#).await);
    assert!(trap.starts_with("plugin driver-scripted trapped"), "{trap}");
    let endless = plugin_fault(create(&driver, r#"{"create":"loop"}"#).await);
    assert_eq!(endless, "plugin driver-scripted exceeded 500 ms of guest time");
    let huge = plugin_fault(create(&driver, r#"{"create":"huge"}"#).await);
    assert!(huge.contains("bytes of"), "{huge}");
    // All of them were fresh instances; the next call is not harmed.
    assert!(matches!(create(&driver, "{}").await, Outcome::Done(_)));
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn memory_is_bounded_for_drivers_too() {
    let limits = Limits { memory_bytes: 4 << 20, driver_time: Duration::from_secs(20), ..Limits::default() };
    let driver = bench_with(limits, 1).driver("driver-scripted");
    let fault = plugin_fault(create(&driver, r#"{"create":"huge"}"#).await);
    assert_eq!(fault, format!("plugin driver-scripted exceeded {} bytes of memory", 4 << 20));
    assert!(matches!(create(&driver, "{}").await, Outcome::Done(_)));
}

#[tokio::test]
async fn the_deadline_of_a_call_ends_it_before_its_guest_time_does() {
    let limits = Limits { driver_time: Duration::from_secs(600), ..Limits::default() };
    let bench = bench_with(limits, 1);
    let driver = bench.driver("driver-scripted");
    let scope = DriverScope { deadline: Duration::from_millis(100), ..scope() };
    let config = target(r#"{"create":"loop"}"#);
    let outcome = driver.create(&scope, &config, &role("{}"), &account(), &generate_password()).await;
    let Outcome::Refused(Refusal::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "plugin driver-scripted did not finish within 100 ms, its calls to the backend included");
    // Its slot is free again.
    assert!(matches!(create(&driver, "{}").await, Outcome::Done(_)));
}

#[tokio::test]
async fn a_loop_does_not_hold_up_the_executor() {
    // One thread: were the loop not to give way, nothing else would run until it is stopped.
    let bench = bench();
    let (spinning, quick) = (bench.driver("driver-scripted"), bench.driver("driver-noop"));
    let looping = tokio::spawn(async move { create(&spinning, r#"{"create":"loop"}"#).await });
    let loop_state = looping.abort_handle();
    // A task like the loop's own: the test's own future is polled more rarely than tasks are.
    let finished_during_loop = tokio::spawn(async move {
        tokio::task::yield_now().await;
        assert!(matches!(create(&quick, "{}").await, Outcome::Done(_)));
        !loop_state.is_finished()
    });
    assert!(finished_during_loop.await.unwrap());
    plugin_fault(looping.await.unwrap());
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_slot_back() {
    let bench = bench_with(Limits::default(), 1);
    let driver = bench.driver("driver-scripted");
    for _ in 0..20 {
        let (config, role, account, password) =
            (target(r#"{"create":"loop"}"#), role("{}"), account(), generate_password());
        let scope = scope();
        let call = driver.create(&scope, &config, &role, &account, &password);
        assert!(tokio::time::timeout(Duration::from_millis(12), call).await.is_err());
    }
    assert!(matches!(create(&driver, "{}").await, Outcome::Done(_)));
}

#[tokio::test]
async fn more_calls_than_slots_wait_for_their_turn() {
    let bench = bench_with(Limits::default(), 2);
    let driver = bench.driver("driver-noop");
    let calls = (0..64).map(|_| {
        let driver = driver.clone();
        tokio::spawn(async move { create(&driver, "{}").await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(matches!(call.await.unwrap(), Outcome::Done(_)));
    }
}

async fn hostile_create(bench: &Bench, mode: &str) -> String {
    plugin_fault(create(&bench.driver("driver-hostile"), &format!(r#"{{"mode":"{mode}"}}"#)).await)
}

#[tokio::test]
async fn what_creation_gives_is_checked() {
    let bench = bench();
    for (mode, word) in
        [("hostile-username", "user name"), ("far-expiry", "expiry"), ("hostile-external-id", "external-id")]
    {
        let fault = hostile_create(&bench, mode).await;
        assert!(fault.contains("an answer that cannot be used") && fault.contains(word), "{mode}: {fault}");
    }
    let huge = hostile_create(&bench, "huge-properties").await;
    assert!(huge.contains("exceeded") || huge.contains("at most 32"), "{huge}");
    let wrong = create(&bench.driver("driver-scripted"), r#"{"create":"wrong-name"}"#).await;
    assert!(plugin_fault(wrong).contains("another user name than the host chose"));
}

#[tokio::test]
async fn what_renewal_inspection_and_lists_give_is_checked() {
    let bench = bench();
    let driver = bench.driver("driver-hostile");
    let config = |mode: &str| target(&format!(r#"{{"mode":"{mode}"}}"#));
    let account = account();

    let far = driver.renew(&scope(), &config("renew-far"), &role("{}"), &account).await;
    assert!(plugin_fault(far).contains("expiry"));
    // Shorter than asked for is the backend's to say; the pipeline sees that it is over.
    let past = driver.renew(&scope(), &config("renew-past"), &role("{}"), &account).await;
    assert_eq!(past, Outcome::Done(1));

    let huge = driver.inspect(&scope(), &config("inspect-huge"), account.name.as_str()).await;
    plugin_fault(huge);

    for mode in ["list-quotes", "list-other-prefix", "list-huge"] {
        let page = driver.list_accounts(&scope(), &config(mode), "v-", None).await;
        plugin_fault(page);
    }
    let first = driver.list_accounts(&scope(), &config("list-endless"), "v-", None).await;
    let Outcome::Done(first) = first else { panic!("{first:?}") };
    assert_eq!(first.next.as_deref(), Some("on"));
    let second = driver.list_accounts(&scope(), &config("list-endless"), "v-", Some("on")).await;
    assert!(plugin_fault(second).contains("never end"));
}

#[tokio::test]
async fn a_statement_without_a_connection_is_denied() {
    let bench = bench();
    let config = r#"{"mode":"endless-execute"}"#;
    let outcome = create(&bench.driver("driver-hostile"), config).await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
    assert!(refusal.reason().contains("no SQL connection"), "{refusal:?}");
}

#[tokio::test]
async fn handles_are_bounded() {
    let none = bench_with(Limits { resources: 0, ..Limits::default() }, 1);
    let fault = plugin_fault(create(&none.driver("driver-noop"), "{}").await);
    assert_eq!(fault, "plugin driver-noop exceeded 0 handles");
    let one = bench_with(Limits { resources: 1, ..Limits::default() }, 1);
    assert!(matches!(create(&one.driver("driver-noop"), "{}").await, Outcome::Done(_)));
    assert_eq!(one.runtime.handles_left_behind(), 0);
}
