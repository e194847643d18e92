//! Sleeping servers, lost races and connections: what a call then says, and what it leaves.

use super::*;

#[tokio::test]
async fn a_backend_that_sleeps_does_not_hold_a_call_and_its_statement_is_ended() {
    let server = Server::new().await;
    let bench = bench_with(Limits::default(), 1);
    let driver = bench.driver("driver-hostile");
    let mut options = server.options();
    // The server would notice by itself after a while; here it must be told.
    options.client_check_interval = None;
    options.statement_timeout = Duration::from_secs(600);
    options.max_connections = 1;
    let connection = Arc::new(SqlConnection::new(options).unwrap());
    let scope = DriverScope { deadline: Duration::from_millis(500), ..scope_with(&connection) };
    let outcome = hostile(&driver, &scope, "slow-statement").await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unavailable { .. })), "{outcome:?}");
    // The next use of either lane ends it first, and has a whole connection.
    connection.ping().await.unwrap();
    assert_eq!(server.running("pg_sleep").await, 0);
    let scope = scope_with(&connection);
    assert_eq!(hostile(&driver, &scope, "huge-rows").await, Outcome::Done(()));
    server.drop_all().await;
}

/// NO-GHOST: a creation that is still on its way when its call ends does not happen after the
/// revocation that follows.
#[tokio::test]
async fn a_revocation_is_not_overtaken_by_the_creation_it_undoes() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let mut options = server.options();
    options.client_check_interval = None;
    let connection = Arc::new(SqlConnection::new(options).unwrap());
    let (account, password) = (account(), generate_password());

    // Connected before the lock: a login reads the table that is locked.
    connection.ping().await.unwrap();
    let warm = driver.inspect(&scope_with(&connection), &server.target(), "nobody").await;
    assert_eq!(warm, Outcome::Refused(Refusal::NotFound));
    let mut admin = server.admin().await;
    let mut lock = admin.begin().await.unwrap();
    // Any CREATE ROLE waits; reading (and so a login) does not.
    sqlx::raw_sql("LOCK TABLE pg_authid IN SHARE MODE").execute(&mut *lock).await.unwrap();

    let short = DriverScope { deadline: Duration::from_millis(500), ..scope_with(&connection) };
    let created = driver.create(&short, &server.target(), &server.role(), &account, &password).await;
    assert!(matches!(created, Outcome::Unknown(_)), "{created:?}");
    assert_eq!(server.running("CREATE ROLE").await, 1, "it still waits for the lock");

    let removal = DriverScope { lane: Lane::Removal, ..scope_with(&connection) };
    let revoking = {
        let (driver, target, account) = (driver.clone(), server.target(), account.clone());
        tokio::spawn(async move { driver.revoke(&removal, &target, &account).await })
    };
    // While the lock is still held, the revocation has ended the creation.
    server.until_running("CREATE ROLE", 0).await;
    lock.commit().await.unwrap();
    assert_eq!(revoking.await.unwrap(), Outcome::Done(()));
    assert!(!server.role_exists(account.name.as_str()).await);
    server.drop_all().await;
}

