//! The hostile holder of a lease on Vault, OpenBao and Conjur.

use jit_tests::backend::{Backend, BackendWorld};
use jit_tests::kit::vault::Engine;
use jit_tests::world::eventually;
use jit_tests::{Database, Reply, surroundings};
use reqwest::Method;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};

async fn log_in(issued: &Reply, password: &str) -> Result<PgConnection, sqlx::Error> {
    issued.text_at("/connection/uri").parse::<PgConnectOptions>()?.password(password).connect().await
}

async fn state_of(world: &BackendWorld, issued: &Reply) -> String {
    world.lease(issued.lease()).unwrap()["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_account_of_openbao_that_changes_what_it_may_ends_with_its_lease() {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let engine = Engine::mount(database).await.unwrap();
    let backend = Backend::Vault(Box::new(engine.clone()));
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let issued = world.granted("1h").await.unwrap();
    let mut holder = log_in(&issued, issued.password()).await.unwrap();

    // Its own password it may change. What would make its access longer or stronger it may not.
    holder.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'").await.unwrap();
    let name = issued.username();
    for statement in [
        "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'".to_owned(),
        "ALTER ROLE CURRENT_USER CREATEROLE".to_owned(),
        format!("ALTER ROLE \"{name}\" RENAME TO kept"),
        "CREATE ROLE kept LOGIN".to_owned(),
    ] {
        assert!(holder.execute(AssertSqlSafe(statement.clone())).await.is_err(), "{statement}");
    }
    assert!(log_in(&issued, "mine").await.is_ok());
    // A token of Vault's that somebody has for himself reaches no lease of the broker's.
    let [lease] = engine.leases().await.unwrap().try_into().unwrap();
    let token = json!({"policies": ["default"], "no_parent": true});
    let token = engine.bao.write("auth/token/create", &token).await.unwrap();
    let token = token["auth"]["client_token"].as_str().unwrap();
    let stranger = engine.bao.with_token(token);
    for (verb, body) in
        [("lookup", json!({"lease_id": lease})), ("revoke", json!({"lease_id": lease})), ("revoke-prefix", json!({}))]
    {
        let path = match verb {
            "revoke-prefix" => format!("sys/leases/revoke-prefix/{}", engine.mount),
            verb => format!("sys/leases/{verb}"),
        };
        let told = stranger.request(Method::POST, &path, &body).await.unwrap();
        // Whoever knows a lease's id may look at it and renew it; the broker shows it to nobody.
        assert!(told.status == 403 || (verb == "lookup" && told.status == 200), "{verb}: {}", told.text);
    }
    assert!(!issued.text.contains(&lease), "the caller is not told what Vault calls the lease");

    let revoked = world.lease_call(&issued, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (200, Some("revoked")), "{}", revoked.text);
    assert!(log_in(&issued, "mine").await.is_err() && log_in(&issued, issued.password()).await.is_err());
    assert!(engine.leases().await.unwrap().is_empty() && engine.accounts().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_account_of_openbao_that_cannot_be_dropped_is_not_taken_for_removed() {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let engine = Engine::mount(database).await.unwrap();
    let backend = Backend::Vault(Box::new(engine.clone()));
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let issued = world.granted("1h").await.unwrap();
    let mut holder = log_in(&issued, issued.password()).await.unwrap();
    // Something of its own keeps it from going, where Vault's statements do not see to that.
    let name = issued.username();
    let (grant, revoke) = (
        format!("GRANT CREATE ON SCHEMA public TO \"{name}\""),
        format!("REVOKE CREATE ON SCHEMA public FROM \"{name}\""),
    );
    engine.database.execute(&grant).await.unwrap();
    holder.execute("CREATE TABLE public.kept (id int)").await.unwrap();
    engine.database.execute(&revoke).await.unwrap();
    drop(holder);
    let revoked = world.lease_call(&issued, "revoke", &json!({})).await.unwrap();
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (202, Some("revoking")), "{}", revoked.text);
    let failed: String = world.events("revoke.failed").unwrap().iter().map(ToString::to_string).collect();
    assert!(failed.contains("cannot be dropped"), "{failed}");
    assert_eq!(engine.accounts().await.unwrap(), [name]);
    engine.database.execute("DROP TABLE public.kept").await.unwrap();
    eventually("the account is removed", async || state_of(&world, &issued).await == "revoked").await;
    assert!(engine.leases().await.unwrap().is_empty() && engine.accounts().await.unwrap().is_empty());
}
