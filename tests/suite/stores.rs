//! The store in PostgreSQL, beneath whole brokers: one, several at the same time of which some die or freeze, and a
//! server that is killed beneath them.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jit_tests::world::{eventually, read};
use jit_tests::{BrokerProcess, Client, Issuer, Key, Settings, StoreDatabase, World, surroundings};
use serde_json::json;
use xtask::servers::postgres::{self, PostgresServer, PostgresSettings};
use xtask::steps::Steps;

/// Tokens that are good at each broker of a store.
struct Tokens {
    key: Key,
    issuer: Issuer,
}

impl Tokens {
    async fn new() -> Self {
        let key = Key::generate("key-1").unwrap();
        Self { issuer: Issuer::start(&[&key]).await.unwrap(), key }
    }

    fn section(&self) -> String {
        let url = &self.issuer.url;
        format!(
            "[[identity.jwt]]\nname = \"own\"\nissuer = \"{url}\"\naudiences = [\"jit-broker\"]\nworkload = \"{{sub}}\"\n"
        )
    }

    fn token(&self) -> String {
        self.key.token(&self.issuer.claims("payment-service")).unwrap()
    }
}

async fn world_on(store: &StoreDatabase, more: &str) -> World {
    let settings = Settings { store: store.section(), more: more.to_owned(), ..Settings::default() };
    let mut world = World::prepared(settings).await;
    world.write_secret("store.password", &store.password).unwrap();
    world.start(&[]).await;
    world
}

/// Another broker of the same store with another configuration where `change` makes one, on another port: as on another
/// machine.
async fn another_with(world: &World, letter: char, change: impl FnOnce(String) -> String) -> BrokerProcess {
    let text = read(&world.config()).unwrap();
    let text = text.replace("\"admin.sock\"", &format!("\"admin-{letter}.sock\""));
    let text = change(text.replace("\"audit.jsonl\"", &format!("\"audit-{letter}.jsonl\"")));
    let config = world.folder.path().join(format!("broker-{letter}.toml"));
    std::fs::write(&config, text).unwrap();
    let (binary, log) = (world.binary(), world.folder.path().join(format!("broker-{letter}.log")));
    let starting = move || BrokerProcess::start(&binary, &config, "127.0.0.1:0", &[], &log);
    tokio::task::spawn_blocking(starting).await.unwrap().unwrap()
}

async fn another(world: &World, letter: char) -> BrokerProcess {
    another_with(world, letter, |text| text).await
}

fn client_of(process: &BrokerProcess) -> Client {
    Client::new(&process.broker, &process.issuer)
}

