//! Accounts go: with what they own handed over, their sessions ended, whoever drops them first,
//! whatever stands in the way of others, and whatever has become of the configuration.

use std::process::Command;

use jit_tests::world::{eventually, read};
use jit_tests::{Client, Reply, Settings, World};
use serde_json::{Value, json};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

async fn issue(client: &Client, token: &str, role: &str, ttl: &str) -> Reply {
    let body = json!({"target": "inventory_db", "role": role, "ttl": ttl});
    let reply = client.issue(token, &body).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

async fn revoke(client: &Client, token: &str, lease: &str) -> Reply {
    client.post(&format!("/v1/leases/{lease}/revoke"), token, &json!({})).await.unwrap()
}

async fn login(world: &World, account: &Reply) -> PgConnection {
    world.database.login(account.username(), account.password()).await.unwrap()
}

#[tokio::test]
async fn what_an_account_made_stays_and_is_the_owners() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let (read_write, owner) = (&world.database.read_write, &world.database.owner);
    let second = format!("{}_archive", world.database.name);
    world.database.execute(&format!("CREATE DATABASE {second}")).await.unwrap();
    let mut archive = world.database.superuser_of(&second).await.unwrap();
    archive.execute(sqlx::AssertSqlSafe(format!("GRANT CREATE ON SCHEMA public TO {read_write}"))).await.unwrap();

    let account = issue(&client, &token, "app_read_write", "1h").await;
    let mut session = login(&world, &account).await;
    session
        .execute(
            "CREATE TABLE orders (id serial PRIMARY KEY, what text);
             INSERT INTO orders (what) VALUES ('bolt'), ('nut');
             CREATE SEQUENCE numbers START 7;
             CREATE TYPE colour AS ENUM ('red');
             GRANT SELECT ON orders TO PUBLIC;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
        )
        .await
        .unwrap();
    let mut there = world.database.login_to(&second, account.username(), account.password()).await.unwrap();
    there.execute("CREATE TABLE old (id int); INSERT INTO old VALUES (1), (2), (3)").await.unwrap();
    drop((session, there));

    let revoked = revoke(&client, &token, account.lease()).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    assert_eq!(world.accounts().await, Vec::<String>::new());
    for (what, query) in [
        (
            "table",
            "SELECT count(*) || pg_get_userbyid(c.relowner) FROM orders, pg_class c WHERE c.relname = 'orders' GROUP BY c.relowner",
        ),
        (
            "sequence",
            "SELECT nextval('numbers') - 5 || pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'numbers'",
        ),
        ("type", "SELECT 2 || pg_get_userbyid(typowner) FROM pg_type WHERE typname = 'colour'"),
    ] {
        assert_eq!(world.database.value(query).await.unwrap(), format!("2{owner}"), "{what}");
    }
    let old = "SELECT (SELECT count(*) FROM old) || pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'old'";
    let old: String = sqlx::query_scalar(old).fetch_one(&mut archive).await.unwrap();
    assert_eq!(old, format!("3{owner}"), "also in another database of the server");
    world.assert_settled(&[account.lease().to_owned()]).await;
}

#[tokio::test]
async fn open_sessions_are_ended_whatever_they_do() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_write", "1h").await;
    let mut idle = login(&world, &account).await;
    idle.execute("SELECT 1").await.unwrap();
    let mut in_transaction = login(&world, &account).await;
    in_transaction.execute("BEGIN; CREATE TABLE half_done (id int); SELECT count(*) FROM items").await.unwrap();
    let mut as_role = login(&world, &account).await;
    let set = format!("SET ROLE {}", world.database.read_only);
    // Another role than the one it was granted is not its to take; the granted one is where the server
    // cannot give its rights alone.
    assert!(as_role.execute(sqlx::AssertSqlSafe(set)).await.is_err());
    let became = as_role.execute(sqlx::AssertSqlSafe(format!("SET ROLE {}", world.database.read_write))).await;
    let version = world.database.value("SELECT current_setting('server_version_num')::int >= 160000").await.unwrap();
    assert_eq!(became.is_err(), version == "true", "{became:?}");
    let mut at_work = login(&world, &account).await;
    let at_work = tokio::spawn(async move { at_work.execute("SELECT pg_sleep(600)").await.map(|_| ()) });
    let busy = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event = 'PgSleep'",
        account.username()
    );
    eventually("it sleeps", async || world.database.value(&busy).await.unwrap() == "1").await;

    let revoked = revoke(&client, &token, account.lease()).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    for (what, session) in [("idle", &mut idle), ("in a transaction", &mut in_transaction), ("SET ROLE", &mut as_role)]
    {
        assert!(session.execute("SELECT count(*) FROM items").await.is_err(), "a session that is {what} goes on");
    }
    assert!(at_work.await.unwrap().is_err(), "a statement goes on");
    assert_eq!(world.accounts().await, Vec::<String>::new());
    let left = world.database.value("SELECT count(*) FROM pg_class WHERE relname = 'half_done'").await.unwrap();
    assert_eq!(left, "0", "an open transaction is rolled back");
}

