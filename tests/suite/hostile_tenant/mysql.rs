//! The hostile holder of a lease on MySQL and MariaDB.

use std::time::Duration;

use jit_tests::Reply;
use jit_tests::backend::{Backend, BackendWorld};
use jit_tests::kit::mysql::{Administered, Server};
use jit_tests::world::eventually;
use serde_json::json;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

const BOTH: [Server; 2] = [Server::MySql, Server::MariaDb];

/// Longest wait for what a server does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, a broker in front of it, and the names of what is there.
struct Stage {
    admin: Administered,
    world: BackendWorld,
    database: String,
    role: String,
}

impl Stage {
    /// Not started yet.
    async fn set(server: Server) -> Self {
        let admin = Administered::of_the_suite(server);
        let world = Backend::Mysql(admin.clone()).world("").await.unwrap();
        let database = world.login.url.path().trim_start_matches('/').to_owned();
        let role = database.replace("inventory_", "read_only_");
        Self { admin, world, database, role }
    }

    /// As administrator.
    async fn run(&self, statements: &[&str]) {
        let mut session = self.admin.session().await.unwrap();
        for statement in statements {
            let statement = self.named(statement);
            session
                .execute(AssertSqlSafe(statement.clone()))
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// `{db}`, `{role}` and `{owner}` stand for this stage's own.
    fn named(&self, statement: &str) -> String {
        let owner = self.database.replace("inventory_", "owner_");
        statement.replace("{db}", &self.database).replace("{role}", &self.role).replace("{owner}", &owner)
    }

    /// One value, as administrator.
    async fn ask(&self, query: &str) -> Option<String> {
        let query = AssertSqlSafe(self.named(query));
        sqlx::query_scalar(query).fetch_one(&mut self.admin.session().await.unwrap()).await.unwrap()
    }

    /// A session of the lease's account.
    async fn session(&self, lease: &Reply) -> MySqlConnection {
        let options: MySqlConnectOptions = self.world.login.url.as_str().parse().unwrap();
        let options = options.username(lease.username()).password(lease.password()).disable_statement_logging();
        options.pipes_as_concat(false).no_engine_substitution(false).connect().await.unwrap()
    }

    async fn revoke(&self, lease: &Reply) -> Reply {
        self.world.lease_call(lease, "revoke", &json!({})).await.unwrap()
    }

    async fn is_revoked(&self, lease: &Reply) {
        eventually("its lease is closed", async || self.world.lease(lease.lease()).unwrap()["state"] == "revoked")
            .await;
    }

    async fn exists(&self, lease: &Reply) -> bool {
        self.admin.users(lease.username()).await.unwrap().contains(&lease.username().to_owned())
    }

    /// Puts away what its fixture does not know of.
    async fn strike(&self, statements: &[&str]) {
        self.run(statements).await;
    }
}

/// Whether the server has ended a session.
async fn is_ended(session: &mut MySqlConnection) -> bool {
    tokio::time::timeout(PATIENCE, session.ping()).await.expect("the server answers nothing").is_err()
}

/// It holds every lock that its role lets it take, so that no account of the server can be changed.
#[tokio::test]
async fn one_that_blocks_every_change_of_accounts_goes_with_its_lease() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let table = if server == Server::MySql { "user" } else { "global_priv" };
        let reads = "GRANT SELECT, LOCK TABLES ON mysql.* TO {role}";
        stage.run(&["GRANT RELOAD ON *.* TO {role}", reads]).await;
        stage.world.start().unwrap();
        let locks = ["FLUSH TABLES WITH READ LOCK".to_owned(), format!("LOCK TABLES mysql.{table} WRITE")];
        for lock in &locks {
            let (blocker, other) = (stage.world.granted("1h").await.unwrap(), stage.world.granted("1h").await.unwrap());
            let (mut holds, mut works) = (stage.session(&blocker).await, stage.session(&other).await);
            holds.execute(AssertSqlSafe(lock.clone())).await.unwrap();

            // It blocks the other's removal, but not the end of its sessions.
            let revoked = stage.revoke(&other).await;
            assert_eq!(revoked.json["state"], "revoking", "{server:?} {lock}: {}", revoked.text);
            assert!(is_ended(&mut works).await, "{server:?} {lock}: a session outlives its lease");
            // And not its own.
            stage.revoke(&blocker).await;
            assert!(is_ended(&mut holds).await, "{server:?} {lock}: a session outlives its lease");
            for lease in [&blocker, &other] {
                stage.is_revoked(lease).await;
                assert!(!stage.exists(lease).await);
            }
        }
        // One account's trouble is not the target's.
        assert!(!stage.world.log().contains("the target is back"), "{server:?}");
    }
}