fn signal(process: &BrokerProcess, name: &str) {
    assert!(Command::new("kill").args([name, &process.pid().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_broker_serves_from_a_database() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let mut world = world_on(&store, "").await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "30m"});
    let kept = client.issue_with_key(&token, "kept", &body).await.unwrap();
    let given_back = client.issue(&token, &body).await.unwrap();
    assert_eq!((kept.status, given_back.status), (201, 201), "{} {}", kept.text, given_back.text);
    let renewed = client.post(&format!("/v1/leases/{}/renew", kept.lease()), &token, &json!({"ttl": "1h"})).await;
    assert_eq!(renewed.unwrap().status, 200);
    let revoked = client.post(&format!("/v1/leases/{}/revoke", given_back.lease()), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(world.accounts().await, [kept.username()]);
    let status = world.cli(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["store"]["kind"], "postgres", "{status}");
    let config = world.config_with_issuer();
    let offline = world.cli(&["config", "check", "--config", config.to_str().unwrap(), "--offline"]);
    let offline = String::from_utf8_lossy(&offline.stdout).into_owned();
    assert!(offline.contains(&format!("/{}: not asked (--offline)", store.name)), "{offline}");
    let checked = world.cli(&["config", "check", "--config", config.to_str().unwrap()]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    let expected = format!("store postgres://{}/{}: good, version 1.0, ", store.address, store.name);
    assert!(checked.contains(&expected), "{checked}");

    assert!(world.process().stop().unwrap().success());
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let again = client.issue_with_key(&token, "kept", &body).await.unwrap();
    assert_eq!((again.lease(), again.username()), (kept.lease(), kept.username()), "{}", again.text);
    world.database.login(again.username(), again.password()).await.unwrap();
    world.assert_settled(&[kept.lease().to_owned(), given_back.lease().to_owned()]).await;
    for text in [world.process().log(), checked, status.to_string()] {
        assert!(!text.contains(&store.password), "the password of the store shows");
    }
}

/// Three brokers serve at the same time. A key has one account, whichever of them is asked; what one of them made, the
/// others renew and end.
#[tokio::test]
async fn several_brokers_serve_as_one() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let tokens = Tokens::new().await;
    let world = world_on(&store, &tokens.section()).await;
    let (second, third) = (another(&world, 'b').await, another(&world, 'c').await);
    let clients = [world.client(), client_of(&second), client_of(&third)];
    let token = tokens.token();
    let body = json!({"target": "inventory_db", "ttl": "30m"});
    // All at once, and again and again where one of them says that the request is at work elsewhere.
    let asked = (0..12).map(|n| {
        let (client, token, body) = (&clients[n % 3], &token, &body);
        async move {
            loop {
                let reply = client.issue_with_key(token, "one-account", body).await.unwrap();
                match reply.status {
                    201 => return reply.lease().to_owned(),
                    503 => tokio::time::sleep(Duration::from_millis(50)).await,
                    _ => panic!("{}", reply.text),
                }
            }
        }
    });
    let leases = futures_util::future::join_all(asked).await;
    assert!(leases.iter().all(|lease| *lease == leases[0]), "{leases:?}");
    assert_eq!(world.accounts().await.len(), 1);
    // The last answer is the one that holds, and it holds at whichever broker it was asked for.
    for client in [&clients[0], &clients[1], &clients[1], &clients[0], &clients[2]] {
        let again = client.issue_with_key(&token, "one-account", &body).await.unwrap();
        assert_eq!((again.status, again.lease()), (201, leases[0].as_str()), "{}", again.text);
        world.database.login(again.username(), again.password()).await.unwrap();
    }
    let other = json!({"target": "inventory_db", "ttl": "20m"});
    assert_eq!(clients[1].issue_with_key(&token, "one-account", &other).await.unwrap().status, 409);

    let path = format!("/v1/leases/{}", leases[0]);
    let renewed = clients[1].post(&format!("{path}/renew"), &token, &json!({"ttl": "1h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let revoked = clients[2].post(&format!("{path}/revoke"), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert!(world.accounts().await.is_empty());
    for client in &clients {
        let refused = client.post(&format!("{path}/renew"), &token, &json!({"ttl": "1h"})).await.unwrap();
        assert_eq!((refused.status, refused.code()), (409, "lease-not-active"), "{}", refused.text);
    }
    let status = world.cli(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["brokers"].as_array().unwrap().len(), 3, "{status}");
    assert_eq!(status["alarms"], json!([]));
    world.assert_settled(&leases[..1]).await;
}

/// A broker is killed while it serves. The others go on, and remove its accounts when their time has come.
#[tokio::test]
async fn a_broker_that_is_killed_is_taken_over() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let tokens = Tokens::new().await;
    let mut world = world_on(&store, &tokens.section()).await;
    let second = another(&world, 'b').await;
    let (client, token) = (client_of(&second), tokens.token());
    let long = json!({"target": "inventory_db", "ttl": "30m"});
    let kept = world.client().issue_with_key(&token, "kept", &long).await.unwrap();
    let short = world.client().issue(&token, &json!({"target": "inventory_db", "ttl": "5s"})).await.unwrap();
    assert_eq!((kept.status, short.status), (201, 201), "{} {}", kept.text, short.text);
    world.process().kill().unwrap();
    let own = client.issue(&token, &long).await.unwrap();
    assert_eq!(own.status, 201, "the other one serves: {}", own.text);
    eventually("the account of the one that was killed is gone", async || world.accounts().await.len() == 2).await;
    let again = client.issue_with_key(&token, "kept", &long).await.unwrap();
    assert_eq!((again.lease(), again.username()), (kept.lease(), kept.username()), "{}", again.text);
    world.database.login(again.username(), again.password()).await.unwrap();
    let revoked = client.post("/v1/leases/revoke", &token, &json!({"all": true})).await.unwrap();
    assert!(matches!(revoked.status, 200 | 202), "{}", revoked.text);
    eventually("all accounts are gone", async || world.accounts().await.is_empty()).await;
    assert_eq!(world.events("broker.fenced").len(), 1);
    world.assert_log_is_intact();
}

/// A broker that is frozen for so long that another one fences it writes nothing when it wakes up, and ends.
#[tokio::test]
async fn a_frozen_broker_is_fenced_and_writes_nothing_more() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let tokens = Tokens::new().await;
    let mut world = world_on(&store, &tokens.section()).await;
    let second = another(&world, 'b').await;
    let (client, token) = (client_of(&second), tokens.token());
    let body = json!({"target": "inventory_db", "ttl": "30m"});
    let first = world.client().issue(&token, &body).await.unwrap();
    let short = world.client().issue(&token, &json!({"target": "inventory_db", "ttl": "5s"})).await.unwrap();
    assert_eq!((first.status, short.status), (201, 201), "{} {}", first.text, short.text);
    signal(world.process(), "-STOP");
    let issued = client.issue(&token, &body).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    eventually("its expired account is removed by the other", async || world.accounts().await.len() == 2).await;
    signal(world.process(), "-CONT");
    let ended = world.process().wait_for_end(Duration::from_secs(90)).unwrap();
    assert!(!ended.success(), "it was not asked to stop");
    let log = world.process().log();
    assert!(log.contains("another broker fenced this one"), "{log}");
    for lease in [first.lease(), issued.lease()] {
        let found = client.get(&format!("/v1/leases/{lease}"), &token).await.unwrap();
        assert_eq!(found.json["state"], "active", "{}", found.text);
    }
    assert_eq!(world.accounts().await.len(), 2);
    world.assert_log_is_intact();
    assert_eq!(world.events("broker.fenced").len(), 1);
    assert!(world.events("broker.stopped").is_empty(), "it wrote nothing more");
}

/// A lease passes from a broker whose configuration lacks its driver to one that has it. That the configurations differ
/// is an alarm.
#[tokio::test]
async fn a_broker_leaves_what_it_has_no_driver_for() {
    let store = StoreDatabase::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let tokens = Tokens::new().await;
    let mut world = world_on(&store, &tokens.section()).await;
    let lacking = |text: String| {
        text.replace("connections.inventory]", "connections.elsewhere]").replace("\"inventory\"", "\"elsewhere\"")
    };
    let second = another_with(&world, 'b', lacking).await;
    let token = tokens.token();
    let lease = world.client().issue(&token, &json!({"target": "inventory_db", "ttl": "12s"})).await.unwrap();
    assert_eq!(lease.status, 201, "{}", lease.text);
    eventually("each sees that the other differs", async || {
        let status = world.cli(&["status"]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        status.contains("ALARM  brokers: the 2 brokers of this store have 2 different configurations")
    })
    .await;
    world.process().kill().unwrap();
    eventually("the one that lacks it has the lease", async || {
        second.log().contains("the leases of a broker that has ended are this one's now")
    })
    .await;
    assert_eq!(world.accounts().await.len(), 1);
    let third = another(&world, 'c').await;
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    assert!(second.log().contains("another broker of the store has this lease now"), "{}", second.log());
    drop(third);
    world.assert_log_is_intact();
}

/// A server of one's own for the store.
async fn own_server() -> PostgresServer {
    let steps = Steps::new();
    let server = tokio::task::spawn_blocking(move || {
        let binaries = postgres::any(17, &steps).unwrap();
        PostgresServer::start(binaries.bin(), &PostgresSettings::default()).unwrap()
    });
    server.await.unwrap()
}

/// Callers that ask without a pause until they are stopped; each gives the leases whose secret it got.
struct Callers {
    ended: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
    granted: Arc<AtomicUsize>,
}

impl Callers {
    fn begin(world: &World, tokens: &Tokens) -> Self {
        let (ended, granted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..6)
            .map(|_| {
                let (client, token) = (world.client(), tokens.token());
                let (ended, granted) = (Arc::clone(&ended), Arc::clone(&granted));
                tokio::spawn(async move {
                    let mut disclosed = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        let body = json!({"target": "inventory_db", "ttl": "30m"});
                        let reply = client.issue(&token, &body).await.unwrap();
                        match reply.status {
                            201 => {
                                disclosed.push(reply.lease().to_owned());
                                granted.fetch_add(1, Ordering::Relaxed);
                            }
                            503 | 504 => tokio::time::sleep(Duration::from_millis(50)).await,
                            _ => panic!("{}", reply.text),
                        }
                    }
                    disclosed
                })
            })
            .collect();
        Self { ended, tasks, granted }
    }

    /// Waits until more were granted.
    async fn serve_on(&self) {
        let before = self.granted.load(Ordering::Relaxed);
        eventually("more is granted", async || self.granted.load(Ordering::Relaxed) > before + 5).await;
    }

    async fn end(self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        let mut disclosed = Vec::new();
        for task in self.tasks {
            disclosed.extend(task.await.unwrap());
        }
        disclosed
    }
}

/// The store's server is killed again and again while many ask: each request ends clearly, and afterwards every account
/// has its lease, and every lease its record.
#[tokio::test]
async fn the_stores_server_is_killed_under_load() {
    let mut server = own_server().await;
    let store = StoreDatabase::create(&server.url("postgres")).await.unwrap();
    let tokens = Tokens::new().await;
    let world = world_on(&store, &tokens.section()).await;
    let callers = Callers::begin(&world, &tokens);
    for _ in 0..3 {
        callers.serve_on().await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.start_again().unwrap();
            server
        })
        .await
        .unwrap();
    }
    callers.serve_on().await;
    let disclosed = callers.end().await;
    world.assert_settled(&disclosed).await;
    drop(server);
}

/// The primary dies under load and its replica is promoted: the broker finds it, and nothing that was answered is lost.
#[tokio::test]
async fn a_replica_that_is_promoted_is_found() {
    let mut primary = own_server().await;
    let store = StoreDatabase::create(&primary.url("postgres")).await.unwrap();
    let both = tokio::task::spawn_blocking(move || {
        let standby = primary.standby().unwrap();
        (primary, standby)
    });
    let (mut primary, standby) = both.await.unwrap();
    let superuser = |server: &PostgresServer| {
        let options: sqlx::postgres::PgConnectOptions = server.url("postgres").parse().unwrap();
        async move { sqlx::ConnectOptions::connect(&options).await.unwrap() }
    };
    // From here on a commit is answered when the replica has it.
    let mut connection = superuser(&primary).await;
    for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    eventually("the replica follows", async || {
        let state: Option<String> = sqlx::query_scalar("SELECT sync_state FROM pg_stat_replication")
            .fetch_optional(&mut superuser(&primary).await)
            .await
            .unwrap();
        state.as_deref() == Some("sync")
    })
    .await;
    let tokens = Tokens::new().await;
    let addresses = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let settings = Settings { store: store.section_at(&addresses), more: tokens.section(), ..Settings::default() };
    let mut world = World::prepared(settings).await;
    world.write_secret("store.password", &store.password).unwrap();
    world.start(&[]).await;
    let callers = Callers::begin(&world, &tokens);
    callers.serve_on().await;
    let primary = tokio::task::spawn_blocking(move || {
        primary.kill();
        primary
    });
    let primary = primary.await.unwrap();
    sqlx::query("SELECT pg_promote()").execute(&mut superuser(&standby).await).await.unwrap();
    callers.serve_on().await;
    let disclosed = callers.end().await;
    world.assert_settled(&disclosed).await;
    drop((primary, standby));
}
