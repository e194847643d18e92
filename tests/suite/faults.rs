//! Every failpoint of the broker, with every action: the step failed, it failed but took effect,
//! the process was killed in its place, the process was killed right after it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

use jit_tests::world::eventually;
use jit_tests::{Reply, Settings, World};
use serde_json::{Value, json};

/// The broker's own list, from its source: a point that is added there and not here fails
/// [`every_failpoint_is_gone_through`]. Those of rotations are in `rotating.rs`, that of a task's pass in `tasks.rs`.
const SOURCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/failpoint/src/lib.rs"));

const ACTIONS: [&str; 4] = ["fail", "lost", "crash-before", "crash-after"];

/// What passes a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Issue,
    Replay,
    Renew,
    Revoke,
    Expiry,
    Commit,
}

/// One test for each point and each way through it, and the list of what is covered.
macro_rules! points {
    ($($test:ident: $point:literal by $passed:ident;)*) => {
        const COVERED: &[(&str, Passed)] = &[$(($point, Passed::$passed)),*];
        $(
            #[tokio::test]
            async fn $test() {
                match Passed::$passed {
                    Passed::Issue => issue($point).await,
                    Passed::Replay => replay($point).await,
                    Passed::Renew => renew($point).await,
                    Passed::Revoke => revoke($point).await,
                    Passed::Expiry => expiry($point).await,
                    Passed::Commit => commits($point).await,
                }
            }
        )*
    };
}

points! {
    issue_intend: "issue.intend" by Issue;
    issue_create: "issue.create" by Issue;
    issue_settle: "issue.settle" by Issue;
    issue_disclose: "issue.disclose" by Issue;
    replay_rotate: "replay.rotate" by Replay;
    replay_record: "replay.record" by Replay;
    renew_driver: "renew.driver" by Renew;
    renew_record: "renew.record" by Renew;
    revoke_begin: "revoke.begin" by Revoke;
    revoke_driver: "revoke.driver" by Revoke;
    revoke_record: "revoke.record" by Revoke;
    expiry_begin: "revoke.begin" by Expiry;
    expiry_driver: "revoke.driver" by Expiry;
    expiry_record: "revoke.record" by Expiry;
    store_commit: "store.commit" by Commit;
}

#[test]
fn every_failpoint_is_gone_through() {
    let list = SOURCE.split_once("pub const POINTS").unwrap().1.split_once("];").unwrap().0;
    let mut listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    listed.retain(|point| !point.starts_with("rotation.") && *point != "removal.pass");
    let mut covered: Vec<&str> = COVERED.iter().map(|(point, _)| *point).collect();
    listed.sort_unstable();
    covered.sort_unstable();
    covered.dedup();
    assert_eq!(listed, covered, "host/failpoint/src/lib.rs lists what this suite does not go through, or less");
    assert!(listed.len() >= 12);
}

async fn prepared() -> World {
    World::prepared(Settings { failpoints: true, ..Settings::default() }).await
}

/// Starts the broker with a point armed at one of its passes.
async fn start_armed(world: &mut World, point: &str, action: &str, pass: u32) {
    world.start(&[("JIT_FAILPOINTS", &format!("{point}={action}#{pass}"))]).await;
}

/// The request, with the answer that came: none when the process died.
async fn ask(world: &World, key: Option<&str>, body: &Value) -> Option<Reply> {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    match key {
        Some(key) => client.issue_with_key(&token, key, body).await.ok(),
        None => client.issue(&token, body).await.ok(),
    }
}

/// A POST about a lease.
async fn post(world: &World, path: &str, body: &Value) -> Option<Reply> {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    client.post(path, &token, body).await.ok()
}