/// What it leaves behind as a definer runs with its rights, and it has none any more.
#[tokio::test]
async fn what_an_account_defined_can_do_nothing_after_its_lease() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let privileges = "GRANT CREATE ROUTINE, EXECUTE, EVENT, CREATE VIEW, INSERT ON `{db}`.* TO {role}";
        stage.run(&["CREATE TABLE {db}.drop_box (id int)", privileges]).await;
        stage.world.start().unwrap();
        let lease = stage.world.granted("1h").await.unwrap();
        let mut session = stage.session(&lease).await;
        for statement in [
            "CREATE PROCEDURE {db}.run() SQL SECURITY DEFINER INSERT INTO {db}.drop_box SELECT id FROM {db}.items",
            "CREATE EVENT {db}.often ON SCHEDULE EVERY 1 HOUR STARTS CURRENT_TIMESTAMP + INTERVAL 1 HOUR DO INSERT INTO {db}.drop_box SELECT id FROM {db}.items",
        ] {
            session.execute(AssertSqlSafe(stage.named(statement))).await.unwrap();
        }
        // The same by somebody else, while the lease lives: the rights are the definer's. MariaDB gives a
        // definer none of its roles.
        let mut ran = "0";
        if server == Server::MySql {
            stage.run(&["CALL {db}.run()"]).await;
            ran = "1";
        }
        assert_eq!(stage.ask("SELECT CAST(COUNT(*) AS CHAR) FROM {db}.drop_box").await.as_deref(), Some(ran));

        let revoked = stage.revoke(&lease).await;
        let state = if server == Server::MySql { "revoking" } else { "revoked" };
        assert_eq!(revoked.json["state"], state, "{server:?}: {}", revoked.text);
        let mut admin = stage.admin.session().await.unwrap();
        let called = admin.execute(AssertSqlSafe(stage.named("CALL {db}.run()"))).await;
        assert!(called.is_err(), "{server:?}: it still runs with the account's rights");
        assert_eq!(stage.ask("SELECT CAST(COUNT(*) AS CHAR) FROM {db}.drop_box").await.as_deref(), Some(ran));
        assert!(is_ended(&mut session).await);
        if server == Server::MySql {
            // Somebody sees to it, and the account goes.
            stage.strike(&["DROP PROCEDURE {db}.run", "DROP EVENT {db}.often"]).await;
            stage.is_revoked(&lease).await;
        }
        assert!(!stage.exists(&lease).await);
    }
}

