//! Locks, sleeping servers, lost connections: what a call then says, and what it leaves.

use super::*;

#[tokio::test]
async fn a_lock_that_was_not_free_in_time_is_a_refusal() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let n = &server.name;
        server.admin_run(&format!("CREATE TABLE {n}.counter (n INT) ENGINE=InnoDB")).await;
        server.admin_run(&format!("INSERT INTO {n}.counter VALUES (0)")).await;
        server.admin_run(&format!("GRANT ALL ON {n}.* TO '{}'@'%'", server.login_of_broker())).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql-probe");
        let mut options = server.options();
        options.statement_timeout = Duration::from_secs(2);
        if flavour == MariaDb {
            // MariaDB ends the statement at the same time, which leaves its outcome open: there the lock is free in time.
            options.statement_timeout = Duration::from_secs(20);
        }
        let connection = Arc::new(SqlConnection::new(options).unwrap());
        let scope = scope_with(&connection);
        let mut admin = server.admin().await;
        let mut lock = admin.begin().await.unwrap();
        let hold = format!("UPDATE {n}.counter SET n = 10");
        sqlx::raw_sql(AssertSqlSafe(hold)).execute(&mut *lock).await.unwrap();
        let counting = {
            let (driver, scope) = (driver.clone(), scope.clone());
            let config = format!(r#"{{"mode":"count-up","schema":"{n}"}}"#);
            tokio::spawn(async move { probe(&driver, &scope, &config).await })
        };
        server.until_running("SET n = n + 1", 1).await;
        let (left, outcome) = if flavour == MySql {
            let outcome = counting.await.unwrap();
            lock.commit().await.unwrap();
            ("10", outcome)
        } else {
            lock.commit().await.unwrap();
            ("11", counting.await.unwrap())
        };
        let as_meant = match &outcome {
            Outcome::Refused(refusal) => flavour == MySql && refusal.reason().contains("1205"),
            Outcome::Unknown(text) => flavour == MariaDb && text.contains("done"),
            Outcome::Done(_) => false,
        };
        assert!(as_meant, "{flavour:?}: {outcome:?}");
        assert_eq!(server.admin_ask(&format!("SELECT CAST(n AS CHAR) FROM {n}.counter")).await.as_deref(), Some(left));
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_server_that_sleeps_does_not_hold_a_call_and_its_statement_is_ended() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql-probe");
        let mut options = server.options();
        options.statement_timeout = Duration::from_secs(600);
        options.max_connections = 1;
        let connection = Arc::new(SqlConnection::new(options).unwrap());
        connection.ping().await.unwrap();
        let scope = DriverScope { deadline: Duration::from_millis(800), ..scope_with(&connection) };
        let outcome = probe(&driver, &scope, r#"{"mode":"slow"}"#).await;
        assert!(matches!(outcome, Outcome::Refused(Refusal::Unavailable { .. })), "{outcome:?}");
        // The next use of either lane ends it first, and has a whole connection.
        connection.ping().await.unwrap();
        assert_eq!(server.running("SLEEP(600)").await, 0, "{flavour:?}");
        let after = refused(probe(&driver, &scope_with(&connection), r#"{"mode":"kinds"}"#).await);
        assert!(after.ends_with("|NULL|1|2"), "{after}");
        server.drop_all().await;
    }
}

/// NO-GHOST: a creation that is still on its way when its call ends does not happen after the
/// revocation that follows.
#[tokio::test]
async fn a_revocation_is_not_overtaken_by_the_creation_it_undoes() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let connection = server.connection();
        let (account, password) = (account(), generate_password());
        connection.ping().await.unwrap();
        let warm = driver.inspect(&scope_with(&connection), &plain(), "nobody").await;
        assert_eq!(warm, Outcome::Refused(Refusal::NotFound));
        let mut admin = server.admin().await;
        // Any change waits; reading and logging in do not.
        sqlx::raw_sql("FLUSH TABLES WITH READ LOCK").execute(&mut admin).await.unwrap();

        let creating = {
            let short = DriverScope { deadline: Duration::from_millis(3_000), ..scope_with(&connection) };
            let (driver, role, account) = (driver.clone(), server.role(), account.clone());
            tokio::spawn(async move { driver.create(&short, &plain(), &role, &account, &password).await })
        };
        server.until_running("CREATE USER", 1).await;
        // It waits for the lock, and nobody for it any more. (MySQL may notice that by itself.)
        let created = creating.await.unwrap();
        assert!(matches!(created, Outcome::Unknown(_)), "{flavour:?}: {created:?}");

        let removal = DriverScope { lane: Lane::Removal, ..scope_with(&connection) };
        // While the lock is still held, the revocation ends the creation, and has nothing else to do.
        assert_eq!(driver.revoke(&removal, &plain(), &account).await, Outcome::Done(()));
        assert_eq!(server.running("CREATE USER").await, 0);
        sqlx::raw_sql("UNLOCK TABLES").execute(&mut admin).await.unwrap();
        assert!(!server.account_exists(account.name.as_str()).await);
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_dropped_call_leaves_no_connection_in_an_odd_state() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let mut options = server.options();
        options.max_connections = 1;
        let connection = Arc::new(SqlConnection::new(options).unwrap());
        let scope = scope_with(&connection);
        for micros in (0..30).map(|i| i * 700) {
            let (account, password, role) = (account(), generate_password(), server.role());
            let config = plain();
            let call = driver.create(&scope, &config, &role, &account, &password);
            let ended = tokio::time::timeout(Duration::from_micros(micros), call).await;
            // Wherever it was cut off: the connection works, and removal knows what to do.
            let revoked = driver.revoke(&scope, &config, &account).await;
            assert_eq!(revoked, Outcome::Done(()), "{flavour:?} {micros} µs, {ended:?}");
            assert!(!server.account_exists(account.name.as_str()).await, "{flavour:?} {micros} µs");
        }
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let bench = bench();
        let driver = bench.driver("driver-mysql");
        let scope = scope_with(&server.connection());
        let inspect = async || driver.inspect(&scope, &plain(), "nobody").await;
        assert_eq!(inspect().await, Outcome::Refused(Refusal::NotFound));
        // As after a restart: every kept connection is dead.
        let broker = server.login_of_broker();
        let id = format!("SELECT CAST(id AS CHAR) FROM information_schema.processlist WHERE user = '{broker}'");
        while let Some(id) = server.admin_ask(&id).await {
            // It may have gone in between.
            let kill = AssertSqlSafe(format!("KILL CONNECTION {id}"));
            let _ = sqlx::raw_sql(kill).execute(&mut server.admin().await).await;
        }
        let at_once = inspect().await;
        assert!(matches!(at_once, Outcome::Refused(Refusal::NotFound | Refusal::Unavailable { .. })), "{at_once:?}");
        assert_eq!(inspect().await, Outcome::Refused(Refusal::NotFound));
        server.drop_all().await;
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_told_without_secrets() {
    for flavour in BOTH {
        let server = Server::new(flavour).await;
        let mut options = server.options();
        options.password = Some(SecretString::from("canary-password"));
        let connection = SqlConnection::new(options).unwrap();
        let error = connection.ping().await.unwrap_err().to_string();
        assert!(error.contains("Access denied") && error.contains("1045") && !error.contains("canary"), "{error}");
        assert!(!format!("{connection:?}").contains("canary"));

        // Another authority: the password is not sent.
        let other = tempfile::NamedTempFile::new().unwrap();
        let wrong = if flavour == MySql { "JIT_TEST_MARIADB_CA" } else { "JIT_TEST_MYSQL_CA" };
        std::fs::copy(std::env::var(wrong).unwrap(), other.path()).unwrap();
        let mut options = server.options();
        let authority = other.path().to_str().unwrap();
        options
            .url
            .query_pairs_mut()
            .clear()
            .append_pair("ssl-mode", "VERIFY_IDENTITY")
            .append_pair("ssl-ca", authority);
        let error = SqlConnection::new(options).unwrap().ping().await.unwrap_err().to_string();
        assert!(error.to_lowercase().contains("certificate"), "{error}");
        server.drop_all().await;
    }
}