#[tokio::test]
async fn revoking_again_and_revoking_what_somebody_dropped_is_success() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let first = issue(&client, &token, "app_read_only", "1h").await;
    for _ in 0..3 {
        let revoked = revoke(&client, &token, first.lease()).await;
        assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    }
    assert_eq!(world.records_of(first.lease(), "lease.revoked"), 1, "it is on record once");

    let by_hand = issue(&client, &token, "app_read_only", "1h").await;
    world.database.execute(&format!("DROP ROLE \"{}\"", by_hand.username())).await.unwrap();
    let revoked = revoke(&client, &token, by_hand.lease()).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);

    // At once, by four at a time.
    let contended = issue(&client, &token, "app_read_only", "1h").await;
    let all = tokio::join!(
        revoke(&client, &token, contended.lease()),
        revoke(&client, &token, contended.lease()),
        revoke(&client, &token, contended.lease()),
        revoke(&client, &token, contended.lease()),
    );
    for reply in [all.0, all.1, all.2, all.3] {
        assert!(matches!(reply.status, 200 | 202), "{}", reply.text);
    }
    world.lease_becomes(contended.lease(), "revoked").await;
    assert_eq!(world.records_of(contended.lease(), "lease.revoked"), 1);
    let ids = [&first, &by_hand, &contended].map(|reply| reply.lease().to_owned());
    world.assert_settled(&ids).await;
}

/// A renewal and the expiry race: either wins whole. No account is ever without an expiry, and
/// none outlives what its lease says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewing_in_the_final_second() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut renewals = tokio::task::JoinSet::new();
    let mut disclosed = Vec::new();
    for step in 0..24_u64 {
        let lease = issue(&client, &token, "app_read_only", "2s").await;
        disclosed.push(lease.lease().to_owned());
        let (client, token) = (client.clone(), token.clone());
        renewals.spawn(async move {
            // Leases end at whole seconds: these fall from a second before that to a little after.
            tokio::time::sleep(std::time::Duration::from_millis(900 + 50 * step)).await;
            let path = format!("/v1/leases/{}/renew", lease.lease());
            (lease, client.post(&path, &token, &json!({"ttl": "4s"})).await.unwrap())
        });
    }
    let mut renewed = Vec::new();
    while let Some(joined) = renewals.join_next().await {
        let (lease, reply) = joined.unwrap();
        match reply.status {
            200 => {
                assert!(reply.text_at("/expires_at") > lease.text_at("/expires_at"), "{}", reply.text);
                renewed.push(lease.lease().to_owned());
            }
            409 => assert_eq!(reply.code(), "lease-not-active", "{}", reply.text),
            _ => panic!("{}: {}", reply.status, reply.text),
        }
        let endless = format!(
            "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{}') \
             AND (rolvaliduntil IS NULL OR rolvaliduntil > now() + interval '10 s') AND rolcanlogin",
            world.prefix
        );
        assert_eq!(world.database.value(&endless).await.unwrap(), "0", "an account that never expires");
    }
    assert!(!renewed.is_empty() && renewed.len() < disclosed.len(), "{} of {}", renewed.len(), disclosed.len());
    for lease in &disclosed {
        world.lease_becomes(lease, "revoked").await;
    }
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    for lease in &disclosed {
        let was_renewed = usize::from(renewed.contains(lease));
        assert_eq!(world.records_of(lease, "lease.renewed"), was_renewed);
        assert_eq!(world.records_of(lease, "lease.expired"), 1);
    }
}