/// The list of processes shows it as the owner of what it runs.
#[tokio::test]
async fn a_session_asleep_in_a_definers_procedure_ends_with_its_lease() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        stage
            .run(&[
                "CREATE USER {owner}@'%' IDENTIFIED BY 'Owner-of-procedures-1' REQUIRE SSL",
                "GRANT ALL ON `{db}`.* TO {owner}@'%'",
                "CREATE DEFINER = {owner}@'%' PROCEDURE {db}.wait_for_job(seconds int) DO SLEEP(seconds)",
                "GRANT EXECUTE ON `{db}`.* TO {role}",
            ])
            .await;
        stage.world.start().unwrap();
        let lease = stage.world.granted("1h").await.unwrap();
        let mut session = stage.session(&lease).await;
        let call = AssertSqlSafe(stage.named("CALL {db}.wait_for_job(86400)"));
        let asleep = tokio::spawn(async move { session.execute(call).await.map(drop) });
        let owners = "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist WHERE user = '{owner}'";
        eventually("it is shown as the owner", async || stage.ask(owners).await.as_deref() == Some("1")).await;

        let revoked = stage.revoke(&lease).await;
        assert_eq!((revoked.status, &revoked.json["state"]), (200, &json!("revoked")), "{server:?}: {}", revoked.text);
        let ended = tokio::time::timeout(PATIENCE, asleep).await.expect("it sleeps on").unwrap();
        assert!(ended.is_err(), "{server:?}: it ended by itself");
        assert_eq!(stage.ask(owners).await.as_deref(), Some("0"), "{server:?}");
        stage.strike(&["DROP PROCEDURE {db}.wait_for_job", "DROP USER {owner}@'%'"]).await;
    }
}

/// Everything that is reached from the granted role counts, and the path to it is told.
#[tokio::test]
async fn a_power_one_step_behind_the_granted_role_is_refused() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let between = stage.named("between_{role}");
        let powerful = stage.named("dba_{role}");
        let (between, powerful) = (&between.replace("read_only_", ""), &powerful.replace("read_only_", ""));
        let (create, drop) = (format!("CREATE ROLE {between}, {powerful}"), format!("DROP ROLE {between}, {powerful}"));
        let (first, second) = (format!("GRANT {between} TO {{role}}"), format!("GRANT {powerful} TO {between}"));
        let power = format!("GRANT CREATE USER ON *.* TO {powerful}");
        stage.run(&[&create, &first, &second, &power]).await;
        stage.world.start().unwrap();
        let path = format!("{} → {between} → {powerful}", stage.role);
        let told = format!("has CREATE USER on everything ({path})");
        eventually("the path is told", async || stage.world.log().contains(&told)).await;
        stage.strike(&[&drop]).await;
    }
}

/// Native functions cannot be shadowed, the broker's session has no database, and what a server does
/// for each login (`init_connect`) or has as its modes (`sql_mode`) is not what the broker's session has.
#[tokio::test]
async fn nothing_that_a_tenant_makes_is_run_by_the_broker() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        let privileges = "GRANT CREATE, CREATE ROUTINE, EXECUTE, INSERT, CREATE VIEW ON `{db}`.* TO {role}";
        stage.run(&["CREATE TABLE {db}.trap (who varchar(200))", privileges]).await;
        stage.world.start().unwrap();
        let lease = stage.world.granted("1h").await.unwrap();
        let mut session = stage.session(&lease).await;
        for name in ["version", "current_user", "concat", "concat_ws", "ifnull", "octet_length", "json_value", "sleep"]
        {
            let function = format!(
                "CREATE FUNCTION `{{db}}`.`{name}`(x TEXT) RETURNS TEXT MODIFIES SQL DATA SQL SECURITY INVOKER \
                 BEGIN INSERT INTO {{db}}.trap VALUES (SESSION_USER()); RETURN x; END"
            );
            session.execute(AssertSqlSafe(stage.named(&function))).await.unwrap();
        }
        // Named like what the driver reads.
        for table in ["user", "role_edges", "processlist"] {
            session
                .execute(AssertSqlSafe(stage.named(&format!("CREATE TABLE {{db}}.{table} (id int)"))))
                .await
                .unwrap();
        }
        // New connections of the broker's, under what a careless administrator may have set.
        stage.run(&["SET GLOBAL init_connect = 'SET @jit_was_here = 1'"]).await;
        stage.world.start().unwrap();
        let other = stage.world.granted("1h").await.unwrap();
        let renewed = stage.world.lease_call(&other, "renew", &json!({"ttl": "2h"})).await.unwrap();
        assert_eq!(renewed.status, 200, "{}", renewed.text);
        let broker = stage.named("{db}").replace("inventory_", "jit_");
        let of_broker = |what: &str| {
            format!(
                "SELECT CAST(COUNT(*) AS CHAR) FROM performance_schema.threads t {what} WHERE t.PROCESSLIST_USER = '{broker}'"
            )
        };
        let sessions = stage.ask(&of_broker("")).await;
        assert_ne!(sessions.as_deref(), Some("0"), "{server:?}");
        let visited = "JOIN performance_schema.user_variables_by_thread v ON v.THREAD_ID = t.THREAD_ID AND \
                       v.VARIABLE_NAME = 'jit_was_here'";
        assert_eq!(stage.ask(&of_broker(visited)).await.as_deref(), Some("0"), "{server:?}: init_connect was run");
        let without_database = format!("{} AND t.PROCESSLIST_DB IS NULL", of_broker(""));
        assert_eq!(stage.ask(&without_database).await, sessions, "{server:?}: it has a default database");
        stage.run(&["SET GLOBAL init_connect = ''"]).await;
        for lease in [&lease, &other] {
            stage.revoke(lease).await;
        }
        assert_eq!(stage.ask("SELECT CAST(COUNT(*) AS CHAR) FROM {db}.trap").await.as_deref(), Some("0"), "{server:?}");
        for name in ["version", "current_user", "concat", "concat_ws", "ifnull", "octet_length", "json_value", "sleep"]
        {
            stage.strike(&[&format!("DROP FUNCTION `{{db}}`.`{name}`")]).await;
        }
        for lease in [&lease, &other] {
            stage.is_revoked(lease).await;
        }
    }
}

