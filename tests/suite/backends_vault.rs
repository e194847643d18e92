//! The broker's own login at Vault, played on OpenBao: whatever the way, one login lasts, survives the
//! broker's process, and is made anew when it is gone.

use std::collections::BTreeSet;

use jit_tests::backend::{Backend, BackendWorld, TARGET};
use jit_tests::kit::vault::Engine;
use jit_tests::servers::OpenBao;
use jit_tests::world::eventually;
use jit_tests::{Database, Issuer, Key, Reply, random_name, surroundings};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use xtask::servers::openbao::{OpenBaoServer, OpenBaoSettings};
use xtask::steps::Steps;

async fn vault() -> (Backend, Engine) {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let engine = Engine::mount(database).await.unwrap();
    (Backend::Vault(Box::new(engine.clone())), engine)
}

/// Enables a method of login under a name of its own.
async fn enable(engine: &Engine, method: &str) -> String {
    let mount = format!("{method}_{}", random_name());
    engine.bao.write(&format!("sys/auth/{mount}"), &json!({"type": method})).await.unwrap();
    mount
}

/// What each role gives: this engine, for as long as somebody renews it.
fn with_token(engine: &Engine, period: &str, role: Value) -> Value {
    let mut role = role;
    let token = json!({"token_policies": [engine.mount], "token_no_default_policy": true, "token_period": period});
    role.as_object_mut().unwrap().extend(token.as_object().unwrap().clone());
    role
}

fn login_by(auth: &str, secret: &str) -> String {
    format!(
        "[connections.backend.secrets]\n{secret} = {{ file = \"{secret}\" }}\n\
         [targets.{TARGET}.config]\nauth = {{ {auth}, secret = \"{secret}\" }}\n"
    )
}

/// A world that logs in by AppRole.
async fn by_approle(backend: &Backend, engine: &Engine, period: &str) -> (BackendWorld, String) {
    let mount = enable(engine, "approle").await;
    // One login and no second: whoever asks first logs in, the others wait for that.
    let role = with_token(engine, period, json!({"secret_id_num_uses": 1}));
    engine.bao.write(&format!("auth/{mount}/role/jit-broker"), &role).await.unwrap();
    let path = format!("auth/{mount}/role/jit-broker/role-id");
    let id = engine.bao.request(Method::GET, &path, &Value::Null).await.unwrap();
    let secret = engine.bao.write(&format!("auth/{mount}/role/jit-broker/secret-id"), &json!({})).await.unwrap();
    let auth = format!("method = \"approle\", mount = \"{mount}\", role_id = \"{}\"", id.text_at("/data/role_id"));
    let world = backend.world(&login_by(&auth, "secret_id")).await.unwrap();
    world.write_secret("secret_id", secret["data"]["secret_id"].as_str().unwrap()).unwrap();
    (world, mount)
}

/// A world that logs in with a JWT of an issuer that OpenBao asks for its keys.
async fn by_jwt(backend: &Backend, engine: &Engine) -> (BackendWorld, String) {
    let key = Key::generate("one").unwrap();
    let issuer = Issuer::start(&[&key]).await.unwrap();
    let mount = enable(engine, "jwt").await;
    let config = json!({"jwks_url": format!("{}/jwks", issuer.url), "bound_issuer": issuer.url});
    engine.bao.write(&format!("auth/{mount}/config"), &config).await.unwrap();
    let role = json!({
        "role_type": "jwt", "user_claim": "sub",
        "bound_audiences": ["jit-broker"], "bound_subject": "the-broker",
    });
    let role = with_token(engine, "1h", role);
    engine.bao.write(&format!("auth/{mount}/role/jit-broker"), &role).await.unwrap();
    let auth = format!("method = \"jwt\", mount = \"{mount}\", role = \"jit-broker\"");
    let world = backend.world(&login_by(&auth, "jwt")).await.unwrap();
    world.write_secret("jwt", &key.token(&issuer.claims("the-broker")).unwrap()).unwrap();
    (world, mount)
}

