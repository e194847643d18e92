//! What a configuration would give away, and a way to the server that does not keep its promises.

use std::net::SocketAddr;

use jit_tests::World;
use jit_tests::world::read;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{config_check, issue, login, revoke, run};

#[tokio::test]
async fn a_role_that_leads_to_power_is_refused_with_the_way_to_it() {
    let world = World::prepared(jit_tests::Settings::default()).await;
    let (app, owner) = (world.database.read_only.clone(), world.database.owner.clone());
    let dba = format!("dba_{}", world.database.name);
    let between = format!("ops_{}", world.database.name);
    let (good, told) = config_check(&world);
    assert!(good, "the documented set-up is good: {told}");
    let mut admin = world.database.superuser().await.unwrap();
    run(&mut admin, &format!("CREATE ROLE {between}; GRANT {between} TO {app}; CREATE ROLE {dba}")).await;
    for (power, says) in [
        (format!("ALTER ROLE {dba} CREATEROLE"), "creates roles"),
        (format!("ALTER ROLE {dba} NOCREATEROLE SUPERUSER"), "is a superuser"),
        (
            format!("ALTER ROLE {dba} NOSUPERUSER; GRANT pg_execute_server_program TO {dba}"),
            "pg_execute_server_program",
        ),
        (format!("REVOKE pg_execute_server_program FROM {dba}; GRANT {owner} TO {dba}"), "keeps what removed accounts"),
    ] {
        run(&mut admin, &power).await;
        run(&mut admin, &format!("GRANT {dba} TO {between}")).await;
        let (good, told) = config_check(&world);
        assert!(!good && told.contains(says), "{power}: {told}");
        assert!(told.contains(&format!("{app} \u{2192} {between} \u{2192} {dba}")), "the way is told: {told}");
        run(&mut admin, &format!("REVOKE {dba} FROM {between}")).await;
    }
    let (good, told) = config_check(&world);
    assert!(good, "{told}");
}

#[tokio::test]
async fn who_keeps_the_data_has_no_power_and_has_room() {
    let world = World::prepared(jit_tests::Settings::default()).await;
    let owner = world.database.owner.clone();
    for (power, back, says) in [
        (format!("ALTER ROLE {owner} LOGIN"), format!("ALTER ROLE {owner} NOLOGIN"), "has LOGIN"),
        (format!("ALTER ROLE {owner} SUPERUSER"), format!("ALTER ROLE {owner} NOSUPERUSER"), "SUPERUSER"),
        (
            format!("GRANT pg_monitor TO {owner}"),
            format!("REVOKE pg_monitor FROM {owner}"),
            "is a member of pg_monitor",
        ),
        (
            format!("REVOKE CREATE ON SCHEMA public FROM {owner}, PUBLIC"),
            format!("GRANT CREATE ON SCHEMA public TO {owner}"),
            "GRANT CREATE ON SCHEMA public TO",
        ),
    ] {
        world.database.execute(&power).await.unwrap();
        let (good, told) = config_check(&world);
        assert!(!good && told.contains(says) && told.contains("reassign_owned_to"), "{power}: {told}");
        world.database.execute(&back).await.unwrap();
    }
    let (good, told) = config_check(&world);
    assert!(good, "{told}");
}

/// Leads to the server; changes the first packet of each connection as asked.
async fn way_to(world: &World, at: SocketAddr, change: fn(Vec<u8>) -> Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind(at).await.unwrap();
    let here = listener.local_addr().unwrap();
    let server = (world.database.host.clone(), world.database.port);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                // `sslmode=prefer` asks first; this way has no TLS.
                let mut packet = packet(&mut client).await?;
                while packet.len() == 8 {
                    client.write_all(b"N").await?;
                    packet = self::packet(&mut client).await?;
                }
                server.write_all(&change(packet)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    here
}

async fn packet(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut packet = vec![0; length as usize];
    packet[..4].copy_from_slice(&length.to_be_bytes());
    client.read_exact(&mut packet[4..]).await?;
    Ok(packet)
}

/// As a pooler that is told to ignore the start-up settings it cannot keep.
fn without_options(packet: Vec<u8>) -> Vec<u8> {
    let mut kept = packet[4..8].to_vec();
    let texts: Vec<&[u8]> = packet[8..].split(|byte| *byte == 0).collect();
    for pair in texts.chunks(2).take_while(|pair| !pair[0].is_empty()) {
        if pair[0] != b"options" {
            kept.extend(pair.iter().flat_map(|text| text.iter().copied().chain([0])));
        }
    }
    kept.push(0);
    let length = u32::try_from(kept.len() + 4).unwrap();
    [length.to_be_bytes().to_vec(), kept].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_between_is_found_out() {
    let mut world = World::prepared(jit_tests::Settings::default()).await;
    let there = format!("@{}:{}/", world.database.host, world.database.port);
    let pooler = way_to(&world, "127.0.0.1:0".parse().unwrap(), without_options).await;
    world.rewrite(&there, &format!("@{pooler}/"));
    let (_, told) = config_check(&world);
    assert!(told.contains("pooler") && told.contains("url"), "{told}");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let refused = client.issue(&token, &serde_json::json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(world.accounts().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_at_an_ipv6_address() {
    let mut world = World::prepared(jit_tests::Settings::default()).await;
    let there = format!("@{}:{}/", world.database.host, world.database.port);
    let way = way_to(&world, "[::1]:0".parse().unwrap(), |packet| packet).await;
    world.rewrite(&there, &format!("@[::1]:{}/", way.port()));
    assert!(read(&world.config()).unwrap().contains("[::1]"));
    let (good, told) = config_check(&world);
    assert!(good, "{told}");
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let account = issue(&client, &token, "app_read_only").await;
    assert_eq!(account.text_at("/connection/host"), "::1");
    assert!(account.text_at("/connection/uri").contains(&format!("@[::1]:{}/", way.port())), "{}", account.text);
    drop(login(&world, &account).await);
    let revoked = revoke(&client, &token, &account).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
}