/// Each session must be ended with the lease, so their number has a bound.
#[tokio::test]
async fn an_account_has_a_bounded_number_of_sessions() {
    let mut stage = Stage::set(Server::MySql).await;
    stage.world.start().unwrap();
    let lease = stage.world.granted("1h").await.unwrap();
    let limit =
        format!("SELECT CAST(max_user_connections AS CHAR) FROM mysql.user WHERE User = '{}'", lease.username());
    assert_eq!(stage.ask(&limit).await.as_deref(), Some("100"));
    stage.revoke(&lease).await;
}

/// It prepares a transaction, which outlives session and account with its locks. The server does not say whose it is,
/// so the broker rolls back nothing of anybody's: it says what is there and what ends it.
#[tokio::test]
async fn a_prepared_transaction_that_it_leaves_is_told_with_the_remedy() {
    for server in BOTH {
        let mut stage = Stage::set(server).await;
        stage.run(&["GRANT INSERT ON `{db}`.* TO {role}", "CREATE TABLE {db}.ledger (id int)"]).await;
        stage.world.start().unwrap();
        let lease = stage.world.granted("1h").await.unwrap();
        let mut session = stage.session(&lease).await;
        let xid = format!("'{}'", stage.role);
        for statement in [
            format!("XA START {xid}"),
            stage.named("INSERT INTO {db}.ledger VALUES (1)"),
            format!("XA END {xid}"),
            format!("XA PREPARE {xid}"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session).await.unwrap();
        }
        let revoked = stage.revoke(&lease).await;
        assert_eq!(revoked.json["state"], "revoked", "{server:?}: {}", revoked.text);
        assert!(is_ended(&mut session).await && !stage.exists(&lease).await, "{server:?}");
        let told = |name: &str| {
            let log = stage.world.log();
            log.lines().any(|line| line.contains("XA ROLLBACK") && line.contains(name))
        };
        assert!(told(&format!("account: {}", lease.username())), "{server:?}: {}", stage.world.log());

        // Nobody lost it: whoever knows it may still end it either way.
        let mut admin = stage.admin.session().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("XA ROLLBACK {xid}"))).execute(&mut admin).await.unwrap();
        let after = stage.world.granted("1h").await.unwrap();
        assert_eq!(stage.revoke(&after).await.json["state"], "revoked", "{server:?}");
        let others = "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = 0";
        if stage.ask(others).await.as_deref() == Some("0") {
            assert!(!told(&format!("account={}", after.username())), "{server:?}: nothing is there any more");
        }
    }
}
