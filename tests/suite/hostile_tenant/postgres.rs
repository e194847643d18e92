//! PostgreSQL: whatever the holder of a lease does there.

mod code;
mod names;
mod path;
mod removal;

use jit_tests::{Client, Reply, World};
use serde_json::json;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

async fn issue(client: &Client, token: &str, role: &str) -> Reply {
    let body = json!({"target": "inventory_db", "role": role, "ttl": "1h"});
    let reply = client.issue(token, &body).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

async fn revoke(client: &Client, token: &str, lease: &Reply) -> Reply {
    client.post(&format!("/v1/leases/{}/revoke", lease.lease()), token, &json!({})).await.unwrap()
}

async fn login(world: &World, account: &Reply) -> PgConnection {
    world.database.login(account.username(), account.password()).await.unwrap()
}

async fn run(session: &mut PgConnection, statements: &str) {
    if let Err(error) = session.execute(sqlx::AssertSqlSafe(statements.to_owned())).await {
        panic!("{error}: {statements}");
    }
}

/// What `config check` says of the world's configuration, all of it, and whether the target is good. Nobody answers
/// at the issuer's address, which is another line.
fn config_check(world: &World) -> (bool, String) {
    let path = world.config_with_issuer();
    // Where there is none yet.
    let _ = world.cli(&["audit", "key", &world.folder.path().join("audit.key").display().to_string()]);
    let output = world.cli(&["config", "check", "--config", &path.display().to_string()]);
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    (told.contains("target inventory_db: good"), told)
}