async fn granted(world: &World, key: Option<&str>, body: &Value) -> Reply {
    let reply = ask(world, key, body).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

fn body(ttl: &str) -> Value {
    json!({"target": "inventory_db", "ttl": ttl})
}

/// The point was passed, or this test tests nothing; after a crash the process is dead by SIGKILL,
/// and is started again, without failpoints, on what it left behind.
async fn aftermath(world: &mut World, point: &str, action: &str, since: usize) {
    if action.starts_with("crash") {
        let status = world.process().wait_for_end(Duration::from_secs(60)).unwrap();
        assert_eq!(status.signal(), Some(9), "{point}={action}: {status}");
    }
    let log = world.process().log();
    let reached = log[since..].lines().any(|line| line.contains("failpoint reached") && line.contains(point));
    assert!(reached, "{point}={action} was never reached");
    if action.starts_with("crash") {
        world.start(&[]).await;
    }
}

fn log_length(world: &World) -> usize {
    std::fs::read_to_string(world.log_path()).map_or(0, |log| log.len())
}

/// Nobody gets a secret from a broken issue. What of it stays is a lease that was on record before
/// the process died: the same Idempotency-Key gets it, and there is no second account either way.
async fn issue(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        let crash = action.starts_with("crash");
        let key = crash.then_some(action);
        let since = log_length(&world);
        start_armed(&mut world, point, action, 1).await;
        let reply = ask(&world, key, &body("1h")).await;
        assert_eq!(reply.is_none(), crash, "{point}={action}: {reply:?}");
        if let Some(reply) = reply {
            let expected = if point == "issue.create" { (504, "target-timeout") } else { (503, "audit-unavailable") };
            assert_eq!((reply.status, reply.code()), expected, "{point}={action}: {}", reply.text);
            assert!(reply.password().is_empty());
        }
        aftermath(&mut world, point, action, since).await;
        world.assert_settled(&disclosed).await;
        let settled = crash && (point == "issue.disclose" || (point, action) == ("issue.settle", "crash-after"));
        let expected = disclosed.len() + usize::from(settled);
        assert_eq!(world.accounts().await.len(), expected, "{point}={action}");

        let next = granted(&world, key, &body("1h")).await;
        world.database.login(next.username(), next.password()).await.unwrap();
        disclosed.push(next.lease().to_owned());
        world.assert_settled(&disclosed).await;
        assert_eq!(world.accounts().await.len(), disclosed.len(), "{point}={action}: a second account");
    }
}

/// After a restart the secret is gone from memory: a retry resets the password. Broken in the
/// middle, the next retry does it again, for the same lease.
async fn replay(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        world.start(&[]).await;
        let first = granted(&world, Some(action), &body("1h")).await;
        disclosed.push(first.lease().to_owned());

        let since = log_length(&world);
        start_armed(&mut world, point, action, 1).await;
        let broken = ask(&world, Some(action), &body("1h")).await;
        assert_eq!(broken.is_none(), action.starts_with("crash"), "{point}={action}: {broken:?}");
        if let Some(reply) = broken {
            let code = if point == "replay.rotate" { "target-unavailable" } else { "audit-unavailable" };
            assert_eq!((reply.status, reply.code()), (503, code), "{point}={action}: {}", reply.text);
        }
        aftermath(&mut world, point, action, since).await;
        world.assert_settled(&disclosed).await;

        let again = granted(&world, Some(action), &body("1h")).await;
        assert_eq!(again.lease(), first.lease(), "{point}={action}");
        assert_eq!(again.username(), first.username());
        world.database.login(again.username(), again.password()).await.unwrap();
        assert!(world.database.login(first.username(), first.password()).await.is_err(), "the reset took the old one");
        assert!(world.records_of(first.lease(), "issue.replayed") >= 1, "{point}={action}: handed out unrecorded");
    }
    assert_eq!(world.accounts().await.len(), ACTIONS.len());
    world.assert_settled(&disclosed).await;
}

/// The expiry moves exactly when that is on record, and the account goes at the expiry that holds.
async fn renew(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        let since = log_length(&world);
        start_armed(&mut world, point, action, 1).await;
        let lease = granted(&world, None, &body("6s")).await;
        let path = format!("/v1/leases/{}/renew", lease.lease());
        let reply = post(&world, &path, &json!({"ttl": "9s"})).await;
        assert_eq!(reply.is_none(), action.starts_with("crash"), "{point}={action}: {reply:?}");
        if let Some(reply) = reply {
            assert_eq!(reply.status, 503, "{point}={action}: {}", reply.text);
        }
        aftermath(&mut world, point, action, since).await;

        let moved = world.lease(lease.lease())["expires_at"] != lease.text_at("/expires_at");
        let took_effect = point == "renew.record" && matches!(action, "lost" | "crash-after");
        assert_eq!(moved, took_effect, "{point}={action}: {}", world.lease(lease.lease()));
        assert_eq!(world.records_of(lease.lease(), "lease.renewed"), usize::from(moved), "{point}={action}");
        disclosed.push(lease.lease().to_owned());
    }
    for lease in &disclosed {
        world.lease_becomes(lease, "revoked").await;
        assert_eq!(world.records_of(lease, "lease.expired"), 1, "{point}");
    }
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
}

