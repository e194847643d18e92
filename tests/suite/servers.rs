//! The servers that `cargo xtask` starts are what the drivers' tests take them for: reached with TLS
//! that is verified, set up with the files that ship, and limited as those files say.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jit_tests::servers::{Change, Directory, OpenBao};
use jit_tests::{random_name, surroundings};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection};
use xtask::servers::postgres::{PostgresServer, PostgresSettings};

/// LDAP's result codes.
const SUCCESS: u32 = 0;
const INVALID_CREDENTIALS: u32 = 49;
const INSUFFICIENT_ACCESS: u32 = 50;

/// An authority that signed none of the servers' certificates.
fn stranger() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/identity/src/tests/tls/ca.pem").canonicalize().unwrap()
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn mysql_options(name: &str, authority: &Path) -> MySqlConnectOptions {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    surroundings(name)
        .parse::<MySqlConnectOptions>()
        .unwrap()
        .ssl_mode(MySqlSslMode::VerifyIdentity)
        .ssl_ca(authority)
        // MariaDB and the newest MySQL do not know all of what it would set.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
}

/// Connects as the superuser with verified TLS, and fails to with another authority.
async fn mysql(name: &str) -> MySqlConnection {
    let authority = surroundings(&format!("{name}_CA"));
    let mut connection = mysql_options(name, authority.as_ref()).connect().await.unwrap();
    let (_, cipher): (String, String) =
        sqlx::query_as("SHOW SESSION STATUS LIKE 'Ssl_cipher'").fetch_one(&mut connection).await.unwrap();
    assert!(!cipher.is_empty());
    assert!(mysql_options(name, &stranger()).connect().await.is_err());
    connection
}

