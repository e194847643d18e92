//! The client library against a real broker and a real PostgreSQL: what an application sees of a life of
//! rotations, which is nothing.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jit_client::{
    Client, Credential, CredentialWatch, Request, Retire, Rotation, State, TokenSource, WatchBuilder, pool,
};
use jit_tests::world::eventually;
use jit_tests::{Relay, Settings, World};
use secrecy::ExposeSecret as _;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

/// A world whose broker applications reach through a relay.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) relay: Relay,
    pub(crate) token: PathBuf,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::on(World::with(settings).await).await
    }

    pub(crate) async fn on(world: World) -> Self {
        let client = world.client();
        let token = world.folder.path().join("workload.token");
        std::fs::write(&token, client.token("payment-service").await.unwrap()).unwrap();
        Self { relay: Relay::before(&client.broker).await, token, world }
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder(&self.relay.url).token(TokenSource::file(&self.token)).build().unwrap()
    }

    pub(crate) fn watch(&self, ttl: &str) -> WatchBuilder {
        CredentialWatch::builder(self.client(), Request::new("inventory_db").ttl(ttl))
    }

    /// Whether the database takes a credential.
    pub(crate) async fn is_good(&self, credential: &Credential) -> bool {
        self.world.database.login(&credential.username, credential.password.expose_secret()).await.is_ok()
    }

    /// Waits until the database has no account of this world's.
    pub(crate) async fn nothing_is_left(&self) {
        eventually("no account is left", async || self.world.accounts().await.is_empty()).await;
    }
}

/// What an application does all day.
pub(crate) struct Service {
    done: Arc<AtomicBool>,
    queries: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    accounts: Arc<Mutex<Vec<String>>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Service {
    /// Queries by several tasks at once, some of them in transactions that take a moment.
    pub(crate) fn over(pool: &PgPool) -> Self {
        let mut service = Self {
            done: Arc::default(),
            queries: Arc::default(),
            failed: Arc::default(),
            accounts: Arc::default(),
            tasks: tokio::task::JoinSet::new(),
        };
        for number in 0..4 {
            let pool = pool.clone();
            let (done, queries) = (Arc::clone(&service.done), Arc::clone(&service.queries));
            let (failed, accounts) = (Arc::clone(&service.failed), Arc::clone(&service.accounts));
            service.tasks.spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    match query(&pool, number == 0).await {
                        Ok(account) => {
                            queries.fetch_add(1, Ordering::Relaxed);
                            let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
                            if !accounts.contains(&account) {
                                accounts.push(account);
                            }
                        }
                        Err(error) => {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                        }
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            });
        }
        service
    }

    /// How many accounts have been used so far.
    pub(crate) fn accounts(&self) -> usize {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many queries have been answered so far.
    pub(crate) fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }

    /// Ends it: no query failed.
    pub(crate) async fn end(mut self) {
        self.done.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), self.queries());
    }
}