/// A revocation that was begun ends, whoever hears what; one that could not be begun can be asked
/// for again.
async fn revoke(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        let since = log_length(&world);
        start_armed(&mut world, point, action, 1).await;
        let lease = granted(&world, None, &body("1h")).await;
        disclosed.push(lease.lease().to_owned());
        let path = format!("/v1/leases/{}/revoke", lease.lease());
        let reply = post(&world, &path, &json!({})).await;
        assert_eq!(reply.is_none(), action.starts_with("crash"), "{point}={action}: {reply:?}");
        if let Some(reply) = reply {
            let expected = if point == "revoke.begin" { 503 } else { 202 };
            assert_eq!(reply.status, expected, "{point}={action}: {}", reply.text);
        }
        aftermath(&mut world, point, action, since).await;
        world.assert_settled(&disclosed).await;

        let not_begun = point == "revoke.begin" && matches!(action, "fail" | "crash-before");
        let state = if not_begun { "active" } else { "revoked" };
        assert_eq!(world.lease(lease.lease())["state"], state, "{point}={action}");
        let again = post(&world, &path, &json!({})).await.unwrap();
        assert_eq!((again.status, again.text_at("/state")), (200, "revoked"), "{point}={action}: {}", again.text);
        assert_eq!(world.accounts().await, Vec::<String>::new(), "{point}={action}");
        assert_eq!(world.records_of(lease.lease(), "lease.revoked"), 1, "{point}={action}");
        assert!(world.database.login(lease.username(), lease.password()).await.is_err());
    }
    world.assert_settled(&disclosed).await;
}

/// The same steps with nobody waiting for an answer.
async fn expiry(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        let since = log_length(&world);
        start_armed(&mut world, point, action, 1).await;
        let lease = granted(&world, None, &body("2s")).await;
        disclosed.push(lease.lease().to_owned());
        if !action.starts_with("crash") {
            world.lease_becomes(lease.lease(), "revoked").await;
        }
        aftermath(&mut world, point, action, since).await;
        world.lease_becomes(lease.lease(), "revoked").await;
        world.assert_settled(&disclosed).await;
        assert_eq!(world.accounts().await, Vec::<String>::new(), "{point}={action}");
        assert_eq!(world.records_of(lease.lease(), "lease.expired"), 1, "{point}={action}");
    }
}

/// Which commit of a short life is broken: the broker's start, a lease's intent, its settlement,
/// the begin of its revocation, the end of it.
const START: u32 = 1;
const INTEND: u32 = 2;
const SETTLE: u32 = 3;
const BEGIN: u32 = 4;
const END: u32 = 5;

