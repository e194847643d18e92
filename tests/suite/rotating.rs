//! Rotating accounts, on a real MySQL server: who holds a password is not locked out, whatever fails.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use jiff::Timestamp;
use jit_tests::kit::mysql::{Administered, Server};
use jit_tests::mysql_world::{MysqlWorld, Times};
use serde_json::json;
use sqlx::Executor as _;

/// The broker's own list, from its source.
const SOURCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../host/failpoint/src/lib.rs"));

/// Nothing rotates by itself while the test runs.
const SLOW: Times = Times { period: "1h", overlap: "10m" };
/// Rotations within the test; the overlap is long enough to see both passwords work.
const QUICK: Times = Times { period: "8s", overlap: "3s" };
/// An overlap that ends soon; rotations are asked for.
const BRIEF: Times = Times { period: "1h", overlap: "2s" };

async fn world(times: Times) -> MysqlWorld {
    let mut world = MysqlWorld::prepared(times).await;
    world.start(&[]);
    world
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now(world: &MysqlWorld) -> std::process::Output {
    world.cli(&["rotation", "now", "shop_db", "app", "--format", "json"])
}

#[tokio::test]
async fn everybody_gets_the_same_password_within_a_period() {
    let world = world(SLOW).await;
    // Earlier than the first rotation: it is waited for.
    let first = world.granted().await;
    assert_eq!(first.username(), world.account);
    assert!(world.login(&world.first_password).await, "what was there before works for an overlap");
    assert!(!first.text_at("/previous_valid_until").is_empty(), "{}", first.text);
    assert_eq!(first.json["renewable"], false);
    assert_eq!(first.json["revocable"], false);
    let connection = first.text_at("/connection/uri");
    assert!(connection.starts_with(&format!("mysql://{}:", world.account)), "{connection}");

    let asks = (0..20).map(|_| world.granted());
    for other in futures(asks).await {
        assert_eq!(other.password(), first.password());
        assert_ne!(other.lease(), first.lease());
    }
    let row = world.rotation();
    assert_eq!((&row["generation"], &row["readable"], &row["attempts"]), (&json!(1), &json!(true), &json!(0)), "{row}");
    assert_eq!(world.events("account.rotated").len(), 1);
    assert_eq!(world.events("issue.granted").len(), 21);
}

async fn futures<F: Future + Send>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut done = Vec::new();
    let mut set: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        set.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(output) => {
                done.push(output);
                false
            }
            std::task::Poll::Pending => true,
        });
        if set.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

