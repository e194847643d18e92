//! One story on each backend: whatever stands behind a target, applications ask in the same way, get
//! the same reply, and what they got ends with its lease.

use std::collections::BTreeSet;
use std::path::Path;

use jit_tests::backend::{Backend, BackendWorld, TARGET};
use jit_tests::world::eventually;
use jit_tests::{Database, Reply, surroundings};
use serde_json::{Value, json};

/// What each reply has. `properties` is the driver's own; `revocable` is there only where it is false.
const REPLY: [&str; 12] = [
    "connection",
    "credential",
    "ephemeral_id",
    "expires_at",
    "issued_at",
    "lease_id",
    "max_expires_at",
    "renew_after",
    "renewable",
    "role",
    "target",
    "ttl_seconds",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn moment(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Nothing in the reply tells which driver made it.
fn assert_is_the_one_reply(world: &BackendWorld, issued: &Reply, ttl: i64) {
    let mut there = keys(&issued.json);
    there.remove("properties");
    there.remove("revocable");
    assert_eq!(there, BTreeSet::from(REPLY), "{:?}", keys(&issued.json));
    assert_eq!(keys(&issued.json["credential"]), BTreeSet::from(["password", "type", "username"]));
    assert_eq!(issued.json["credential"]["type"], "password");
    assert_eq!((&issued.json["target"], &issued.json["role"]), (&json!(TARGET), &json!("app_read_only")));
    assert_eq!(issued.json["ephemeral_id"], issued.username());
    let times = ["issued_at", "renew_after", "expires_at", "max_expires_at"].map(|name| moment(&issued.json[name]));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(issued.json["ttl_seconds"], ttl);
    assert_eq!(times[2].as_second() - times[0].as_second(), ttl);
    // Where to connect: one URI, and its parts.
    let connection = &issued.json["connection"];
    let server = &world.login.url;
    assert_eq!(connection["host"], server.host_str().unwrap());
    let uri: url::Url = connection["uri"].as_str().unwrap().parse().unwrap();
    assert_eq!((uri.scheme(), uri.host_str()), (server.scheme(), server.host_str()));
    assert_eq!(connection["port"], server.port().unwrap_or(636));
    assert_eq!(uri.port().or(Some(636)), server.port().or(Some(636)));
    if server.scheme().starts_with("ldap") {
        assert!(uri.username().is_empty() && connection.get("database").is_none(), "an LDAP URI has no credential");
    } else {
        assert_eq!(connection["database"], server.path().trim_start_matches('/'));
        assert_eq!((uri.username(), uri.path()), (issued.username(), server.path()));
    }
}

/// The account may do what its role says, and no more.
async fn assert_has_its_rights(backend: &Backend, world: &BackendWorld, issued: &Reply) {
    let group = match backend {
        Backend::OpenLdap(_) => "cn=app_read_only,ou=groups,dc=example,dc=test",
        Backend::ActiveDirectory(_) => "CN=app_read_only,OU=Groups,DC=corp,DC=test",
        _ => {
            assert!(!world.login.allowed.is_empty() && !world.login.refused.is_empty());
            return world.login.has_exactly_its_rights(issued.username(), issued.password()).await.unwrap();
        }
    };
    assert_eq!(backend.groups(&world.login, issued.username()).unwrap(), [group]);
}

/// Who made it is on record, and the password is nowhere.
fn assert_is_on_record(backend: &Backend, world: &BackendWorld, issued: &Reply) {
    let records = world.events("issue.granted").unwrap();
    let record = records.iter().find(|record| record["lease_id"] == issued.lease()).unwrap();
    let component = Path::new(&surroundings("JIT_TEST_PLUGINS")).join(format!("{}.wasm", backend.driver()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(component).unwrap());
    let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record["driver_sha256"], sha256, "{record}");
    assert_eq!(record["ephemeral_id"], issued.username());
    assert_eq!(record["workload"], "payment-service");
    assert!(!record.to_string().contains(issued.password()));
}

async fn is_gone(backend: &Backend, world: &BackendWorld, issued: &Reply) -> bool {
    let accounts = backend.accounts(world).await.unwrap();
    !accounts.iter().any(|name| name == issued.username()) && !world.works(issued).await.unwrap()
}

async fn story(backend: Backend) {
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let issued = world.granted("30m").await.unwrap();
    assert_is_the_one_reply(&world, &issued, 1800);
    assert_eq!((&issued.json["renewable"], issued.json.get("revocable")), (&json!(true), None));
    assert_has_its_rights(&backend, &world, &issued).await;
    assert_eq!(backend.accounts(&world).await.unwrap(), [issued.username()]);
    assert!(!world.login.works(issued.username(), "wrong").await.unwrap());

    let renewed = world.lease_call(&issued, "renew", &json!({"ttl": "1h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    assert!(moment(&renewed.json["expires_at"]) > moment(&issued.json["expires_at"]), "{}", renewed.text);
    assert!(world.works(&issued).await.unwrap());

    let revoked = world.lease_call(&issued, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(is_gone(&backend, &world, &issued).await);

    // One that nobody revokes, while another one of the same role lives on.
    let stays = world.granted("1h").await.unwrap();
    let short = world.granted("10s").await.unwrap();
    assert_is_the_one_reply(&world, &short, 10);
    eventually("its time is over", async || is_gone(&backend, &world, &short).await).await;
    eventually("its lease is closed", async || world.lease(short.lease()).unwrap()["state"] == "revoked").await;
    assert_eq!(world.events("lease.expired").unwrap().len(), 1);
    assert!(world.works(&stays).await.unwrap());
    assert_eq!(backend.accounts(&world).await.unwrap(), [stays.username()]);

    for reply in [&issued, &stays, &short] {
        assert_is_on_record(&backend, &world, reply);
        assert_eq!(world.where_written(reply.password()).unwrap(), None);
    }
    world.said(&["audit", "verify"]).unwrap();
    let revoked = world.lease_call(&stays, "revoke", &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(backend.accounts(&world).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_account_of_postgresql_lives_exactly_as_long_as_its_lease() {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    story(Backend::Postgres(Box::new(database))).await;
}

#[tokio::test]
async fn an_account_of_mysql_lives_exactly_as_long_as_its_lease() {
    story(Backend::mysql()).await;
}

#[tokio::test]
async fn an_account_of_mariadb_lives_exactly_as_long_as_its_lease() {
    story(Backend::mariadb()).await;
}

#[tokio::test]
async fn an_account_of_openldap_lives_exactly_as_long_as_its_lease() {
    story(Backend::openldap()).await;
}

#[tokio::test]
async fn an_account_of_active_directory_lives_exactly_as_long_as_its_lease() {
    story(Backend::active_directory()).await;
}

#[tokio::test]
async fn an_account_of_openbao_lives_exactly_as_long_as_its_lease() {
    let backend = Backend::vault().await.unwrap();
    let Backend::Vault(engine) = &backend else { unreachable!() };
    let bao = (engine.bao.clone(), format!("sys/leases/lookup/{}/creds/app_read_only/?list=true", engine.mount));
    story(backend).await;
    let left = bao.0.request(reqwest::Method::GET, &bao.1, &Value::Null).await.unwrap();
    assert_eq!(left.status, 404, "leases are left: {}", left.text);
}

/// Conjur keeps the account: the reply is the same one, and says that its end takes nothing back.
#[tokio::test]
async fn an_account_that_stands_in_conjur_is_told_as_such() {
    let backend = Backend::conjur().await.unwrap();
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let issued = world.granted("30m").await.unwrap();
    assert_is_the_one_reply(&world, &issued, 1800);
    assert_eq!(issued.json["revocable"], false);
    assert_has_its_rights(&backend, &world, &issued).await;

    let revoked = world.lease_call(&issued, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(revoked.json["note"].as_str().unwrap().contains("its account stands"), "{}", revoked.text);
    assert!(world.works(&issued).await.unwrap(), "nobody changed the password");
    let short = world.granted("2s").await.unwrap();
    eventually("its lease is closed", async || world.lease(short.lease()).unwrap()["state"] == "revoked").await;
    for event in ["lease.revoked", "lease.expired"] {
        let records = world.events(event).unwrap();
        assert_eq!((records.len(), &records[0]["account_removed"]), (1, &json!(false)), "{records:?}");
    }
    assert_is_on_record(&backend, &world, &issued);
    assert_eq!(world.where_written(issued.password()).unwrap(), None);
    world.said(&["audit", "verify"]).unwrap();
}