async fn commits(point: &str) {
    let mut world = prepared().await;
    let mut disclosed = Vec::new();
    for action in ACTIONS {
        let armed = format!("{point}={action}#{START}");
        world.try_start(&[("JIT_FAILPOINTS", &armed)]).expect_err("nothing is served without the start on record");
        world.start(&[]).await;
        world.assert_settled(&disclosed).await;
        for pass in [INTEND, SETTLE, BEGIN, END] {
            let since = log_length(&world);
            start_armed(&mut world, point, action, pass).await;
            let issued = ask(&world, None, &body("1h")).await;
            let mut lease = None;
            if pass <= SETTLE {
                assert_eq!(issued.is_none(), action.starts_with("crash"), "#{pass} {action}: {issued:?}");
                if let Some(reply) = issued {
                    assert_eq!((reply.status, reply.code()), (503, "audit-unavailable"), "#{pass} {action}");
                }
            } else {
                let issued = issued.unwrap();
                assert_eq!(issued.status, 201, "#{pass} {action}: {}", issued.text);
                disclosed.push(issued.lease().to_owned());
                let reply = post(&world, &format!("/v1/leases/{}/revoke", issued.lease()), &json!({})).await;
                assert_eq!(reply.is_none(), action.starts_with("crash"), "#{pass} {action}: {reply:?}");
                if let Some(reply) = reply {
                    let expected = if pass == BEGIN { 503 } else { 202 };
                    assert_eq!(reply.status, expected, "#{pass} {action}: {}", reply.text);
                }
                lease = Some(issued.lease().to_owned());
            }
            aftermath(&mut world, point, action, since).await;
            world.assert_settled(&disclosed).await;
            if let Some(lease) = lease {
                let again = post(&world, &format!("/v1/leases/{lease}/revoke"), &json!({})).await.unwrap();
                assert_eq!(again.status, 200, "#{pass} {action}: {}", again.text);
                assert_eq!(world.records_of(&lease, "lease.revoked"), 1, "#{pass} {action}");
            }
            // Settled and on record before the process died: it is there until it ends or is asked for.
            let settled = usize::from((pass, action) == (SETTLE, "crash-after"));
            assert_eq!(world.accounts().await.len(), settled, "#{pass} {action}");
            for lease in world.leases().iter().filter(|lease| lease["state"] == "active") {
                let done = world.cli(&["lease", "revoke", lease["lease_id"].as_str().unwrap()]);
                assert!(done.status.success());
            }
        }
    }
}

/// The disk is full: nothing is handed out, and nothing is left of what was tried, neither once
/// there is room again nor after a kill.
#[tokio::test]
async fn a_full_disk_hands_out_nothing_and_leaves_nothing() {
    let mut world = World::prepared(Settings::default()).await;
    // Without SIGXFSZ a write past the limit fails as one to a full disk does.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(world.binary());
    world.try_start_by(command, &[]).unwrap();
    let mut disclosed = vec![granted(&world, None, &body("1h")).await.lease().to_owned()];
    let full = |world: &mut World, limit: &str| {
        let pid = world.process().pid().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}")]).status();
        assert!(set.unwrap().success());
    };

    full(&mut world, "1:unlimited");
    for _ in 0..3 {
        let reply = ask(&world, None, &body("1h")).await.unwrap();
        assert_eq!((reply.status, reply.code()), (503, "audit-unavailable"), "{}", reply.text);
        assert!(reply.headers.contains_key("retry-after"));
        assert!(reply.password().is_empty());
    }
    let live = world.client().raw().get(format!("{}/livez", world.client().broker)).send().await.unwrap();
    assert_eq!(live.status(), 200);

    full(&mut world, "unlimited:unlimited");
    disclosed.push(granted_at_last(&world).await);
    world.assert_settled(&disclosed).await;

    full(&mut world, "1:unlimited");
    let reply = ask(&world, None, &body("1h")).await.unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text);
    world.process().kill().unwrap();
    world.start(&[]).await;
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await.len(), disclosed.len());
}

async fn granted_at_last(world: &World) -> String {
    let begun = std::time::Instant::now();
    loop {
        let reply = ask(world, None, &body("1h")).await.unwrap();
        if reply.status == 201 {
            return reply.lease().to_owned();
        }
        assert_eq!(reply.status, 503, "{}", reply.text);
        assert!(begun.elapsed() < Duration::from_secs(60), "the store never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A store that cannot be written keeps nobody's access alive: the driver is called all the same, and the end is
/// on record once the store is back.
#[tokio::test]
async fn an_expired_account_goes_while_nothing_can_be_recorded() {
    let mut world = prepared().await;
    world.start(&[("JIT_FAILPOINTS", "revoke.begin=fail")]).await;
    let lease = granted(&world, None, &body("2s")).await;
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    assert_eq!(world.lease(lease.lease())["state"], "active", "the store could not be told");
    assert_eq!(world.records_of(lease.lease(), "lease.expired"), 0);
    world.start(&[]).await;
    world.lease_becomes(lease.lease(), "revoked").await;
    assert_eq!(world.records_of(lease.lease(), "lease.expired"), 1);
    world.assert_settled(&[lease.lease().to_owned()]).await;
}