/// A client that comes back at 80 % of what it was told, through several rotations.
#[tokio::test]
async fn a_client_that_comes_back_in_time_always_holds_a_password_that_works() {
    let world = world(QUICK).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 {
        let held = world.granted().await;
        seen.insert(held.password().to_owned());
        let (issued, expires) = (time(held.text_at("/issued_at")), time(held.text_at("/expires_at")));
        assert!(expires > issued, "{}", held.text);
        let back = issued + Duration::try_from(expires.duration_since(issued)).unwrap().mul_f64(0.8);
        while Timestamp::now() < back {
            assert!(world.login(held.password()).await, "told until {expires}: {}", world.rotation());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    // Those that are over do not come back.
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let current = world.granted().await;
    for old in seen.iter().filter(|old| *old != current.password()) {
        assert!(!world.login(old).await, "an old password works after its overlap");
    }
    assert!(!world.login(&world.first_password).await);
    assert!(world.events("rotation.overlap_ended").len() >= 3);
}

#[tokio::test]
async fn an_operators_rotation_is_at_once_and_one_in_an_overlap_waits_for_its_end() {
    let world = world(BRIEF).await;
    let first = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let asked = now(&world);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let row: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!((row["generation"].as_u64(), row["phase"].as_str()), (Some(2), Some("overlapping")), "{row}");
    let second = world.granted().await;
    assert_ne!(second.password(), first.password());

    assert!(now(&world).status.success());
    world.rotation_becomes("the third", |row| row["generation"] == 3).await;
    assert!(world.login(second.password()).await, "the one before the current works");
    assert!(!world.login(first.password()).await, "the one before that does not");
    let asked: Vec<_> = world.events("admin.rotate");
    assert_eq!(asked.len(), 2);
    let unknown = world.cli(&["rotation", "now", "shop_db", "nobody"]);
    assert!(!unknown.status.success());
}

#[tokio::test]
async fn the_end_of_a_lease_changes_nothing_in_the_target_and_says_so() {
    let world = world(SLOW).await;
    let lease = world.granted().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let renewed = client.post(&format!("/v1/leases/{}/renew", lease.lease()), &token, &json!({})).await.unwrap();
    renewed.assert_problem(409, "lease-not-active");
    let revoked = client.post(&format!("/v1/leases/{}/revoke", lease.lease()), &token, &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    let until = time(revoked.text_at("/usable_until"));
    assert!(until >= time(lease.text_at("/expires_at")), "{}", revoked.text);
    assert_eq!(revoked.json["revocable"], false);
    assert!(world.login(lease.password()).await);

    let short = client.issue(&token, &json!({"target": "shop_db", "ttl": "1s"})).await.unwrap();
    assert_eq!(short.json["ttl_seconds"], 1, "{}", short.text);
    let path = format!("/v1/leases/{}", short.lease());
    let begun = std::time::Instant::now();
    while client.get(&path, &token).await.unwrap().text_at("/state") != "revoked" {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(world.login(short.password()).await);
    let expired = world.events("lease.expired");
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0]["account_removed"], false, "{}", expired[0]);
    // Nor does the reconciler take the account for one of the broker's making.
    let report = world.cli(&["reconcile", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["targets"][0]["ghosts"], json!([]), "{report}");
    assert_eq!(report["targets"][0]["missing"], json!([]), "{report}");
    assert!(world.login(lease.password()).await);
}

/// Every account of MySQL may change its own password. A holder that does so is put out, and what is
/// handed out works.
#[tokio::test]
async fn a_holder_that_changes_the_password_is_evicted() {
    let world = world(SLOW).await;
    let mut held = world.granted().await;
    // In an overlap at first, then outside of one.
    for _ in 0..2 {
        let mut holder = world.session(held.password()).await;
        holder.execute("SET PASSWORD = 'Mine-alone-1'").await.unwrap();
        let begun = std::time::Instant::now();
        let fresh = loop {
            let reply = world.ask(None).await.unwrap();
            if reply.status == 201 && reply.password() != held.password() {
                break reply;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{}", world.rotation());
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        assert!(world.login(fresh.password()).await);
        assert!(!world.login("Mine-alone-1").await, "the holder's password works");
        let ended = tokio::time::timeout(Duration::from_secs(60), holder.execute("SELECT 1")).await.unwrap();
        assert!(ended.is_err(), "the holder's session lives on");
        assert_eq!(world.rotation()["phase"], "stable");
        held = fresh;
    }
    let tampered = world.events("account.tampered");
    assert_eq!(tampered.len(), 2, "{tampered:?}");
    assert!(world.cli(&["audit", "verify"]).status.success());
}

/// At the end of an overlap as well: the holder replaced the new password and kept the old one.
#[tokio::test]
async fn a_holder_that_changes_the_password_in_an_overlap_keeps_nothing() {
    let world = world(BRIEF).await;
    let lease = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let mut holder = world.session(lease.password()).await;
    assert!(now(&world).status.success());
    holder.execute("SET PASSWORD = 'Mine-alone-2'").await.unwrap();
    world.rotation_becomes("taken back", |row| row["generation"].as_u64() >= Some(3) && row["phase"] == "stable").await;
    assert!(!world.login("Mine-alone-2").await && !world.login(lease.password()).await);
    world.granted().await;
}

/// Another server answers at the connection's URL, and has an account of the same name: its password is neither
/// changed nor tried, and none is handed out for it.
#[tokio::test]
async fn an_account_of_the_same_name_in_another_server_is_not_rotated() {
    let mut world = world(SLOW).await;
    let held = world.granted().await;
    world.process().stop().unwrap();
    let there = Administered::of_the_suite(Server::MariaDb);
    let mut other = there.session().await.unwrap();
    let account = world.account.clone();
    let broker = world.user();
    let secret = std::fs::read_to_string(world.folder.path().join("shop.password")).unwrap();
    for statement in [
        format!("CREATE USER {account}@'%' IDENTIFIED BY 'Theirs-alone-1' REQUIRE SSL"),
        format!("CREATE USER {broker}@'%' IDENTIFIED BY '{secret}' REQUIRE SSL"),
        format!("GRANT ALL ON *.* TO {broker}@'%' WITH GRANT OPTION"),
    ] {
        other.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
    }
    let config = std::fs::read_to_string(world.config()).unwrap();
    world.move_to("JIT_TEST_MARIADB");
    world.start(&[]);
    let refused = world.ask(None).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text_at("/detail").contains("is not the server that has the account"), "{}", refused.text);
    let _told = now(&world);
    let row = world.rotation_becomes("a step that fails", |row| row["attempts"].as_u64() > Some(0)).await;
    assert!(row["last_error"].as_str().unwrap().contains("what answers now is"), "{row}");
    let query = format!("SELECT CAST(authentication_string AS CHAR) FROM mysql.user WHERE User = '{account}'");
    let hash: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut other).await.unwrap();
    let theirs: String =
        sqlx::query_scalar("SELECT CAST(PASSWORD('Theirs-alone-1') AS CHAR)").fetch_one(&mut other).await.unwrap();
    assert_eq!(hash, theirs, "somebody else's password was changed");

    // Back at its own server, all is as it was.
    world.process().stop().unwrap();
    std::fs::write(world.config(), config).unwrap();
    world.start(&[]);
    assert!(world.login(held.password()).await);
    world.granted().await;
    for user in [&account, &broker] {
        other.execute(sqlx::AssertSqlSafe(format!("DROP USER {user}@'%'"))).await.unwrap();
    }
}

/// What somebody who may write the store, and has no key, could put back: the account's own first record.
#[tokio::test]
async fn a_record_that_was_set_back_brings_no_old_password_back() {
    let mut world = world(BRIEF).await;
    let first = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    world.process().stop().unwrap();
    let old = world.sealed_rotation().await;
    world.start(&[]);
    assert!(now(&world).status.success());
    world.rotation_becomes("the next", |row| row["generation"] == 2 && row["phase"] == "stable").await;
    assert!(!world.login(first.password()).await, "the first password is discarded");
    world.process().stop().unwrap();
    world.put_sealed_rotation(&old).await;
    world.start(&[]);

    let fresh = world.granted().await;
    assert_ne!(fresh.password(), first.password());
    assert!(!world.login(first.password()).await, "the first password is back");
    let told = world.events("account.tampered");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["error"].as_str().unwrap().contains("rolled back to an older one"), "{told:?}");
    assert!(world.rotation()["generation"].as_u64() >= Some(3), "no number is used twice");
    assert!(world.cli(&["audit", "verify"]).status.success());
}

/// A session ends with the password that it was opened with, and one that is opened with the next
/// lives on.
#[tokio::test]
async fn sessions_end_when_their_password_is_discarded() {
    let world = world(BRIEF).await;
    let first = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let mut old = world.session(first.password()).await;
    assert!(now(&world).status.success());
    let mut new = world.session(world.granted().await.password()).await;
    world.rotation_becomes("the next", |row| row["generation"] == 2 && row["phase"] == "stable").await;
    let ended = tokio::time::timeout(Duration::from_secs(60), old.execute("SELECT 1")).await.unwrap();
    assert!(ended.is_err(), "it outlives its password");
    new.execute("SELECT 1").await.unwrap();
}

/// Default roles are an account's own to take away, from everybody who holds it.
#[tokio::test]
async fn default_roles_that_a_holder_took_away_are_back_after_the_next_rotation() {
    let world = world(BRIEF).await;
    let first = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let role = format!("role_{}", world.account.trim_start_matches("app_"));
    world.execute(&format!("GRANT {role} TO {}@'%'", world.account)).await.unwrap();
    let mut holder = world.session(first.password()).await;
    let none = format!("SET DEFAULT ROLE NONE TO {}@'%'", world.account);
    holder.execute(sqlx::AssertSqlSafe(none)).await.unwrap();
    assert!(now(&world).status.success());
    let mut session = world.session(world.granted().await.password()).await;
    let active: String =
        sqlx::query_scalar("SELECT CAST(CURRENT_ROLE() AS CHAR)").fetch_one(&mut session).await.unwrap();
    assert!(active.contains(&role), "{active}");
}

/// An operator that cannot wait for an overlap: nobody who held a password is in any more.
#[tokio::test]
async fn an_operators_rotation_at_once_leaves_no_overlap_and_no_session() {
    let world = world(SLOW).await;
    let lease = world.granted().await;
    let mut session = world.session(lease.password()).await;
    let asked = world.cli(&["rotation", "now", "shop_db", "app", "--at-once", "--format", "json"]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let row = world.rotation_becomes("replaced", |row| row["generation"] == 2).await;
    assert_eq!(row["phase"], "stable", "{row}");
    assert!(!world.login(lease.password()).await && !world.login(&world.first_password).await);
    let ended = tokio::time::timeout(Duration::from_secs(60), session.execute("SELECT 1")).await.unwrap();
    assert!(ended.is_err());
    world.granted().await;
}

/// With one more privilege a holder could keep an old password beside each new one.
#[tokio::test]
async fn an_account_that_may_keep_its_own_second_password_is_refused() {
    let mut world = MysqlWorld::prepared(SLOW).await;
    world.execute(&format!("GRANT APPLICATION_PASSWORD_ADMIN ON *.* TO {}@'%'", world.account)).await.unwrap();
    world.start(&[]);
    let begun = std::time::Instant::now();
    while !world.process().log().contains("has APPLICATION_PASSWORD_ADMIN on everything") {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A leaked password: the operator revokes its lease and has the account rotated.
#[tokio::test]
async fn revoking_can_take_the_password_along() {
    let world = world(BRIEF).await;
    let lease = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    let revoked = world.cli(&["lease", "revoke", lease.lease(), "--rotate"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    world.rotation_becomes("stable again", |row| row["phase"] == "stable" && row["generation"] == 2).await;
    assert!(!world.login(lease.password()).await);
    world.granted().await;
}

#[tokio::test]
async fn a_retry_gets_the_same_answer_also_after_a_restart_and_never_the_next_password() {
    let mut world = world(BRIEF).await;
    let first = world.ask(Some("key-1")).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    let again = world.ask(Some("key-1")).await.unwrap();
    assert_eq!((again.lease(), again.password()), (first.lease(), first.password()));
    world.process().kill().unwrap();
    world.start(&[]);
    let restarted = world.ask(Some("key-1")).await.unwrap();
    assert_eq!((restarted.lease(), restarted.password()), (first.lease(), first.password()));
    assert_eq!(world.events("issue.replayed").len(), 2, "each time that it was handed out is on record");

    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    assert!(now(&world).status.success());
    let rotated = world.ask(Some("key-1")).await.unwrap();
    rotated.assert_problem(409, "lease-not-active");
    assert_eq!(rotated.json["lease_id"], first.lease());
    assert_eq!(world.events("issue.replayed").len(), 2);
    // A new key asks the policies, and gets it.
    let next = world.ask(Some("key-2")).await.unwrap();
    assert_eq!(next.status, 201, "{}", next.text);
    assert_ne!(next.password(), first.password());
}

#[tokio::test]
async fn no_password_stands_in_any_file() {
    let mut world = world(BRIEF).await;
    let mut passwords = vec![world.granted().await.password().to_owned()];
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    assert!(now(&world).status.success());
    passwords.push(world.granted().await.password().to_owned());
    let running: Vec<_> = passwords.iter().map(|password| world.is_written_anywhere(password).unwrap()).collect();
    assert_eq!(running, [None, None]);
    world.process().stop().unwrap();
    for password in &passwords {
        assert_eq!(world.is_written_anywhere(password).unwrap(), None);
    }
}

/// The server does not let the broker in as a rotation is due: callers get the last good password,
/// and keep it.
#[tokio::test]
async fn a_rotation_that_cannot_be_made_is_made_when_the_server_is_back() {
    let world = world(BRIEF).await;
    let held = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    world.lock_out_broker(true).await.unwrap();
    let _not_yet = now(&world);
    let row = world.rotation_becomes("failing", |row| row["attempts"].as_u64() >= Some(2)).await;
    // It fails where it asks for the account's place, or a step later where it has just heard that.
    assert!(row["phase"] == "stable" || row["phase"] == "staging", "{row}");
    assert_eq!(row["generation"], 1, "{row}");
    let meanwhile = world.granted().await;
    assert_eq!(meanwhile.password(), held.password());
    assert!(!world.events("rotation.failed").is_empty());
    let client = world.client();
    assert!(client.metric("jit_rotation_total", &["outcome=\"failed\""]).await.unwrap() >= 2.0);

    world.lock_out_broker(false).await.unwrap();
    world.rotation_becomes("rotated", |row| row["generation"] == 2 && row["attempts"] == 0).await;
    assert!(world.login(held.password()).await, "its overlap begins with the rotation");
    assert_ne!(world.granted().await.password(), held.password());

    // And the same where the old password cannot be discarded.
    world.lock_out_broker(true).await.unwrap();
    world.rotation_becomes("failing", |row| row["attempts"].as_u64() >= Some(1)).await;
    assert_eq!(world.rotation()["phase"], "overlapping");
    world.granted().await;
    world.lock_out_broker(false).await.unwrap();
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    assert!(!world.login(held.password()).await);
}

#[tokio::test]
async fn a_changed_sealing_key_loses_nothing_and_a_lost_one_is_told_and_mended() {
    let mut world = world(BRIEF).await;
    let first = world.granted().await;
    world.rotation_becomes("stable", |row| row["phase"] == "stable").await;
    world.process().stop().unwrap();
    let folder = world.folder.path().to_owned();
    std::fs::rename(folder.join("sealing.key"), folder.join("old.key")).unwrap();
    world.rewrite(
        "sealing_key = { file = \"sealing.key\" }",
        "sealing_key = { file = \"sealing.key\" }\nformer_sealing_keys = [{ file = \"old.key\" }]",
    );
    world.start(&[]);
    assert_eq!(world.granted().await.password(), first.password());
    assert!(now(&world).status.success());
    world.rotation_becomes("stable", |row| row["phase"] == "stable" && row["generation"] == 2).await;
    let second = world.granted().await;

    // The former one is needed no longer.
    world.process().stop().unwrap();
    world.rewrite("former_sealing_keys = [{ file = \"old.key\" }]", "");
    world.start(&[]);
    assert_eq!(world.granted().await.password(), second.password());

    // Now the key is lost.
    world.process().stop().unwrap();
    std::fs::remove_file(folder.join("sealing.key")).unwrap();
    world.start(&[]);
    let third = world.granted().await;
    assert_ne!(third.password(), second.password());
    assert!(world.login(second.password()).await, "who held it keeps it for the overlap");
    assert!(world.process().log().contains("cannot be unsealed"));
}

#[tokio::test]
async fn what_cannot_be_rotated_is_refused_at_load() {
    let world = MysqlWorld::prepared(SLOW).await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    let account = format!("account = \"{}\"", world.account);
    let broker = text.split("mysql://").nth(1).unwrap().split('@').next().unwrap().to_owned();
    let twice = "[targets.shop_db.roles.app]\n";
    let other = format!("[targets.shop_db.roles.other]\nrotating = {{ {account} }}\n{twice}");
    for (from, to, says) in [
        ("sealing_key = { file = \"sealing.key\" }", "", "jit-broker store key"),
        (account.as_str(), &format!("account = \"{broker}\""), "the broker's own account"),
        (account.as_str(), "account = \"v-x-abcdefghijkmnpqrstuvwxyz234567890\"", "names of at most 32 bytes"),
        (twice, &other, "is rotated by targets.shop_db.roles.app already"),
    ] {
        let mut refused = MysqlWorld::prepared(SLOW).await;
        std::fs::write(refused.config(), text.replacen(from, to, 1)).unwrap();
        refused.write_secret("shop.password", "x").unwrap();
        let error = refused.try_start(&[]).expect_err(says);
        assert!(format!("{error:#}").contains(says), "{says}: {error:#}");
    }
}

const ACTIONS: [&str; 4] = ["fail", "lost", "crash-before", "crash-after"];

/// Every failpoint of a rotation, with every action: nobody who holds a password is locked out, and
/// the rotation ends.
async fn rotation_fault(point: &str) {
    let mut world = MysqlWorld::prepared(BRIEF).await;
    world.failpoints = true;
    for action in ACTIONS {
        world.start(&[]);
        world.granted().await;
        // One that the round before asked for twice has ended too.
        let row = world.rotation_becomes("stable", |row| row["phase"] == "stable" && row["asked"] == false).await;
        let held = world.granted().await;
        let generation = row["generation"].as_u64().unwrap();
        let since = world.process().log().len();
        world.start(&[("JIT_FAILPOINTS", &format!("{point}={action}#1"))]);
        let _died_or_not = now(&world);
        let crash = action.starts_with("crash");
        if crash {
            let status = world.process().wait_for_end(Duration::from_secs(60)).unwrap();
            assert_eq!(status.signal(), Some(9), "{point}={action}: {status}");
            let overlapping = matches!(point, "rotation.discard" | "rotation.close");
            assert!(overlapping || world.login(held.password()).await, "{point}={action}: locked out");
            world.start(&[]);
        }
        // Whatever was lost, it is asked for again where the wish itself was, and it ends.
        if world.rotation()["phase"] == "stable" && world.rotation()["generation"] == generation {
            assert!(now(&world).status.success());
        }
        let fresh = world.granted().await;
        let row = world
            .rotation_becomes("the next", |row| {
                row["phase"] == "stable" && row["generation"].as_u64() > Some(generation)
            })
            .await;
        let last = world.granted().await;
        assert_ne!(last.password(), held.password(), "{point}={action}");
        assert!(!world.login(held.password()).await, "{point}={action}: {row}");
        drop(fresh);
        let log = world.process().log();
        let reached = log[since..].lines().any(|line| line.contains("failpoint reached") && line.contains(point));
        assert!(reached, "{point}={action} was never reached");
        assert!(world.cli(&["audit", "verify"]).status.success());
    }
}

/// A hand-out that is broken gives no secret, and what it left is closed or answers its key.
async fn grant_fault(point: &str) {
    let mut world = MysqlWorld::prepared(BRIEF).await;
    world.failpoints = true;
    for action in ACTIONS {
        world.start(&[]);
        if point == "rotation.regrant" {
            let first = world.ask(Some(action)).await.unwrap();
            assert_eq!(first.status, 201, "{}", first.text);
        } else {
            world.granted().await;
        }
        let since = world.process().log().len();
        world.start(&[("JIT_FAILPOINTS", &format!("{point}={action}#1"))]);
        let broken = world.ask(Some(action)).await;
        assert_eq!(broken.is_none(), action.starts_with("crash"), "{point}={action}: {broken:?}");
        if let Some(reply) = broken {
            assert_eq!((reply.status, reply.code()), (503, "audit-unavailable"), "{point}={action}: {}", reply.text);
        } else {
            world.process().wait_for_end(Duration::from_secs(60)).unwrap();
        }
        let log = std::fs::read_to_string(world.folder.path().join("broker.log")).unwrap();
        assert!(log[since..].contains("failpoint reached"), "{point}={action}");
        world.start(&[]);
        let next = world.ask(Some(action)).await.unwrap();
        assert_eq!(next.status, 201, "{point}={action}: {}", next.text);
        assert!(world.login(next.password()).await);
        let granted = world.events("issue.granted");
        assert_eq!(granted.iter().filter(|record| record["lease_id"] == next.lease()).count(), 1, "{point}={action}");
    }
}

macro_rules! points {
    ($($test:ident: $point:literal by $how:ident;)*) => {
        const COVERED: &[&str] = &[$($point),*];
        $(
            #[tokio::test]
            async fn $test() {
                $how($point).await;
            }
        )*
    };
}

points! {
    fault_begin: "rotation.begin" by rotation_fault;
    fault_stage: "rotation.stage" by rotation_fault;
    fault_commit: "rotation.commit" by rotation_fault;
    fault_record: "rotation.record" by rotation_fault;
    fault_discard: "rotation.discard" by rotation_fault;
    fault_close: "rotation.close" by rotation_fault;
    fault_grant: "rotation.grant" by grant_fault;
    fault_regrant: "rotation.regrant" by grant_fault;
}

#[test]
fn every_failpoint_of_rotation_is_gone_through() {
    let list = SOURCE.split_once("pub const POINTS").unwrap().1.split_once("];").unwrap().0;
    let listed: Vec<&str> = list.split('"').skip(1).step_by(2).filter(|point| point.starts_with("rotation.")).collect();
    assert_eq!(listed, COVERED);
}