#[tokio::test]
async fn a_dropped_call_leaves_no_connection_in_an_odd_state() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let mut options = server.options();
    options.max_connections = 1;
    let connection = Arc::new(SqlConnection::new(options).unwrap());
    let scope = scope_with(&connection);
    for micros in (0..40).map(|i| i * 500) {
        let (account, password, target, role) = (account(), generate_password(), server.target(), server.role());
        let call = driver.create(&scope, &target, &role, &account, &password);
        let ended = tokio::time::timeout(Duration::from_micros(micros), call).await;
        // Wherever it was cut off: the connection works, and removal knows what to do.
        let revoked = driver.revoke(&scope, &target, &account).await;
        assert_eq!(revoked, Outcome::Done(()), "{micros} µs, {ended:?}");
        assert!(!server.role_exists(account.name.as_str()).await);
    }
    server.drop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_races_are_run_again() {
    let server = Server::new().await;
    let bench = bench_with(Limits::default(), 32);
    let driver = bench.driver("driver-postgres");
    let scope = scope_with(&server.connection());
    let config = target(&format!(r#"{{"reassign_owned_to":"{}_keeper","scram_iterations":1}}"#, server.name));
    let calls = (0..64).map(|_| {
        let (driver, scope, config, role) = (driver.clone(), scope.clone(), config.clone(), server.role());
        tokio::spawn(async move {
            let account = account();
            let created = driver.create(&scope, &config, &role, &account, &generate_password()).await;
            (created.map(drop), driver.revoke(&scope, &config, &account).await)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), (Outcome::Done(()), Outcome::Done(())));
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
    server.drop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_do_not_wait_behind_issues() {
    let server = Server::new().await;
    let bench = bench_with(Limits::default(), 1);
    let driver = bench.driver("driver-scripted");
    let mut options = server.options();
    options.max_connections = 1;
    let connection = Arc::new(SqlConnection::new(options).unwrap());
    let slow = r#"{"create":"slow-sql","sleep_ms":8000,"revoke":"slow-sql"}"#;
    let issuing = {
        let (driver, scope) = (driver.clone(), scope_with(&connection));
        tokio::spawn(async move {
            driver.create(&scope, &target(slow), &role("{}"), &account(), &generate_password()).await.map(drop)
        })
    };
    server.until_running("pg_sleep", 1).await;

    // No live slot is free: another issue is refused as unavailable, not queued for ever.
    let short = DriverScope { deadline: Duration::from_millis(100), ..scope_with(&connection) };
    let refused = driver.create(&short, &target("{}"), &role("{}"), &account(), &generate_password()).await;
    assert!(matches!(refused, Outcome::Refused(Refusal::Unavailable { .. })), "{refused:?}");

    // A removal has a slot and a connection of its own.
    let removal = DriverScope { lane: Lane::Removal, ..scope_with(&connection) };
    let quick = target(r#"{"revoke":"slow-sql","sleep_ms":10}"#);
    assert_eq!(driver.revoke(&removal, &quick, &account()).await, Outcome::Done(()));
    assert!(!issuing.is_finished());
    issuing.abort();
    server.drop_all().await;
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    let server = Server::new().await;
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let connection = server.connection();
    let scope = scope_with(&connection);
    let target = server.target();
    let inspect = || driver.inspect(&scope, &target, "nobody");
    assert_eq!(inspect().await, Outcome::Refused(Refusal::NotFound));
    // As after a restart: every kept connection is dead.
    server
        .admin_run(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}_broker'",
            server.name
        ))
        .await;
    let at_once = inspect().await;
    assert!(matches!(at_once, Outcome::Refused(Refusal::NotFound | Refusal::Unavailable { .. })), "{at_once:?}");
    assert_eq!(inspect().await, Outcome::Refused(Refusal::NotFound));
    server.drop_all().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let bench = bench();
    let driver = bench.driver("driver-postgres");
    let unused = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let url = Url::parse(&format!("postgres://broker@127.0.0.1:{unused}/db?sslmode=disable")).unwrap();
    let connection = Arc::new(SqlConnection::new(SqlConnectionOptions::new("away", url, None)).unwrap());
    assert!(connection.ping().await.is_err());
    let config = target(r#"{"reassign_owned_to":"app"}"#);
    let grants = role(r#"{"grants":["app"]}"#);
    let outcome = driver.create(&scope_with(&connection), &config, &grants, &account(), &generate_password()).await;
    let Outcome::Refused(Refusal::Unavailable { reason, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains(&format!("127.0.0.1:{unused}")), "{reason}");
    // A server that takes the connection and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = Url::parse(&format!("postgres://broker@127.0.0.1:{port}/db")).unwrap();
    let mut options = SqlConnectionOptions::new("silent", url, None);
    options.connect_timeout = Duration::from_millis(100);
    let connection = Arc::new(SqlConnection::new(options).unwrap());
    let outcome = driver.create(&scope_with(&connection), &config, &grants, &account(), &generate_password()).await;
    assert!(matches!(outcome, Outcome::Refused(Refusal::Unavailable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_wrong_password_of_the_broker_is_told_without_it() {
    let server = Server::new().await;
    let mut options = server.options();
    options.password = Some(SecretString::from("canary-password"));
    let connection = SqlConnection::new(options).unwrap();
    let error = connection.ping().await.unwrap_err().to_string();
    assert!(error.contains("password authentication failed") && !error.contains("canary"), "{error}");
    assert!(!format!("{connection:?}").contains("canary"));
    server.drop_all().await;
}