/// One account cannot go; ten others of the same target expire after it. They go while it stays;
/// it cannot log in, its failures are on record at the 1st, 2nd, 4th, and it goes in the end.
async fn obstacle<O>(
    settings: Settings,
    put: impl AsyncFnOnce(&World, &Reply) -> O,
    take_away: impl AsyncFnOnce(&World, &Reply, O),
) {
    let world = World::with(settings).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let stuck = issue(&client, &token, "app_read_write", "1h").await;
    let obstacle = put(&world, &stuck).await;
    let mut disclosed = vec![stuck.lease().to_owned()];
    for _ in 0..10 {
        disclosed.push(issue(&client, &token, "app_read_only", "4s").await.lease().to_owned());
    }
    let reply = revoke(&client, &token, stuck.lease()).await;
    assert_eq!((reply.status, reply.text_at("/state")), (202, "revoking"), "{}", reply.text);
    assert!(world.database.login(stuck.username(), stuck.password()).await.is_err(), "its login is off meanwhile");

    eventually("the others are gone", async || world.accounts().await == [stuck.username()]).await;
    for lease in &disclosed[1..] {
        world.lease_becomes(lease, "revoked").await;
        assert_eq!(world.records_of(lease, "lease.expired"), 1);
    }
    eventually("it was tried again and again", async || world.lease(stuck.lease())["attempts"].as_u64() >= Some(4))
        .await;
    let seen = world.lease(stuck.lease());
    assert_eq!(seen["state"], "revoking");
    assert!(seen["last_error"].as_str().is_some_and(|error| error.len() > 10), "{seen}");
    let failures = world.events("revoke.failed");
    let failures: Vec<u64> = failures
        .iter()
        .filter(|record| record["lease_id"] == stuck.lease())
        .map(|record| record["attempts"].as_u64().unwrap())
        .collect();
    assert_eq!(failures[..3], [1, 2, 4], "{failures:?}");
    assert!(failures.iter().all(|attempt| attempt.is_power_of_two()));

    take_away(&world, &stuck, obstacle).await;
    world.lease_becomes(stuck.lease(), "revoked").await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    assert_eq!(world.records_of(stuck.lease(), "lease.revoked"), 1);
    world.assert_settled(&disclosed).await;
}

