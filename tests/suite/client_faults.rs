//! The client library in trouble: the broker away, slow, unwilling; clocks and tokens that change.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use jit_client::{
    Client, Clock, CredentialWatch, FetchOptions, Request, Rotation, Schedule, State, SystemClock, TokenSource, pool,
};
use jit_tests::world::eventually;
use jit_tests::{Settings, Way, World};
use sqlx::postgres::PgPoolOptions;

use crate::client::{Service, Stage};

/// Alerts that were told, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<&'static str>>>);

impl Told {
    fn hook(&self) -> impl Fn(&jit_client::Alert) + Send + Sync + 'static {
        let told = Arc::clone(&self.0);
        move |alert| told.lock().unwrap_or_else(PoisonError::into_inner).push(alert.kind.as_str())
    }

    fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn hurried(patience: u64) -> FetchOptions {
    let schedule = Schedule { first: Duration::from_millis(50), cap: Duration::from_millis(200), attempts: 5 };
    FetchOptions { patience: Duration::from_secs(patience), schedule }
}

#[tokio::test]
async fn a_broker_that_is_down_at_the_start_is_told_in_time() {
    let stage = Stage::new().await;
    stage.relay.go(Way::Shut);
    let error = stage.client().fetch_with(&Request::new("inventory_db"), hurried(1)).await.unwrap_err();
    let text = error.chain();
    assert!(
        text.contains("gave up after") && text.contains(&stage.relay.url) && text.contains("does not answer"),
        "{text}"
    );
    assert!(stage.relay.seen() >= 2, "it was tried again");
    // And one that comes meanwhile is found.
    let (client, request) = (stage.client(), Request::new("inventory_db"));
    let fetching = tokio::spawn(async move { client.fetch_with(&request, hurried(60)).await });
    let seen = stage.relay.seen();
    eventually("it is trying", async || stage.relay.seen() >= seen + 2).await;
    stage.relay.go(Way::Open);
    assert!(stage.is_good(&fetching.await.unwrap().unwrap()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_across_the_renewal_and_back_before_the_expiry() {
    for rotation in [Rotation::RenewLease, Rotation::NewAccount] {
        let stage = Stage::new().await;
        let watch = stage.watch("10s").rotation(rotation).start().await.unwrap();
        let pool = pool::connect(&watch, PgPoolOptions::new().max_connections(6), pool::postgres).await.unwrap();
        let service = Service::over(&pool);
        stage.relay.go(Way::Shut);
        eventually("the renewal fails", async || watch.now().failures >= 1).await;
        assert!(matches!(watch.state(), State::Renewing | State::AtRisk));
        stage.relay.go(Way::Open);
        let done = async || watch.now().renewals + watch.now().generation >= 1;
        eventually("it succeeds", done).await;
        assert_eq!(watch.state(), State::Fresh);
        let queries = service.queries();
        eventually("the service goes on", async || service.queries() > queries + 50).await;
        service.end().await;
        pool.close().await;
        watch.close().await.unwrap();
        stage.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_down_past_the_expiry_is_told_and_come_back_to() {
    let stage = Stage::new().await;
    let told = Told::default();
    let watch = stage.watch("2s").on_alert(told.hook()).start().await.unwrap();
    let first = watch.credential();
    stage.relay.go(Way::Shut);
    eventually("the credential is over", async || watch.state() == State::Expired).await;
    assert_eq!(told.all(), ["jit-broker-unreachable", "jit-credential-expired"]);
    let last = watch.now().last_error.unwrap();
    assert!(last.contains("does not answer"), "{last}");
    eventually("the database agrees", async || !stage.is_good(&first).await).await;
    stage.relay.go(Way::Open);
    eventually("it recovers by itself", async || watch.state() == State::Fresh).await;
    let second = watch.credential();
    assert_ne!(second.username, first.username);
    assert!(stage.is_good(&second).await);
    assert_eq!(told.all().last(), Some(&"jit-broker-recovered"));
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_broker_that_is_killed_and_started_again() {
    let mut stage = Stage::new().await;
    let watch = stage.watch("4s").start().await.unwrap();
    let account = watch.credential().username.clone();
    stage.world.process().kill().unwrap();
    eventually("the renewal fails", async || watch.now().failures >= 1).await;
    stage.world.start(&[]).await;
    // The platform has new tokens after it, as the embedded issuer has a new key.
    std::fs::write(&stage.token, stage.world.client().token("payment-service").await.unwrap()).unwrap();
    stage.relay.lead_to(&stage.world.client().broker);
    // In time for the old account or not: it goes on by itself.
    let before = watch.now();
    let done = async || watch.now().renewals + watch.now().generation > before.renewals + before.generation;
    eventually("it goes on", done).await;
    assert!(stage.is_good(&watch.credential()).await);
    let same = watch.now().generation == 0;
    assert_eq!(watch.credential().username == account, same);
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn an_answer_that_gets_lost_makes_no_second_account() {
    let stage = Stage::new().await;
    stage.relay.go(Way::LoseAnswers(2));
    let credential = stage.client().fetch_with(&Request::new("inventory_db"), hurried(60)).await.unwrap();
    assert!(stage.relay.lost() >= 2, "the broker answered before");
    assert_eq!(stage.world.accounts().await, [credential.username.as_str()]);
    assert!(stage.is_good(&credential).await);
    assert_eq!(stage.world.events("issue.granted").len(), 1);

    // The same in a watch's burst.
    let watch = stage.watch("1h").schedule(hurried(0).schedule).watch(credential);
    stage.relay.go(Way::LoseAnswers(3));
    watch.rotate();
    eventually("a new account", async || watch.now().generation == 1).await;
    assert!(watch.now().failures >= 3);
    assert_eq!(stage.world.accounts().await.len(), 2, "the former one and the new one");
    assert_eq!(stage.world.events("issue.granted").len(), 2);
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_429_of_the_broker_is_waited_out() {
    let more = "burst = 2\n".to_owned();
    let mut world = World::prepared(Settings { requests_per_second: 1, ..Settings::default() }).await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    let limit = "requests_per_second = 1\n";
    assert!(text.contains(limit));
    std::fs::write(world.config(), text.replace(limit, &format!("{limit}{more}"))).unwrap();
    world.start(&[]).await;
    let stage = Stage::on(world).await;
    let (client, request) = (stage.client(), Request::new("inventory_db"));
    let key = jit_client::IdempotencyKey::generate();
    let mut refused = None;
    for _ in 0..20 {
        if let Err(error) = client.issue(&request, &key).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("twenty at once are more than two");
    assert_eq!((refused.code(), refused.is_transient()), ("rate-limited", true));
    assert!(refused.retry_after().is_some_and(|after| after >= Duration::from_secs(1)), "{refused}");
    let credential = client.fetch(&request).await.unwrap();
    assert!(stage.is_good(&credential).await);
    assert_eq!(stage.world.accounts().await.len(), 2, "the one of that key and this one");
}

#[tokio::test]
async fn a_503_is_waited_out_as_long_as_it_says() {
    let stage = Stage::new().await;
    let told = Told::default();
    let watch = stage.watch("1h").on_alert(told.hook()).start().await.unwrap();
    // Far longer than this test looks, so that a busy machine does not reach it.
    let before = stage.relay.seen();
    stage.relay.go(Way::refuse(503, "overloaded", 10));
    watch.rotate();
    // The connection from before may break first; what counts is the one that is refused.
    let refused = async || stage.relay.seen() > before && watch.now().failures >= 1;
    eventually("the first is refused", refused).await;
    let seen = stage.relay.seen();
    // The schedule alone would have made several attempts in this time.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(stage.relay.seen(), seen, "it waits for the seconds that were asked for");
    stage.relay.go(Way::Open);
    eventually("there is a new account", async || watch.now().generation == 1).await;
    assert_eq!((watch.state(), told.all()), (State::Fresh, vec![]));
    watch.close().await.unwrap();
}

/// The machine's clocks, but for the wall's, which somebody sets.
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_neither_spins_nor_lets_the_lease_lapse() {
    let stage = Stage::new().await;
    let clock = Arc::new(SetClock(AtomicI64::new(0)));
    let builder = Client::builder(&stage.relay.url).token(TokenSource::file(&stage.token));
    let client = builder.clock(Arc::clone(&clock) as Arc<dyn Clock>).build().unwrap();
    let told = Told::default();
    let watch = CredentialWatch::builder(client, Request::new("inventory_db").ttl("6s"))
        .on_alert(told.hook())
        .start()
        .await
        .unwrap();
    let account = watch.credential();
    for (jump, renewals) in [(3_600, 1), (-7_200, 2), (0, 3)] {
        clock.0.fetch_add(jump, Ordering::Relaxed);
        eventually("it is renewed", async || watch.now().renewals >= renewals).await;
    }
    let now = watch.now();
    assert_eq!((now.generation, now.failures, told.all()), (0, 0, vec![]), "{now:?}");
    assert!(now.renewals <= 4, "{now:?}");
    assert!(stage.is_good(&account).await, "the same account all the time");
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_token_file_that_is_replaced_or_missing_for_a_while() {
    let stage = Stage::new().await;
    let watch = stage.watch("4s").start().await.unwrap();
    let good = std::fs::read(&stage.token).unwrap();
    for breakage in [None, Some("not.a.token")] {
        let before = watch.now();
        match breakage {
            None => std::fs::remove_file(&stage.token).unwrap(),
            Some(text) => std::fs::write(&stage.token, text).unwrap(),
        }
        eventually("it fails", async || watch.now().failures > before.failures).await;
        let last = watch.now().last_error.unwrap_or_default();
        assert!(last.contains("token file") || last.contains("unauthenticated"), "{last}");
        assert!(!last.contains("not.a.token"), "{last}");
        std::fs::write(&stage.token, &good).unwrap();
        let done = async || watch.now().renewals + watch.now().generation > before.renewals + before.generation;
        eventually("it goes on", done).await;
    }
    assert!(stage.is_good(&watch.credential()).await);
    // At the start it is a mistake, and told at once.
    std::fs::remove_file(&stage.token).unwrap();
    let error = stage.client().fetch(&Request::new("inventory_db")).await.unwrap_err();
    assert!(error.chain().contains("cannot read the token file"), "{}", error.chain());
    std::fs::write(&stage.token, &good).unwrap();
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
}

/// What a restart of everything at once is like: the broker is away, all are waiting for it. The spread over time is
/// the bench's to measure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_at_once_get_an_account_each_and_no_more() {
    const CLIENTS: usize = 1_000;
    jit_tests::many_open_files();
    let more = r#"
[plugins.noop]
path = "PLUGINS/driver-noop.wasm"
[targets.nothing]
driver = "noop"
policies = ["allow"]
max_ttl = "8h"
roles.any = {}
"#
    .replace("PLUGINS", &jit_tests::surroundings("JIT_TEST_PLUGINS"));
    let stage = Stage::with(Settings { more, ..Settings::default() }).await;
    stage.relay.go(Way::Shut);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = stage.client();
        let schedule = Schedule { first: Duration::from_millis(500), cap: Duration::from_secs(4), attempts: 5 };
        let options = FetchOptions { schedule, ..FetchOptions::default() };
        clients.spawn(async move { client.fetch_with(&Request::new("nothing").role("any"), options).await });
    }
    eventually("each has tried", async || stage.relay.seen() >= CLIENTS).await;
    stage.relay.go(Way::Open);
    let mut accounts = std::collections::BTreeSet::new();
    while let Some(fetched) = clients.join_next().await {
        accounts.insert(fetched.unwrap().unwrap().username);
    }
    assert_eq!(accounts.len(), CLIENTS);
    assert_eq!(stage.world.leases().len(), CLIENTS, "no more accounts than clients");
}
