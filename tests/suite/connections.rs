//! Connections that cost a stranger nothing: each state in which the broker waits for its peer ends, one
//! address takes its share and no more, and descriptors are left for what ends accounts.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use jit_tests::http::reply;
use jit_tests::world::eventually;
use jit_tests::{Settings, World};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// GET /livez as stream 1: header block, end of headers, end of stream.
const GET_LIVEZ: &[u8] = b"\x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x04\x06/livez\x01\x01a";
/// The same without the end of its headers.
const HALF_HEADERS: &[u8] = b"\x00\x00\x02\x01\x01\x00\x00\x00\x01\x82\x86";

/// Reached only where a connection is not closed.
const HANGS: Duration = Duration::from_secs(120);

fn address(broker: &str) -> SocketAddr {
    broker.trim_start_matches("http://").parse().unwrap()
}

/// A connection from another address of this machine.
async fn from(source: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{source}:0").parse().unwrap())?;
    socket.connect(to).await
}

#[tokio::test]
async fn whatever_is_said_and_then_left_unsaid_the_connection_ends() {
    let server = "head_timeout = \"3s\"\nidle_timeout = \"3s\"\nwrite_timeout = \"3s\"".to_owned();
    let world = World::with(Settings { server, ..Settings::default() }).await;
    let client = world.client();
    let broker = address(&client.broker);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("silence", vec![]),
        ("one byte of the preface", b"P".to_vec()),
        ("the preface but for a byte", PREFACE[..23].to_vec()),
        ("the preface alone", PREFACE.to_vec()),
        ("preface and settings", [PREFACE, SETTINGS].concat()),
        ("half of a request's headers", [PREFACE, SETTINGS, HALF_HEADERS].concat()),
        ("one request of HTTP/2, and then nothing", [PREFACE, SETTINGS, GET_LIVEZ].concat()),
        ("half a head of HTTP/1", b"GET / HTT".to_vec()),
        ("one request of HTTP/1, and then nothing", b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
    ];
    let mut waiting = tokio::task::JoinSet::new();
    for (case, bytes) in cases {
        let mut stream = TcpStream::connect(broker).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        waiting.spawn(async move {
            let mut said = Vec::new();
            let closed = tokio::time::timeout(HANGS, stream.read_to_end(&mut said)).await;
            assert!(closed.is_ok(), "{case}: the connection is still open");
            (case, said)
        });
    }
    // Somebody who asks for much and takes nothing.
    let greedy = TcpSocket::new_v4().unwrap();
    greedy.set_recv_buffer_size(4_096).unwrap();
    let mut greedy = greedy.connect(broker).await.unwrap();
    greedy.write_all(&b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1_000)).await.unwrap();
    let (ours, theirs) = (greedy.local_addr().unwrap().port(), broker.port());
    // As proc_pid_net(5) has it: addresses of theirs, then of ours, each with its port in hex; 01 is established.
    let socket = format!("0100007F:{theirs:04X} 0100007F:{ours:04X} 01");
    eventually("who takes nothing is cut off", async || {
        !std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&socket)
    })
    .await;
    while let Some(closed) = waiting.join_next().await {
        let (case, said) = closed.unwrap();
        // Those that asked were answered first.
        if case.starts_with("one request of HTTP/1") {
            assert!(said.starts_with(b"HTTP/1.1 200"), "{case}: {}", String::from_utf8_lossy(&said));
        }
        if case.starts_with("one request of HTTP/2") {
            assert!(said.windows(3).any(|three| three == b"ok\n"), "{case}: {said:?}");
        }
    }
    let live = reply(client.raw().get(format!("{}/livez", client.broker))).await.unwrap();
    assert_eq!(live.status, 200);
}

#[tokio::test]
async fn one_address_takes_its_share_and_leaves_the_rest() {
    let server = "head_timeout = \"2m\"\nmax_connections = 40\nmax_connections_per_address = 20".to_owned();
    let world = World::with(Settings { server, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..50 {
        kept.push(from("127.0.0.2", address(&client.broker)).await.unwrap());
    }
    eventually("what is beyond the share is refused", async || {
        client.metric("jit_connections_refused_total", &["reason=\"share\""]).await.unwrap() >= 30.0
    })
    .await;
    let issued = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
}

#[tokio::test]
async fn strangers_who_open_all_connections_do_not_stop_a_removal() {
    let server = "head_timeout = \"2m\"\nmax_connections_per_address = 100".to_owned();
    let mut world = World::prepared(Settings { server, ..Settings::default() }).await;
    // As few open files as the broker can do with.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 300 && exec \"$0\" \"$@\""]).arg(world.binary());
    world.try_start_by(limited, &[]).unwrap();
    let log = world.process().log();
    assert!(log.contains("fewer connections are taken"), "{log}");
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "1h"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);

    let mut kept = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"] {
        for _ in 0..100 {
            kept.push(from(source, address(&client.broker)).await.unwrap());
        }
    }
    // Everything that a removal needs has its descriptors all the same.
    let revoked = world.cli(&["lease", "revoke", issued.lease()]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    eventually("the account is gone", async || world.accounts().await.is_empty()).await;
    // Which operator it was is on record, as the kernel says.
    let record = &world.events("admin.revoke")[0];
    assert_eq!(record["operator_uid"], rustix::process::getuid().as_raw(), "{record}");
    assert!(record["operator_pid"].as_i64().is_some_and(|pid| pid > 1), "{record}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.process().pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().rev().skip(1).take(2).all(|limit| limit == "0"), "{core}");
    world.assert_log_is_intact();
    drop(kept);
    eventually("there is room again", async || {
        reply(client.raw().get(format!("{}/livez", client.broker))).await.is_ok_and(|live| live.status == 200)
    })
    .await;
}

#[tokio::test]
async fn operators_have_a_listener_of_their_own() {
    let server = "operator_listen = \"127.0.0.1:0\"".to_owned();
    let mut world = World::with(Settings { server, ..Settings::default() }).await;
    let log = world.process().log();
    let client = world.client();
    let (_, after) = log.split_once("operators=").unwrap_or_else(|| panic!("no address in {log}"));
    let operators = format!("http://{}", after.split_whitespace().next().unwrap());
    let get = async |base: &str, path: &str| reply(client.raw().get(format!("{base}{path}"))).await.unwrap();
    for (path, public, own) in
        [("/livez", 200, 200), ("/readyz", 200, 200), ("/metrics", 404, 200), ("/openapi.json", 404, 200)]
    {
        assert_eq!(
            (get(&client.broker, path).await.status, get(&operators, path).await.status),
            (public, own),
            "{path}"
        );
    }
    assert!(get(&operators, "/metrics").await.text.contains("jit_"));
    let token = client.token("payment-service").await.unwrap();
    let asked = client.raw().post(format!("{operators}/issue")).bearer_auth(&token);
    assert_eq!(reply(asked.json(&json!({"target": "inventory_db"}))).await.unwrap().status, 404);
    assert!(world.accounts().await.is_empty());
}
