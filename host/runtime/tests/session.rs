//! The `session` capability: credentials as handles, and what is kept between calls. Which secret a
//! handle stands for is seen by a real server, to which the driver sends it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod fixtures;
#[path = "fixtures/web.rs"]
mod web;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fixtures::{Bench, account, bench_with, role, scope, spec, target};
use jit_core::outcome::{Outcome, Refusal};
use jit_runtime::{
    Connection, DriverPlugin, DriverScope, HttpConnection, HttpConnectionOptions, Kept, Limits, PluginSpec,
    SessionStore,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use web::{Backend, Source, connection, options, reply};

/// A server whose `login` gives `canary-<last segment>` as a token.
async fn backend() -> Backend {
    Backend::start(|seen| match seen.target.rsplit_once("/login/") {
        Some((_, token)) => reply(200, format!("canary-{token}")),
        None => reply(200, "ok"),
    })
    .await
}

fn bench() -> Bench {
    bench_with(Limits { reason_bytes: 1 << 20, ..Limits::default() }, 64)
}

fn scope_of(connection: &Arc<HttpConnection>) -> DriverScope {
    DriverScope { connection: Some(Arc::clone(connection) as Connection), ..scope() }
}

/// What the steps gave.
async fn run(driver: &DriverPlugin, connection: &Arc<HttpConnection>, steps: Value) -> Vec<Value> {
    let config = target(&json!({ "steps": steps }).to_string());
    let password = SecretString::from("canary-password");
    let outcome = driver.create(&scope_of(connection), &config, &role("{}"), &account(), &password).await;
    let Outcome::Refused(Refusal::Target(text)) = outcome else { panic!("{outcome:?}") };
    assert!(!text.contains("canary"), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn login(token: &str) -> Value {
    json!({ "send": { "path": ["login", token], "withhold": [""], "as": [token] } })
}

fn keep(key: &str, secret: &str, valid: u64, unless: u64) -> Value {
    json!({ "keep": { "key": key, "secret": secret, "valid": valid, "unless": unless, "as": "held" } })
}

fn kept(key: &str, at_least: u64) -> Value {
    json!({ "kept": { "key": key, "at_least": at_least, "as": "held" } })
}

/// Sends the secret of that name, for the server to see.
fn show(secret: &str) -> Value {
    json!({ "send": { "path": ["show"], "headers": [["x-shown", [{ "secret": secret }]]] } })
}

/// What was shown, in order.
fn shown(backend: &Backend) -> Vec<String> {
    let seen = backend.seen.lock().unwrap();
    seen.iter().filter_map(|seen| seen.header("x-shown")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_credential_is_read_anew_by_each_call() {
    let backend = backend().await;
    let source = Source::new("canary-one");
    let mut options = options(&backend.url);
    options.secrets.insert("token".to_owned(), source.shared());
    let (bench, connection) = (bench(), connection(options));
    let driver = bench.driver("driver-http");
    let steps = || json!([{ "credential": { "name": "token", "as": "t" } }, show("t")]);
    run(&driver, &connection, steps()).await;
    *source.0.lock().unwrap() = Ok(SecretString::from("canary-two"));
    run(&driver, &connection, steps()).await;
    assert_eq!(shown(&backend), ["canary-one", "canary-two"]);

    let unknown = json!([{ "credential": { "name": "role\u{1b}_id", "as": "t" } }]);
    let told = run(&driver, &connection, unknown).await;
    let text = told[0]["no_credential"].as_str().unwrap();
    assert!(text.contains("[connections.vault.secrets]") && !text.contains('\u{1b}'), "{text}");
    let ask = || json!([{ "credential": { "name": "token", "as": "t" } }]);
    for (state, word) in [
        (Err("the file is gone".to_owned()), "the file is gone"),
        (Ok(SecretString::from("")), "is empty"),
        (Ok(SecretString::from("x".repeat((64 << 10) + 1))), "bytes"),
    ] {
        *source.0.lock().unwrap() = state;
        let told = run(&driver, &connection, ask()).await;
        assert!(told[0]["no_credential"].as_str().unwrap().contains(word), "{told:?}");
    }
    assert_eq!(bench.runtime.handles_left_behind(), 0);
}

#[tokio::test]
async fn what_is_kept_is_there_for_the_next_call_while_it_is_valid() {
    let backend = backend().await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let told = run(&driver, &connection, json!([kept("k", 0), login("a"), keep("k", "a", 100, 0), show("held")])).await;
    assert_eq!((&told[0], &told[2]), (&json!("not kept"), &json!("holds")));
    let told = run(&driver, &connection, json!([kept("k", 90), show("held"), kept("other", 0), kept("k", 102)])).await;
    assert_eq!((&told[0], &told[2], &told[3]), (&json!("kept"), &json!("not kept"), &json!("not kept")));
    assert_eq!(shown(&backend), ["canary-a", "canary-a"]);
    // The same secret again moves its end, sooner as well as later.
    let told = run(&driver, &connection, json!([kept("k", 0), keep("k", "held", 1_000, 0), kept("k", 900)])).await;
    assert_eq!(told[2], "kept");
    let told = run(&driver, &connection, json!([kept("k", 0), keep("k", "held", 0, 0), kept("k", 0)])).await;
    assert_eq!(told[2], "not kept");
    // Valid for a second, and no longer.
    run(&driver, &connection, json!([login("b"), keep("k", "b", 1, 0)])).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(run(&driver, &connection, json!([kept("k", 0)])).await[0], "not kept");
    // Longer than any clock counts.
    let told = run(&driver, &connection, json!([login("c"), keep("k", "c", u64::MAX, 0), kept("k", 1 << 32)])).await;
    assert_eq!(told[2], "kept");
}

#[tokio::test]
async fn who_kept_first_is_who_holds() {
    let backend = backend().await;
    let options = HttpConnectionOptions { max_connections: 50, ..options(&backend.url) };
    let (bench, connection) = (bench(), connection(options));
    let driver = bench.driver("driver-http");
    run(&driver, &connection, json!([login("a"), keep("k", "a", 100, 0)])).await;
    // Valid for longer than 50 seconds: it stays. Not for longer than 200: it goes.
    run(&driver, &connection, json!([login("b"), keep("k", "b", 100, 50), show("held")])).await;
    run(&driver, &connection, json!([login("c"), keep("k", "c", 100, 200), show("held"), kept("k", 0), show("held")]))
        .await;
    assert_eq!(shown(&backend), ["canary-a", "canary-c", "canary-c"]);

    backend.seen.lock().unwrap().clear();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (driver, connection) = (driver.clone(), Arc::clone(&connection));
        let token = format!("t{number}");
        let steps = json!([login(&token), keep("raced", &token, 100, 50), show("held")]);
        calls.spawn(async move { run(&driver, &connection, steps).await });
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
    let shown = shown(&backend);
    assert_eq!(shown.len(), 20);
    assert!(shown.iter().all(|token| *token == shown[0]), "{shown:?}");
}

#[tokio::test]
async fn one_call_makes_what_is_missing_and_the_others_wait_for_it() {
    let backend = backend().await;
    let options = HttpConnectionOptions { max_connections: 50, ..options(&backend.url) };
    let (bench, connection) = (bench(), connection(options));
    let driver = bench.driver("driver-http");
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..10 {
        let (driver, connection) = (driver.clone(), Arc::clone(&connection));
        let token = format!("t{number}");
        let steps = json!([kept("turns", 0), login(&token), keep("turns", &token, 100, 0)]);
        calls.spawn(async move { run(&driver, &connection, steps).await[0].clone() });
    }
    let mut first = 0;
    while let Some(told) = calls.join_next().await {
        first += usize::from(told.unwrap() != "kept");
    }
    assert_eq!(first, 1, "calls that found nothing kept");

    // A turn ends with its call, also when that has kept nothing.
    assert_ne!(run(&driver, &connection, json!([kept("never", 0)])).await[0], "kept");
    assert_ne!(run(&driver, &connection, json!([kept("never", 0)])).await[0], "kept");
}

#[tokio::test]
async fn only_the_secret_that_failed_is_forgotten() {
    let backend = backend().await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let forget = |secret: &str| json!({ "forget": { "key": "k", "secret": secret } });
    let steps =
        json!([login("a"), login("b"), keep("k", "a", 100, 0), forget("b"), kept("k", 0), forget("a"), kept("k", 0)]);
    let told = run(&driver, &connection, steps).await;
    assert_eq!((&told[4], &told[6]), (&json!("kept"), &json!("not kept")));
}

#[tokio::test]
async fn plugins_and_connections_share_nothing() {
    let backend = backend().await;
    let (bench, one) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    run(&driver, &one, json!([login("a"), keep("k", "a", 100, 0)])).await;
    let other = PluginSpec { name: "another".to_owned(), ..spec("driver-http") };
    let other = bench.runtime.load(&other).unwrap().as_driver().unwrap().clone();
    assert_eq!(run(&other, &one, json!([kept("k", 0)])).await[0], "not kept");
    let two = connection(options(&backend.url));
    assert_eq!(run(&driver, &two, json!([kept("k", 0)])).await[0], "not kept");
    assert_eq!(run(&driver, &one, json!([kept("k", 0)])).await[0], "kept");
}

#[tokio::test]
async fn the_number_and_the_length_of_keys_are_bounded() {
    let backend = backend().await;
    let (bench, connection) = (bench(), connection(options(&backend.url)));
    let driver = bench.driver("driver-http");
    let keys: Vec<String> = (0..65).map(|number| format!("note {number}")).collect();
    let mut told = Vec::new();
    for keys in keys.chunks(13) {
        let steps = std::iter::once(login("a")).chain(keys.iter().map(|key| keep(key, "a", 100, 0)));
        told.extend(run(&driver, &connection, steps.collect()).await.split_off(1));
    }
    assert!(told[..64].iter().all(|step| step == "holds"), "{told:?}");
    // What is not kept is told: nobody relies on it.
    assert!(told[64]["no_room"].is_string(), "{told:?}");
    // Another kind of keys has its own room; asking for what is not there takes none.
    let steps = json!([login("a"), keep("token x", "a", 100, 0), kept("token x", 0), kept("note x", 0)]);
    let told = run(&driver, &connection, steps).await;
    assert_eq!(told[1..], [json!("holds"), json!("kept"), json!("not kept")]);
    // Where one is taken, there is room again, and only one call takes it.
    let take = json!({ "forget": { "key": "note 0", "secret": "held" } });
    let steps = json!([kept("note 0", 0), take, take, keep("note 64", "held", 100, 0)]);
    let told = run(&driver, &connection, steps).await;
    assert_eq!(told, [json!("kept"), json!("forgotten"), json!("not there"), json!("holds")]);
    let steps = json!([login("a"), keep("c", "a", 100, 0), keep("d", "a", 100, 0), keep("e", "a", 100, 0)]);
    let told = run(&driver, &connection, steps).await;
    assert!(told[1..3].iter().all(|step| step == "holds") && told[3]["no_room"].is_string(), "{told:?}");
    let long = format!("note {}", "k".repeat(124));
    let told = run(&driver, &connection, json!([login("a"), keep(&long, "a", 100, 0), kept(&long, 0)])).await;
    assert!(told[1]["no_room"].is_string() && told[2] == "not kept", "{told:?}");
}

/// A store in memory, as the broker's is on a disk.
#[derive(Debug, Clone, Default)]
struct Store {
    kept: Arc<Mutex<BTreeMap<(String, String), Kept>>>,
    loads: Arc<Mutex<u32>>,
    broken: bool,
    stuck: bool,
}

impl Store {
    async fn work(&self) -> Result<(), String> {
        if self.stuck {
            std::future::pending::<()>().await;
        }
        if self.broken { Err("the disk is full".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl SessionStore for Store {
    async fn load(&self, connection: &str, key: &str) -> Result<Option<Kept>, String> {
        *self.loads.lock().unwrap() += 1;
        self.work().await?;
        Ok(self.kept.lock().unwrap().get(&(connection.to_owned(), key.to_owned())).cloned())
    }

    async fn save(&self, connection: &str, key: &str, kept: Option<&Kept>) -> Result<(), String> {
        self.work().await?;
        let place = (connection.to_owned(), key.to_owned());
        match kept {
            Some(kept) => drop(self.kept.lock().unwrap().insert(place, kept.clone())),
            None => drop(self.kept.lock().unwrap().remove(&place)),
        }
        Ok(())
    }
}

fn stored_in(store: &Store, backend: &Backend) -> Arc<HttpConnection> {
    connection(HttpConnectionOptions { store: Some(Arc::new(store.clone())), ..options(&backend.url) })
}

#[tokio::test]
async fn what_is_kept_outlives_a_restart_in_the_store() {
    let backend = backend().await;
    let store = Store::default();
    let bench = bench();
    let driver = bench.driver("driver-http");
    let before = stored_in(&store, &backend);
    run(&driver, &before, json!([kept("k", 0), login("a"), keep("k", "a", 100, 0), kept("k", 0)])).await;
    assert_eq!(*store.loads.lock().unwrap(), 1);
    let place = ("vault".to_owned(), "driver-http/k".to_owned());
    assert_eq!(store.kept.lock().unwrap()[&place].secret.expose_secret(), "canary-a");
    drop(before);

    let after = stored_in(&store, &backend);
    // Also `keep` knows of it: what the last process kept holds.
    let told = run(&driver, &after, json!([login("b"), keep("k", "b", 100, 50), show("held"), kept("k", 90)])).await;
    assert_eq!((shown(&backend), &told[3]), (vec!["canary-a".to_owned()], &json!("kept")));
    let told = run(&driver, &after, json!([kept("k", 0), { "forget": { "key": "k", "secret": "held" } }])).await;
    assert_eq!(told[0], "kept");
    assert!(store.kept.lock().unwrap().is_empty());

    // What has expired meanwhile is not given.
    let expired = Kept { secret: SecretString::from("canary-old"), valid_until: 1_000 };
    store.kept.lock().unwrap().insert(place, expired);
    assert_eq!(run(&driver, &stored_in(&store, &backend), json!([kept("k", 0)])).await[0], "not kept");
}

#[tokio::test]
async fn a_store_that_fails_or_hangs_stops_nobody() {
    let backend = backend().await;
    let bench = bench();
    let driver = bench.driver("driver-http");
    for store in [Store { broken: true, ..Store::default() }, Store { stuck: true, ..Store::default() }] {
        let connection = stored_in(&store, &backend);
        let told = run(&driver, &connection, json!([kept("k", 0), login("a"), keep("k", "a", 100, 0)])).await;
        assert_eq!((&told[0], &told[2]), (&json!("not kept"), &json!("holds")));
        assert_eq!(run(&driver, &connection, json!([kept("k", 0)])).await[0], "kept");
        assert!(store.kept.lock().unwrap().is_empty());
    }
}
