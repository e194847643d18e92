//! An account of the directory at work: it logs in to a PostgreSQL that asks the directory for
//! passwords, for as long as its lease and no longer.
//!
//! The directory says who may log in; PostgreSQL asks it with the user's own name and has to have a
//! role of that name (its `ldap` rules take no map of names). Such roles come from a synchronisation
//! (ldap2pg and its like), which makes one for each member of a group. This one does the same.

use jit_tests::backend::{Backend, BackendWorld, TARGET};
use jit_tests::kit::directory::Administered;
use jit_tests::surroundings;
use jit_tests::world::eventually;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use xtask::servers::postgres::{PostgresServer, PostgresSettings};

const GROUP: &str = "cn=app_read_only,ou=groups,dc=example,dc=test";
const UNIT: &str = ",ou=jit,dc=example,dc=test";

/// Members of the database's role log in with what the directory has; StartTLS, verified.
async fn postgres() -> PostgresServer {
    let ldap: url::Url = surroundings("JIT_TEST_LDAP").parse().unwrap();
    let rule = format!(
        "host all +app_read_only 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={} ldaptls=1 \
         ldapprefix=\"uid=\" ldapsuffix=\"{UNIT}\"",
        ldap.port().unwrap()
    );
    let settings = PostgresSettings {
        hba: vec![rule],
        environment: vec![("LDAPTLS_CACERT".into(), surroundings("JIT_TEST_LDAP_CA"))],
        own_group: true,
        ..PostgresSettings::default()
    };
    let bin = surroundings("JIT_TEST_POSTGRES_LDAP_BIN");
    let started = tokio::task::spawn_blocking(move || PostgresServer::start(bin.as_ref(), &settings));
    let server = started.await.unwrap().unwrap();
    let mut admin = admin(&server).await;
    for statement in [
        "CREATE TABLE items (id int)",
        "INSERT INTO items VALUES (1)",
        "CREATE ROLE app_read_only NOLOGIN",
        "GRANT SELECT ON items TO app_read_only",
    ] {
        admin.execute(statement).await.unwrap();
    }
    server
}

async fn admin(server: &PostgresServer) -> PgConnection {
    server.url("postgres").parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

/// Each of this world's accounts in the group has a role in the database, and nobody else has.
async fn synchronise(world: &BackendWorld, server: &PostgresServer) {
    let mut directory = Administered::openldap().connect().unwrap();
    let members = directory.values(GROUP, "member").unwrap();
    let ours = members.iter().filter_map(|member| member.strip_prefix("uid=")?.strip_suffix(UNIT));
    let wanted: Vec<&str> = ours.filter(|name| name.starts_with(&world.prefix)).collect();
    let mut admin = admin(server).await;
    let query = "SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'app_read_only', 'member') \
                 AND rolcanlogin AND NOT rolsuper";
    let there: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut admin).await.unwrap();
    let missing = wanted.iter().filter(|name| !there.iter().any(|role| role == *name));
    let made = missing.map(|name| format!("CREATE ROLE \"{name}\" LOGIN IN ROLE app_read_only"));
    let over = there.iter().filter(|role| !wanted.contains(&role.as_str()));
    let dropped = over.map(|role| format!("DROP ROLE \"{role}\""));
    for statement in made.chain(dropped).collect::<Vec<_>>() {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

/// Connects exactly as the reply says.
async fn log_in(reply: &jit_tests::Reply) -> Result<PgConnection, sqlx::Error> {
    reply.text_at("/connection/uri").parse::<PgConnectOptions>()?.connect().await
}

#[tokio::test]
async fn a_database_that_asks_the_directory_lets_the_account_in_until_its_lease_ends() {
    let server = postgres().await;
    let endpoint = format!(
        "[targets.{TARGET}.endpoint]\nscheme = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\n\
         database = \"postgres\"\n",
        server.port()
    );
    let backend = Backend::openldap();
    let mut world = backend.world(&endpoint).await.unwrap();
    world.start().unwrap();
    let issued = world.granted("1h").await.unwrap();
    assert!(log_in(&issued).await.is_err(), "PostgreSQL has no role of that name yet");
    synchronise(&world, &server).await;
    let mut session = log_in(&issued).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM items").fetch_one(&mut session).await.unwrap();
    assert_eq!(count, 1);
    assert!(session.execute("DELETE FROM items").await.is_err(), "the role may only read");
    let wrong = issued.text_at("/connection/uri").parse::<PgConnectOptions>().unwrap().password("wrong");
    assert!(wrong.connect().await.is_err());

    // The role is still there: it is the directory that says no.
    let revoked = world.lease_call(&issued, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    let refused = log_in(&issued).await.unwrap_err();
    assert!(refused.to_string().contains("LDAP authentication failed"), "{refused}");
    // A session goes on, as the driver's page says; the database ends it, not the directory.
    session.execute("SELECT 1").await.unwrap();
    drop(session);
    synchronise(&world, &server).await;
    let refused = log_in(&issued).await.unwrap_err();
    assert!(!refused.to_string().contains("LDAP"), "{refused}");

    // Nobody is there to remove this one: the directory itself ends the login (BACKSTOP), and with
    // it that of the database.
    let short = world.granted("10s").await.unwrap();
    synchronise(&world, &server).await;
    log_in(&short).await.unwrap();
    world.broker.as_mut().unwrap().kill().unwrap();
    eventually("the database refuses", async || log_in(&short).await.is_err()).await;
    assert_eq!(backend.accounts(&world).await.unwrap(), [short.username()]);
    world.start().unwrap();
    eventually("the entry is removed", async || backend.accounts(&world).await.unwrap().is_empty()).await;
}
