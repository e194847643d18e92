//! A backend that answers and takes nothing: a replica after a switch, a server in maintenance. The
//! caller hears it, nothing is left over, and the broker goes on by itself once it is over.

use std::collections::BTreeSet;

use jit_tests::backend::Backend;
use jit_tests::kit::{directory, mysql};
use jit_tests::servers::Change;
use jit_tests::world::eventually;
use jit_tests::{Database, Reply};
use serde_json::json;
use tokio::task::spawn_blocking;
use xtask::servers::mariadb::{self, MariadbServer};
use xtask::servers::mysql::MysqlServer;
use xtask::servers::slapd::SlapdServer;
use xtask::steps::Steps;

fn names<'r>(replies: impl IntoIterator<Item = &'r Reply>) -> BTreeSet<String> {
    replies.into_iter().map(|reply| reply.username().to_owned()).collect()
}

/// `close` makes the server read-only, `open` ends it; meanwhile callers are told `told`.
async fn read_only(backend: &Backend, told: (u16, &str), close: impl AsyncFn(), open: impl AsyncFn()) {
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let (before, doomed) = (world.granted("1h").await.unwrap(), world.granted("1h").await.unwrap());
    let accounts = async || backend.accounts(&world).await.unwrap().into_iter().collect::<BTreeSet<_>>();

    close().await;
    let refused = world.ask("1h").await.unwrap();
    assert_eq!((refused.status, refused.code()), told, "{}", refused.text);
    assert_eq!(refused.headers.contains_key("retry-after"), refused.status == 503, "{}", refused.text);
    let failed = world.events("issue.failed").unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let revoked = world.lease_call(&doomed, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (202, Some("revoking")), "{}", revoked.text);
    assert!(!world.events("revoke.failed").unwrap().is_empty(), "what is owed is on record");
    assert!(world.works(&before).await.unwrap(), "what was handed out works on");
    assert_eq!(accounts().await, names([&before, &doomed]));

    open().await;
    eventually("what was owed is done", async || world.lease(doomed.lease()).unwrap()["state"] == "revoked").await;
    assert!(!world.works(&doomed).await.unwrap());
    let after = world.granted("1h").await.unwrap();
    assert_eq!(accounts().await, names([&before, &after]));
    let over = world.leases().unwrap().into_iter().filter(|lease| lease["state"] != "active").collect::<Vec<_>>();
    assert!(over.iter().all(|lease| lease["state"] == "revoked"), "{over:?}");
    world.said(&["audit", "verify"]).unwrap();
}

#[tokio::test]
async fn a_postgresql_that_is_read_only_for_a_while() {
    let server = spawn_blocking(|| crate::outage::own_server(&[])).await.unwrap();
    let database = Database::create(&server.url("postgres")).await.unwrap();
    // A reload reaches sessions that are open too, as a switch of roles does.
    let set = async |statement: &str| {
        for statement in ["SET default_transaction_read_only = off", statement, "SELECT pg_reload_conf()"] {
            database.execute(statement).await.unwrap();
        }
    };
    let show = async |wanted: &str| {
        let wanted = wanted.to_owned();
        let database = &database;
        eventually("the server has it", async || {
            database.value("current_setting('default_transaction_read_only')").await.unwrap() == wanted
        })
        .await;
    };
    let close = async || {
        set("ALTER SYSTEM SET default_transaction_read_only = on").await;
        show("on").await;
    };
    let open = async || {
        set("ALTER SYSTEM RESET default_transaction_read_only").await;
        show("off").await;
    };
    let backend = Backend::Postgres(Box::new(database.clone()));
    read_only(&backend, (503, "target-unavailable"), close, open).await;
}

async fn read_only_mysql(place: mysql::Administered, variable: &str) {
    let set = async |value: u8| place.execute(&format!("SET GLOBAL {variable} = {value}")).await.unwrap();
    let backend = Backend::Mysql(place.clone());
    read_only(&backend, (503, "target-unavailable"), async || set(1).await, async || set(0).await).await;
}

#[tokio::test]
async fn a_mysql_that_is_read_only_for_a_while() {
    let start =
        || -> anyhow::Result<MysqlServer> { MysqlServer::start(&xtask::servers::mysql::binaries(&Steps::new())?) };
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let ca = server.authority().display().to_string();
    let place = mysql::Administered { server: mysql::Server::MySql, url: server.url(), ca };
    read_only_mysql(place, "super_read_only").await;
}

#[tokio::test]
async fn a_mariadb_that_is_read_only_for_a_while() {
    let start = || -> anyhow::Result<MariadbServer> { MariadbServer::start(&mariadb::binaries(&Steps::new())?) };
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let ca = server.authority().display().to_string();
    let place = mysql::Administered { server: mysql::Server::MariaDb, url: server.url(), ca };
    read_only_mysql(place, "read_only").await;
}

#[tokio::test]
async fn an_openldap_that_is_read_only_for_a_while() {
    let start =
        || -> anyhow::Result<SlapdServer> { SlapdServer::start(&xtask::servers::slapd::binaries(&Steps::new())?) };
    let server = spawn_blocking(start).await.unwrap().unwrap();
    let owned = |(name, password): (&str, &str)| (name.to_owned(), password.to_owned());
    let place = directory::Administered {
        url: server.ldaps_url(),
        ca: server.authority().display().to_string(),
        admin: owned(server.admin()),
        broker: owned(server.broker()),
    };
    let set = async |value: &'static [u8]| {
        let place = place.clone();
        let change = move || -> anyhow::Result<u32> {
            let mut directory = place.connect_as("cn=admin,cn=config")?;
            directory.modify("olcDatabase={1}mdb,cn=config", Change::Replace, "olcReadOnly", &[value])
        };
        assert_eq!(spawn_blocking(change).await.unwrap().unwrap(), 0);
    };
    let backend = Backend::OpenLdap(place.clone());
    let (close, open) = (async || set(b"TRUE").await, async || set(b"FALSE").await);
    read_only(&backend, (502, "target-refused"), close, open).await;
}
