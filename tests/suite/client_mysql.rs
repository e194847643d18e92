//! The library's pool on MySQL: the same as on PostgreSQL.

use jit_client::{Client, CredentialWatch, Request, Rotation, TokenSource, pool};
use jit_tests::backend::{Backend, TARGET};
use jit_tests::kit::mysql::{Administered, Server};
use jit_tests::world::eventually;
use sqlx::mysql::{MySqlPoolOptions, MySqlSslMode};

#[tokio::test]
async fn no_query_fails_over_three_new_accounts_and_none_is_left() {
    let backend = Backend::mysql();
    let mut world = backend.world("").await.unwrap();
    world.start().unwrap();
    let client = world.client();
    let token = world.folder().join("workload.token");
    std::fs::write(&token, client.token("payment-service").await.unwrap()).unwrap();
    let client = Client::builder(&client.broker).token(TokenSource::file(token)).build().unwrap();
    let request = Request::new(TARGET).role("app_read_only").ttl("6s");
    let watch = CredentialWatch::builder(client, request).rotation(Rotation::NewAccount).start().await.unwrap();
    let ca = Administered::of_the_suite(Server::MySql).ca;
    let to_options = move |credential: &jit_client::Credential| {
        Ok(pool::mysql(credential)?.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(&ca))
    };
    let pool = pool::connect(&watch, MySqlPoolOptions::new().max_connections(4), to_options).await.unwrap();
    let (mut accounts, mut queries) = (Vec::new(), 0);
    while accounts.len() < 4 {
        let account: String = sqlx::query_scalar("SELECT CURRENT_USER()").fetch_one(&pool).await.unwrap();
        queries += 1;
        if !accounts.contains(&account) {
            accounts.push(account);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(queries > accounts.len(), "connections are kept between changes");
    pool.close().await;
    watch.close().await.unwrap();
    eventually("no account is left", async || backend.accounts(&world).await.unwrap().is_empty()).await;
}
