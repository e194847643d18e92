//! An account does all that it may against its removal.

use jit_tests::world::eventually;
use jit_tests::{Reply, Settings, World};
use serde_json::json;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::{issue, login, revoke, run};
use crate::outage::{on, own_server};

/// Everything that a session may hold.
async fn hold_everything(session: &mut PgConnection, name: &str, broker: &str, is_14: bool) {
    run(
        session,
        "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'; CREATE TABLE half (id int);
         LOCK TABLE items IN ACCESS EXCLUSIVE MODE; LOCK TABLE pg_settings IN ACCESS EXCLUSIVE MODE;
         SELECT pg_advisory_lock(1); SELECT lo_open(lo_create(0), 393216);
         DECLARE held CURSOR FOR SELECT * FROM items",
    )
    .await;
    if is_14 {
        // There a role may grant itself; the broker's own grant of it has to wait.
        run(session, &format!("GRANT \"{name}\" TO {broker}")).await;
    }
}

/// Goes on logging in and locking its own role until it cannot log in.
async fn come_back(world: &World, account: &Reply) -> tokio::task::JoinHandle<u32> {
    let database = world.database.clone();
    let (name, password) = (account.username().to_owned(), account.password().to_owned());
    tokio::spawn(async move {
        let mut held = Vec::new();
        let mut times = 0;
        while let Ok(mut session) = database.login(&name, &password).await {
            times += 1;
            let _ = session.execute("SET statement_timeout = '5s'").await;
            let locking = session.execute("BEGIN; ALTER ROLE CURRENT_USER SET work_mem = '1MB'").await;
            if locking.is_ok() {
                held.push(session);
            }
        }
        times
    })
}

#[tokio::test]
async fn an_account_that_locks_all_it_may_is_gone() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let version = world.database.value("SELECT current_setting('server_version_num')").await.unwrap();
    let account = issue(&client, &token, "app_read_write").await;
    world.database.execute(&format!("GRANT ALL ON items TO {}", world.database.read_write)).await.unwrap();
    let mut holder = login(&world, &account).await;
    let mut other = login(&world, &account).await;
    run(&mut other, "CREATE TABLE orders (id int); INSERT INTO orders VALUES (7)").await;
    hold_everything(&mut holder, account.username(), &world.database.broker, version.starts_with("14")).await;
    let coming_back = come_back(&world, &account).await;

    let reply = revoke(&client, &token, &account).await;
    assert!(matches!(reply.status, 200 | 202), "{}", reply.text);
    world.lease_becomes(account.lease(), "revoked").await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    for session in [&mut holder, &mut other] {
        assert!(session.execute("SELECT 1").await.is_err(), "a session goes on");
    }
    coming_back.await.unwrap();
    assert!(world.database.login(account.username(), "mine").await.is_err());
    assert_eq!(world.database.value("SELECT id FROM orders").await.unwrap(), "7", "its data is there");
    world.assert_settled(&[account.lease().to_owned()]).await;
}

#[tokio::test]
async fn prepared_transactions_are_named_and_held_against_nobody_else() {
    let mut world = World::prepared(Settings::default()).await;
    world.rewrite("[limits]\n", "[limits]\nleftover_accounts = 1\n");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_write").await;
    let mut session = login(&world, &account).await;
    run(&mut session, "BEGIN; CREATE TABLE t (i int); PREPARE TRANSACTION 'it''s one'").await;
    // Its own role is locked by one of them.
    run(&mut session, "BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'mine'; PREPARE TRANSACTION 'two'").await;
    let reply = revoke(&client, &token, &account).await;
    assert_eq!((reply.status, reply.text_at("/state")), (202, "revoking"), "{}", reply.text);
    assert!(session.execute("SELECT 1").await.is_err(), "its session has ended");
    eventually("they are named", async || {
        let lease = world.lease(account.lease());
        let error = lease["last_error"].as_str().unwrap_or_default();
        error.contains("ROLLBACK PREPARED 'it''s one'") && error.contains(&world.database.name)
    })
    .await;
    let refused = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!((refused.status, refused.code()), (403, "blocked"), "it has left enough behind: {}", refused.text);
    let nobody_else = client.token("payment-batch").await.unwrap();
    let other = issue(&client, &nobody_else, "app_read_only").await;
    let revoked = revoke(&client, &nobody_else, &other).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    assert_eq!(world.lease(account.lease())["state"], "revoking", "it still holds locks");

    world.database.execute("ROLLBACK PREPARED 'it''s one'").await.unwrap();
    world.database.execute("ROLLBACK PREPARED 'two'").await.unwrap();
    // An operator who has seen to it does not wait for the next attempt.
    let tried = world.cli(&["lease", "revoke", account.lease()]);
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    world.lease_becomes(account.lease(), "revoked").await;
    assert_eq!(world.accounts().await, Vec::<String>::new());
    let again = issue(&client, &token, "app_read_only").await;
    assert_eq!(revoke(&client, &token, &again).await.status, 200);
}

#[tokio::test]
async fn accounts_that_take_all_connections_do_not_keep_their_removal_out() {
    let server = own_server(&[("max_connections", "12"), ("superuser_reserved_connections", "3")]);
    let mut world = World::prepared(Settings { ..on(&server) }).await;
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_only").await;
    let limit = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{}'", account.username());
    assert_eq!(world.database.value(&limit).await.unwrap(), "16", "there is a limit where none is configured");
    let broker = world.database.broker.clone();
    let idle = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{broker}'");
    eventually("the way in is open", async || world.database.value(&idle).await.unwrap() != "0").await;
    let mut sessions = Vec::new();
    while let Ok(session) = world.database.login(account.username(), account.password()).await {
        sessions.push(session);
    }
    assert!(!sessions.is_empty() && sessions.len() < 16, "the server is full");
    let revoked = revoke(&client, &token, &account).await;
    assert_eq!((revoked.status, revoked.text_at("/state")), (200, "revoked"), "{}", revoked.text);
    for session in &mut sessions {
        assert!(session.execute("SELECT 1").await.is_err());
    }

    // The way in is opened again when it breaks.
    let ended = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{broker}'");
    world.database.value(&ended).await.unwrap();
    eventually("it is open again", async || world.database.value(&idle).await.unwrap() != "0").await;
    world.process();
}