/// The tokens that a method of login has made and that are still there, as root sees them.
async fn tokens(bao: &OpenBao, mount: &str) -> Vec<Value> {
    let listed = bao.request(Method::GET, "auth/token/accessors?list=true", &Value::Null).await.unwrap();
    let mut found = Vec::new();
    for accessor in listed.json["data"]["keys"].as_array().unwrap() {
        let asked = json!({"accessor": accessor});
        let seen = bao.request(Method::POST, "auth/token/lookup-accessor", &asked).await.unwrap();
        // Others' tokens come and go meanwhile.
        if seen.status == 200 && seen.text_at("/data/path") == format!("auth/{mount}/login") {
            found.push(seen.json["data"].clone());
        }
    }
    found
}

fn accessors(tokens: Vec<Value>) -> BTreeSet<String> {
    tokens.iter().map(|token| token["accessor"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_login_by_approle_survives_the_brokers_process_and_with_it_its_leases() {
    let (backend, engine) = vault().await;
    let (mut world, mount) = by_approle(&backend, &engine, "1h").await;
    world.start().unwrap();
    let first = world.granted("1h").await.unwrap();
    let logins = accessors(tokens(&engine.bao, &mount).await);
    assert_eq!(logins.len(), 1, "validation, upkeep and the first issue share one login");
    let secret_id = std::fs::read_to_string(world.folder().join("secret_id")).unwrap();
    world.write_secret("secret_id", "another login is not possible").unwrap();

    world.broker.as_mut().unwrap().kill().unwrap();
    world.start().unwrap();
    let second = world.granted("1h").await.unwrap();
    let now = accessors(tokens(&engine.bao, &mount).await);
    assert_eq!(now, logins, "it works on with the login that it has");
    assert!(world.works(&first).await.unwrap());
    assert_eq!(engine.leases().await.unwrap().len(), 2);
    let renewed = world.lease_call(&first, "renew", &json!({"ttl": "2h"})).await.unwrap();
    assert_eq!(renewed.status, 200, "{}", renewed.text);
    let revoked = world.lease_call(&first, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(!world.works(&first).await.unwrap() && world.works(&second).await.unwrap());
    assert_eq!(engine.leases().await.unwrap().len(), 1);
    // In the store it is sealed, and what it was made with is not there at all.
    assert_eq!(world.where_written(secret_id.trim()).unwrap(), None);
    assert_eq!(world.where_written(second.password()).unwrap(), None);
}

/// Accounts that are asked for at the same time.
async fn at_once(world: &BackendWorld) -> Vec<Reply> {
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..6 {
        let (client, token) = (client.clone(), token.clone());
        asking.spawn(async move { client.issue(&token, &json!({"target": TARGET, "ttl": "1h"})).await.unwrap() });
    }
    let issued = asking.join_all().await;
    for reply in &issued {
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    issued
}

#[tokio::test]
async fn a_login_is_kept_alive_while_the_broker_lives_and_ends_soon_after_it() {
    let (backend, engine) = vault().await;
    let (mut world, mount) = by_approle(&backend, &engine, "20s").await;
    world.start().unwrap();
    // Several at once, none of which finds a login: whoever makes one, they share what holds.
    let asked = at_once(&world).await;
    // The logins of the others end by themselves; the one that holds has outlived its period then.
    eventually("one login is left, and lives", async || {
        let tokens = tokens(&engine.bao, &mount).await;
        assert!(!tokens.is_empty(), "the broker's login has ended");
        let age =
            |token: &Value| token["last_renewal_time"].as_i64().unwrap_or(0) - token["creation_time"].as_i64().unwrap();
        tokens.len() == 1 && age(&tokens[0]) > 20
    })
    .await;
    assert_eq!(engine.leases().await.unwrap().len(), asked.len());
    for issued in &asked {
        assert!(world.works(issued).await.unwrap(), "{} ended with a login that did not hold", issued.username());
    }

    // A broker that stays away for longer than the period has nothing left at Vault: that is the bound.
    world.broker.as_mut().unwrap().kill().unwrap();
    eventually("what it handed out ends", async || engine.accounts().await.unwrap().is_empty()).await;
    for issued in &asked {
        assert!(!world.works(issued).await.unwrap());
    }
}

#[tokio::test]
async fn a_login_by_jwt_that_was_taken_away_is_made_anew() {
    let (backend, engine) = vault().await;
    let (mut world, mount) = by_jwt(&backend, &engine).await;
    world.start().unwrap();
    let first = world.granted("1h").await.unwrap();
    let old = tokens(&engine.bao, &mount).await;
    assert_eq!(old[0]["meta"]["role"], "jit-broker");
    for token in &old {
        engine.bao.write("auth/token/revoke-accessor", &json!({"accessor": token["accessor"]})).await.unwrap();
    }
    eventually("its leases end with it", async || !world.works(&first).await.unwrap()).await;
    let second = world.granted("1h").await.unwrap();
    let new = accessors(tokens(&engine.bao, &mount).await);
    assert!(!new.is_empty() && new.is_disjoint(&accessors(old)), "{new:?}");

    // The one that Vault ended by itself is closed without an error, however it is asked for.
    let revoked = world.lease_call(&first, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert_eq!(world.events("revoke.failed").unwrap(), Vec::<Value>::new());
    let revoked = world.lease_call(&second, "revoke", &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(engine.leases().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_jwt_of_somebody_else_logs_nobody_in() {
    let (backend, engine) = vault().await;
    let (mut world, mount) = by_jwt(&backend, &engine).await;
    let stranger = Key::generate("one").unwrap();
    let claims =
        json!({"iss": "https://issuer.invalid", "sub": "the-broker", "aud": "jit-broker", "exp": 4_000_000_000_u64});
    world.write_secret("jwt", &stranger.token(&claims).unwrap()).unwrap();
    world.start().unwrap();
    let refused = world.ask("1h").await.unwrap();
    assert_eq!((refused.status, refused.code()), (502, "target-refused"), "{}", refused.text);
    assert_eq!(tokens(&engine.bao, &mount).await, Vec::<Value>::new());
    assert_eq!(world.events("issue.failed").unwrap().len(), 1);
    assert_eq!(engine.leases().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_sealed_server_is_unavailable_and_serves_on_when_it_is_opened() {
    let start = || -> anyhow::Result<OpenBaoServer> {
        let bao = xtask::servers::openbao::binary(&Steps::new())?;
        OpenBaoServer::start(&bao, &OpenBaoSettings::default())
    };
    let server = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let bao = OpenBao::new(&server.url(), server.authority(), server.root_token()).unwrap();
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let engine = Engine::mount_in(bao, database).await.unwrap();
    let backend = Backend::Vault(Box::new(engine.clone()));
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let before = world.granted("1h").await.unwrap();
    let doomed = world.granted("1h").await.unwrap();

    engine.bao.write("sys/seal", &json!({})).await.unwrap();
    let sealed = world.ask("1h").await.unwrap();
    assert_eq!((sealed.status, sealed.code()), (503, "target-unavailable"), "{}", sealed.text);
    assert!(sealed.text_at("/detail").contains("cannot be reached"), "{}", sealed.text);
    assert!(sealed.headers.contains_key("retry-after"));
    assert_eq!(world.events("issue.failed").unwrap().len(), 1);
    assert!(world.works(&before).await.unwrap(), "what was handed out needs no Vault to work");
    let revoked = world.lease_call(&doomed, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (202, Some("revoking")), "{}", revoked.text);

    engine.bao.write("sys/unseal", &json!({"key": server.unseal_key()})).await.unwrap();
    eventually("what was owed is done", async || world.lease(doomed.lease()).unwrap()["state"] == "revoked").await;
    assert!(!world.works(&doomed).await.unwrap() && world.works(&before).await.unwrap());
    let after = world.granted("1h").await.unwrap();
    for issued in [&before, &after] {
        let revoked = world.lease_call(issued, "revoke", &json!({})).await.unwrap();
        assert_eq!(revoked.status, 200, "{}", revoked.text);
    }
    assert_eq!(engine.accounts().await.unwrap(), Vec::<String>::new());
    assert_eq!(engine.leases().await.unwrap(), Vec::<String>::new());
    world.said(&["audit", "verify"]).unwrap();
}