async fn query(pool: &PgPool, in_transaction: bool) -> Result<String, sqlx::Error> {
    if !in_transaction {
        let ask = "SELECT current_user::text FROM items WHERE id = 1";
        return sqlx::query_scalar(ask).fetch_one(pool).await;
    }
    let mut transaction = pool.begin().await?;
    let account: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut *transaction).await?;
    sqlx::query("SELECT pg_sleep(0.1)").execute(&mut *transaction).await?;
    let same: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut *transaction).await?;
    assert_eq!(same, account);
    transaction.commit().await?;
    Ok(account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_fails_over_five_new_accounts_and_none_is_left() {
    let stage = Stage::new().await;
    let watch = stage.watch("6s").rotation(Rotation::NewAccount).start().await.unwrap();
    let pool = pool::connect(&watch, PgPoolOptions::new().max_connections(6), pool::postgres).await.unwrap();
    let service = Service::over(&pool);
    eventually("five rotations", async || service.accounts() >= 6).await;
    assert!(stage.world.accounts().await.len() <= 3, "the present one, the one before, and one that is just going");
    service.end().await;
    pool.close().await;
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
    assert!(stage.world.events("issue.granted").len() >= 6);
    stage.world.assert_settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_lease_keeps_its_account_until_the_cap_and_no_query_fails_then_either() {
    let target = "max_ttl = \"15s\"".to_owned();
    let mut world = World::prepared(Settings::default()).await;
    let text = std::fs::read_to_string(world.config()).unwrap().replace("max_ttl = \"8h\"", &target);
    std::fs::write(world.config(), text.replace("default_ttl = \"1h\"", "default_ttl = \"6s\"")).unwrap();
    world.start(&[]).await;
    let stage = Stage::on(world).await;
    let watch = stage.watch("6s").start().await.unwrap();
    let first = watch.credential();
    let pool = pool::connect(&watch, PgPoolOptions::new().max_connections(6), pool::postgres).await.unwrap();
    let service = Service::over(&pool);
    eventually("a renewal", async || watch.now().renewals >= 1).await;
    assert_eq!((watch.now().generation, watch.credential().username == first.username), (0, true));
    assert!(watch.lease().term.expires_at > first.lease.term.expires_at);
    eventually("the cap and a new account", async || service.accounts() >= 2).await;
    assert_eq!(watch.now().generation, 1);
    service.end().await;
    pool.close().await;
    watch.close().await.unwrap();
    stage.nothing_is_left().await;
    assert_eq!(stage.world.events("issue.granted").len(), 2);
}

#[tokio::test]
async fn a_former_account_is_given_back_early_where_that_is_wanted() {
    let stage = Stage::new().await;
    let retire = Retire::After(std::time::Duration::from_millis(200));
    let watch = stage.watch("1h").retire(retire).start().await.unwrap();
    let first = watch.credential();
    watch.rotate();
    eventually("a new account", async || watch.now().generation == 1).await;
    assert!(stage.is_good(&watch.credential()).await);
    eventually("the first is gone", async || !stage.is_good(&first).await).await;
    assert_eq!(stage.world.accounts().await, [watch.credential().username.clone()]);
    // Dropped without a word: the lease is given back all the same.
    drop(watch);
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_tells_what_the_broker_refuses_and_asks_once() {
    let stage = Stage::new().await;
    let client = stage.client();
    for (request, code) in [
        (Request::new("no_such_db"), "unknown-target"),
        (Request::new("inventory_db").role("owner"), "role-not-allowed"),
        (Request::new("inventory_db").ttl("-1s"), "invalid-request"),
    ] {
        let before = stage.relay.seen();
        let error = client.fetch(&request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(stage.relay.seen() <= before + 1, "no retry betters it");
    }
    std::fs::write(&stage.token, stage.world.client().token("stranger").await.unwrap()).unwrap();
    let denied = client.fetch(&Request::new("inventory_db")).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.problem().and_then(|problem| problem.policy.as_deref())),
        ("policy-denied", Some("allow"))
    );
    std::fs::write(&stage.token, "not.a.token").unwrap();
    assert_eq!(client.fetch(&Request::new("inventory_db")).await.unwrap_err().code(), "unauthenticated");
}

#[tokio::test]
async fn leases_can_be_asked_for_renewed_and_given_back() {
    let stage = Stage::new().await;
    let client = stage.client();
    let credential = client.fetch(&Request::new("inventory_db").ttl("10m")).await.unwrap();
    assert!(stage.is_good(&credential).await);
    let shown = format!("{credential:?}");
    assert!(shown.contains(&credential.username) && !shown.contains(credential.password.expose_secret()), "{shown}");
    let id = &credential.lease.lease_id;
    let renewed = client.renew(id, Some("1h".into())).await.unwrap();
    assert!(renewed.term.expires_at > credential.lease.term.expires_at);
    let seen = client.lease(id).await.unwrap();
    assert_eq!((seen.term.expires_at, seen.state), (renewed.term.expires_at, jit_client::LeaseState::Active));
    for _ in 0..2 {
        client.revoke(id).await.unwrap();
    }
    assert_eq!(client.renew(id, None).await.unwrap_err().code(), "lease-not-active");
    assert_eq!(client.lease("lease_01jd3x7k2m9v5q8w4r6t0y1z3b").await.unwrap_err().code(), "unknown-lease");
    // An id is one segment of a path, whatever is in it.
    let other = client.lease("../../metrics").await.unwrap_err();
    assert!(matches!(other.problem().map(|problem| problem.status), Some(400 | 404)), "{other}");
    stage.nothing_is_left().await;
}

#[tokio::test]
async fn a_broker_with_tls_is_trusted_by_its_authority_alone() {
    let server = "tls = { cert = \"server.pem\", key = \"server.key\" }".to_owned();
    let mut world = World::prepared(Settings { server, ..Settings::default() }).await;
    for file in ["server.pem", "server.key"] {
        let to = world.folder.path().join(file);
        std::fs::copy(crate::tls::certificates().join(file), &to).unwrap();
        std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    world.start(&[]).await;
    let stage = Stage::on(world).await;
    let broker = stage.world.client().broker.replace("http://", "https://");
    let builder = Client::builder(broker).token(TokenSource::file(&stage.token));
    let trusting = builder.clone().ca_file(crate::tls::certificates().join("ca.pem")).build().unwrap();
    let credential = trusting.fetch(&Request::new("inventory_db")).await.unwrap();
    assert!(stage.is_good(&credential).await);
    let key = jit_client::IdempotencyKey::generate();
    let stranger = builder.build().unwrap().issue(&Request::new("inventory_db"), &key).await.unwrap_err();
    assert!(matches!(stranger, jit_client::Error::Unreachable { .. }), "{stranger}");
    assert_eq!(stage.world.accounts().await.len(), 1);
}

#[tokio::test]
async fn the_state_tells_what_an_application_should_show() {
    let stage = Stage::new().await;
    let watch = stage.watch("1h").start().await.unwrap();
    let mut snapshots = watch.subscribe();
    assert_eq!(watch.state(), State::Fresh);
    watch.close().await.unwrap();
    assert_eq!(snapshots.borrow_and_update().state, State::Closed);
}