#[tokio::test]
async fn a_grant_in_a_database_that_the_broker_may_not_enter() {
    obstacle(
        Settings::default(),
        async |world, stuck| {
            let vault = format!("{}_vault", world.database.name);
            world.database.execute(&format!("CREATE DATABASE {vault}")).await.unwrap();
            world.database.execute(&format!("REVOKE CONNECT ON DATABASE {vault} FROM PUBLIC")).await.unwrap();
            let mut inside = world.database.superuser_of(&vault).await.unwrap();
            let grant = format!("CREATE TABLE secrets (id int); GRANT SELECT ON secrets TO \"{}\"", stuck.username());
            inside.execute(sqlx::AssertSqlSafe(grant)).await.unwrap();
            inside
        },
        async |_, stuck, mut inside| {
            let take = format!("REVOKE SELECT ON secrets FROM \"{}\"", stuck.username());
            inside.execute(sqlx::AssertSqlSafe(take)).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn a_session_that_does_not_end() {
    obstacle(
        Settings::default(),
        async |world, stuck| {
            let session = login(world, stuck).await;
            let pid = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{}'", stuck.username());
            let pid = world.database.value(&pid).await.unwrap();
            // A stopped process does not hear the server's signals either.
            assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
            (pid, session)
        },
        async |_, _, (pid, _session)| {
            assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
        },
    )
    .await;
}

#[tokio::test]
async fn a_table_that_somebody_else_holds_locked() {
    obstacle(
        Settings { target: "timeout = \"4s\"".to_owned(), ..Settings::default() },
        async |world, stuck| {
            login(world, stuck).await.execute("CREATE TABLE theirs (id int)").await.unwrap();
            // Whoever reads it keeps its owner from being changed: a backup, say.
            let mut reader = world.database.superuser().await.unwrap();
            reader.execute("BEGIN; SELECT * FROM theirs").await.unwrap();
            reader
        },
        async |world, _, mut reader| {
            reader.execute("COMMIT").await.unwrap();
            let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'theirs'";
            eventually("the owner has it", async || world.database.value(owner).await.unwrap() == world.database.owner)
                .await;
        },
    )
    .await;
}

/// More that cannot go than are worked on at once, and all of them newer than those that can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_cannot_go_do_not_hold_up_the_others() {
    let world = World::with(Settings { target: "timeout = \"4s\"".to_owned(), ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut disclosed = Vec::new();
    for _ in 0..40 {
        disclosed.push(issue(&client, &token, "app_read_only", "8s").await.lease().to_owned());
    }
    let mut stuck = Vec::new();
    let mut reader = world.database.superuser().await.unwrap();
    reader.execute("BEGIN").await.unwrap();
    for number in 0..6 {
        let account = issue(&client, &token, "app_read_write", "1h").await;
        let table = format!("theirs_{number}");
        let make = format!("CREATE TABLE {table} (id int)");
        login(&world, &account).await.execute(sqlx::AssertSqlSafe(make)).await.unwrap();
        reader.execute(sqlx::AssertSqlSafe(format!("SELECT * FROM {table}"))).await.unwrap();
        disclosed.push(account.lease().to_owned());
        stuck.push(account);
    }
    let mut revocations = tokio::task::JoinSet::new();
    for account in &stuck {
        let (client, token, lease) = (client.clone(), token.clone(), account.lease().to_owned());
        revocations.spawn(async move { revoke(&client, &token, &lease).await });
    }
    while let Some(reply) = revocations.join_next().await {
        let reply = reply.unwrap();
        assert_eq!((reply.status, reply.text_at("/state")), (202, "revoking"), "{}", reply.text);
    }
    eventually("the others are gone", async || world.accounts().await.len() == stuck.len()).await;
    assert!(stuck.iter().all(|account| world.lease(account.lease())["state"] == "revoking"));
    reader.execute("COMMIT").await.unwrap();
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
}

/// The configuration with all sections whose header begins so taken out.
fn without(config: &str, headers: &[&str]) -> String {
    let mut kept = String::new();
    let mut keep = true;
    for line in config.lines() {
        if line.starts_with('[') {
            keep = !headers.iter().any(|header| line.starts_with(header));
        }
        if keep {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[tokio::test]
async fn whatever_has_become_of_the_configuration() {
    let more = r#"
[plugins.noop]
path = "PLUGINS/driver-noop.wasm"
[targets.other]
driver = "noop"
policies = ["allow"]
roles.any = {}
"#
    .replace("PLUGINS", &jit_tests::surroundings("JIT_TEST_PLUGINS"));
    let mut world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let of_role = issue(&client, &token, "app_read_write", "1h").await;
    let bare = issue(&client, &token, "app_read_only", "1h").await;
    let owning = issue(&client, &token, "app_read_write", "1h").await;
    login(&world, &owning).await.execute("CREATE TABLE orders (id int)").await.unwrap();
    let unreachable = issue(&client, &token, "app_read_only", "1h").await;
    let disclosed = [&of_role, &bare, &owning, &unreachable].map(|lease| lease.lease().to_owned());
    let whole = read(&world.config()).unwrap();
    let again = async |world: &mut World, config: &str| {
        std::fs::write(world.config(), config).unwrap();
        world.start(&[]).await;
        let client = world.client();
        let token = client.token("payment-service").await.unwrap();
        (client, token)
    };

    // The role is gone.
    let (client, token) = again(&mut world, &without(&whole, &["[targets.inventory_db.roles.app_read_write]"])).await;
    let reply = revoke(&client, &token, of_role.lease()).await;
    assert_eq!((reply.status, reply.text_at("/state")), (200, "revoked"), "{}", reply.text);

    // The target is gone; the lease has on record who gets what its account owned.
    let (client, token) = again(&mut world, &without(&whole, &["[targets.inventory_db"])).await;
    let reply = revoke(&client, &token, bare.lease()).await;
    assert_eq!((reply.status, reply.text_at("/state")), (200, "revoked"), "{}", reply.text);
    let reply = revoke(&client, &token, owning.lease()).await;
    assert_eq!((reply.status, reply.text_at("/state")), (200, "revoked"), "{}", reply.text);
    assert!(world.database.login(owning.username(), owning.password()).await.is_err());

    // The connection is gone too.
    let config = without(&whole, &["[targets.inventory_db", "[connections.inventory"]);
    let (client, token) = again(&mut world, &config).await;
    let reply = revoke(&client, &token, unreachable.lease()).await;
    assert_eq!((reply.status, reply.text_at("/state")), (202, "revoking"), "{}", reply.text);
    let seen = world.lease(unreachable.lease());
    let error = seen["last_error"].as_str().unwrap();
    assert!(error.contains("configuration") && error.contains("connection inventory"), "{seen}");
    let other = client.issue(&token, &json!({"target": "other", "role": "any"})).await.unwrap();
    assert_eq!(other.status, 201, "{}", other.text);
    assert_eq!(revoke(&client, &token, other.lease()).await.status, 200);

    // It is put back.
    again(&mut world, &whole).await;
    world.lease_becomes(unreachable.lease(), "revoked").await;
    world.assert_settled(&disclosed).await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'";
    assert_eq!(world.database.value(owner).await.unwrap(), world.database.owner);
}

#[tokio::test]
async fn a_start_with_thirty_expired_leases() {
    let mut world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "5s"});
    let mut disclosed = Vec::new();
    for _ in 0..30 {
        let reply = client.issue(&token, &body).await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text);
        disclosed.push(reply.lease().to_owned());
    }
    world.process().kill().unwrap();
    let alive = format!(
        "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{}') AND rolvaliduntil > now()",
        world.prefix
    );
    eventually("all are over", async || world.database.value(&alive).await.unwrap() == "0").await;
    world.start(&[]).await;
    eventually("all are gone", async || world.accounts().await.is_empty()).await;
    for lease in &disclosed {
        world.lease_becomes(lease, "revoked").await;
    }
    let expired: Vec<Value> = world.events("lease.expired");
    for lease in &disclosed {
        assert_eq!(expired.iter().filter(|record| record["lease_id"] == **lease).count(), 1);
    }
    world.assert_settled(&disclosed).await;
}