#[tokio::test]
async fn mysql_keeps_two_passwords_of_an_account() {
    let mut admin = mysql("JIT_TEST_MYSQL").await;
    let user = random_name();
    for statement in [
        format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'one' REQUIRE SSL"),
        format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'two' RETAIN CURRENT PASSWORD"),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
    }
    let authority = surroundings("JIT_TEST_MYSQL_CA");
    for password in ["one", "two"] {
        let options = mysql_options("JIT_TEST_MYSQL", authority.as_ref()).username(&user).password(password);
        options.database("information_schema").connect().await.unwrap().close().await.unwrap();
    }
    let dropped = format!("DROP USER '{user}'@'%'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(dropped)).execute(&mut admin).await.unwrap();
}

#[tokio::test]
async fn mariadb_knows_no_second_password() {
    let mut admin = mysql("JIT_TEST_MARIADB").await;
    let version: String = sqlx::query_scalar("SELECT version()").fetch_one(&mut admin).await.unwrap();
    assert!(version.contains("MariaDB"), "{version}");
    let user = random_name();
    let mut run = async |statement: String| sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await;
    run(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'one'")).await.unwrap();
    let retained = run(format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'two' RETAIN CURRENT PASSWORD")).await;
    assert!(retained.is_err());
    run(format!("DROP USER '{user}'@'%'")).await.unwrap();
}

/// As the broker, and as nobody who trusts another authority.
fn directory(url: &str, prefix: &str) -> Directory {
    let authority = surroundings(&format!("{prefix}_CA"));
    let mut directory = Directory::connect(&surroundings(url), authority.as_ref()).unwrap();
    let (name, password) = (format!("{prefix}_BROKER"), format!("{prefix}_BROKER_PASSWORD"));
    assert_eq!(directory.bind(&surroundings(&name), &surroundings(&password)).unwrap(), SUCCESS);
    assert!(Directory::connect(&surroundings(url), &stranger()).is_err());
    directory
}

#[test]
fn openldap_lets_the_broker_do_what_its_files_say_and_no_more() {
    let _ = directory("JIT_TEST_LDAP", "JIT_TEST_LDAP");
    let mut broker = directory("JIT_TEST_LDAPS", "JIT_TEST_LDAP");
    let account = format!("uid={},ou=jit,dc=example,dc=test", random_name());
    let group = "cn=app_read_write,ou=groups,dc=example,dc=test";
    let end = jiff::Timestamp::from_second(i64::try_from(unix_time()).unwrap() + 10).unwrap();
    let end = end.strftime("%Y%m%d%H%M%SZ").to_string();
    let classes: &[&[u8]] = &[b"account", b"simpleSecurityObject"];
    let made = broker
        .add(&account, &[("objectClass", classes), ("userPassword", &[b"secret"]), ("pwdEndTime", &[end.as_bytes()])]);
    assert_eq!(made.unwrap(), SUCCESS);
    assert_eq!(broker.modify(group, Change::Add, "member", &[account.as_bytes()]).unwrap(), SUCCESS);
    assert_eq!(broker.values(&account, "memberOf").unwrap(), [group]);
    assert!(broker.values(&account, "userPassword").unwrap().is_empty());

    // The group gives what it is for, until the account's end, which the server itself enforces.
    let authority = surroundings("JIT_TEST_LDAP_CA");
    let mut user = Directory::connect(&surroundings("JIT_TEST_LDAPS"), authority.as_ref()).unwrap();
    assert_eq!(user.bind(&account, "secret").unwrap(), SUCCESS);
    let setting = "cn=setting,ou=app,dc=example,dc=test";
    assert_eq!(user.modify(setting, Change::Replace, "description", &[b"two"]).unwrap(), SUCCESS);
    let begun = Instant::now();
    while user.bind(&account, "secret").unwrap() == SUCCESS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{account} outlives its end");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(user.bind(&account, "secret").unwrap(), INVALID_CREDENTIALS);

    // Neither other members, nor other groups, nor other places.
    let own = surroundings("JIT_TEST_LDAP_BROKER");
    assert_eq!(broker.modify(group, Change::Add, "member", &[own.as_bytes()]).unwrap(), INSUFFICIENT_ACCESS);
    assert_eq!(broker.modify(group, Change::Replace, "member", &[account.as_bytes()]).unwrap(), INSUFFICIENT_ACCESS);
    assert_eq!(broker.delete(group).unwrap(), INSUFFICIENT_ACCESS);
    let outside = "uid=x,ou=services,dc=example,dc=test";
    let made = broker.add(outside, &[("objectClass", classes), ("userPassword", &[b"secret"])]);
    assert_eq!(made.unwrap(), INSUFFICIENT_ACCESS);
    assert_eq!(broker.delete("ou=jit,dc=example,dc=test").unwrap(), INSUFFICIENT_ACCESS);

    assert_eq!(broker.delete(&account).unwrap(), SUCCESS);
    // Its memberships go with it, a moment later: refint works in the background.
    let begun = Instant::now();
    while broker.values(group, "member").unwrap().contains(&account) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{account} is still a member");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn active_directory_lets_the_broker_do_what_its_script_says_and_no_more() {
    let mut broker = directory("JIT_TEST_AD", "JIT_TEST_AD");
    let name = random_name();
    let account = format!("CN={name},OU=JIT,DC=corp,DC=test");
    let group = "CN=app_read_only,OU=Groups,DC=corp,DC=test";
    let mut add = |entry: &str, name: &str| {
        let (class, control): (&[&[u8]], &[&[u8]]) = (&[b"user"], &[b"514"]);
        let attributes =
            [("objectClass", class), ("sAMAccountName", &[name.as_bytes()]), ("userAccountControl", control)];
        broker.add(entry, &attributes).unwrap()
    };
    assert_eq!(add(&account, &name), SUCCESS);
    assert_eq!(add(&format!("CN={name}x,CN=Users,DC=corp,DC=test"), &format!("{name}x")), INSUFFICIENT_ACCESS);
    let password: Vec<u8> = "\"Jit.secret1\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(broker.modify(&account, Change::Replace, "unicodePwd", &[&password]).unwrap(), SUCCESS);
    assert_eq!(broker.modify(&account, Change::Replace, "userAccountControl", &[b"512"]).unwrap(), SUCCESS);
    assert_eq!(broker.modify(group, Change::Add, "member", &[account.as_bytes()]).unwrap(), SUCCESS);

    let authority = surroundings("JIT_TEST_AD_CA");
    let mut app = Directory::connect(&surroundings("JIT_TEST_AD"), authority.as_ref()).unwrap();
    assert_eq!(app.bind(&account, "Jit.secret1").unwrap(), SUCCESS);
    assert_eq!(app.values(&account, "memberOf").unwrap(), [group]);
    // 2022, as Active Directory counts time.
    assert_eq!(broker.modify(&account, Change::Replace, "accountExpires", &[b"133000000000000000"]).unwrap(), SUCCESS);
    assert_eq!(app.bind(&account, "Jit.secret1").unwrap(), INVALID_CREDENTIALS);

    // Neither other groups nor other accounts.
    let admins = "CN=Domain Admins,CN=Users,DC=corp,DC=test";
    assert_eq!(broker.modify(admins, Change::Add, "member", &[account.as_bytes()]).unwrap(), INSUFFICIENT_ACCESS);
    let admin = surroundings("JIT_TEST_AD_ADMIN");
    assert_eq!(broker.modify(&admin, Change::Replace, "unicodePwd", &[&password]).unwrap(), INSUFFICIENT_ACCESS);
    assert_eq!(broker.delete(&account).unwrap(), SUCCESS);
    // Others' accounts may be in it.
    let members = broker.values(group, "member").unwrap();
    assert!(!members.iter().any(|member| member.contains(&name)), "{members:?}");
}

#[tokio::test]
async fn openbao_is_unsealed_and_obeys_its_root_token_only() {
    let bao = OpenBao::of_the_suite().unwrap();
    let path = format!("auth/{}", random_name());
    bao.write(&format!("sys/{path}"), &json!({"type": "approle"})).await.unwrap();
    let mounts = bao.request(Method::GET, "sys/auth", &Value::Null).await.unwrap();
    assert_eq!(mounts.json["data"][format!("{}/", &path[5..])]["type"], "approle", "{}", mounts.text);
    let stranger = bao.with_token("s.wrong").request(Method::GET, "sys/auth", &Value::Null).await.unwrap();
    assert_eq!(stranger.status, 403);
    let gone = bao.request(Method::DELETE, &format!("sys/{path}"), &Value::Null).await.unwrap();
    assert_eq!(gone.status, 204);

    let untrusted = OpenBao::new(&surroundings("JIT_TEST_OPENBAO"), Some(&self::stranger()), "").unwrap();
    assert!(untrusted.request(Method::GET, "sys/health", &Value::Null).await.is_err());
}

#[tokio::test]
async fn a_postgresql_asks_the_directory_for_passwords() {
    let mut broker = directory("JIT_TEST_LDAPS", "JIT_TEST_LDAP");
    let user = random_name();
    let account = format!("uid={user},ou=jit,dc=example,dc=test");
    let classes: &[&[u8]] = &[b"account", b"simpleSecurityObject"];
    let made = broker.add(&account, &[("objectClass", classes), ("userPassword", &[b"secret"])]);
    assert_eq!(made.unwrap(), SUCCESS);

    let ldap = url::Url::parse(&surroundings("JIT_TEST_LDAP")).unwrap();
    let rule = format!(
        "host all {user} 127.0.0.1/32 ldap ldapserver=127.0.0.1 ldapport={} ldaptls=1 ldapprefix=\"uid=\" \
         ldapsuffix=\",ou=jit,dc=example,dc=test\"",
        ldap.port().unwrap()
    );
    let bin = surroundings("JIT_TEST_POSTGRES_LDAP_BIN");
    let settings = PostgresSettings {
        hba: vec![rule],
        environment: vec![("LDAPTLS_CACERT".into(), surroundings("JIT_TEST_LDAP_CA"))],
        own_group: true,
        ..PostgresSettings::default()
    };
    let server =
        tokio::task::spawn_blocking(move || PostgresServer::start(bin.as_ref(), &settings)).await.unwrap().unwrap();
    let admin: sqlx::postgres::PgConnectOptions = server.url("postgres").parse().unwrap();
    let mut connection = admin.connect().await.unwrap();
    let create = format!("CREATE ROLE \"{user}\" LOGIN");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await.unwrap();

    let login = async |password: &str| {
        admin.clone().username(&user).password(password).connect().await.map(drop).map_err(|error| error.to_string())
    };
    login("secret").await.unwrap();
    assert!(login("wrong").await.is_err());
    assert_eq!(broker.delete(&account).unwrap(), SUCCESS);
    assert!(login("secret").await.is_err());
}
