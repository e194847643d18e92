//! Passwords that the caller makes: they log in, and the broker never has them.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jit_client::{Client, Credential, CredentialChoice, IdempotencyKey, Request, TokenSource};
use jit_core::lease::VerifierKind;
use jit_core::secret::Verifier;
use jit_tests::agent::variable;
use jit_tests::{Settings, World};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::agent::Stage as AgentStage;
use crate::client::Stage;

/// The most of a process's memory that is searched.
const MOST_MEMORY: u64 = 8 << 30;
/// How much is read at a time.
const PIECE: usize = 1 << 20;

async fn fetched(stage: &Stage, choice: CredentialChoice) -> Credential {
    let token = TokenSource::file(&stage.token);
    let client = Client::builder(&stage.relay.url).token(token).credential(choice).build().unwrap();
    // With a key, the broker keeps what it handed out for a retry.
    client.issue(&Request::new("inventory_db").ttl("10m"), &IdempotencyKey::generate()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_logs_in_with_a_password_that_it_made() {
    let stage = Stage::new().await;
    let credential = fetched(&stage, CredentialChoice::Auto).await;
    assert!(stage.is_good(&credential).await, "the caller's password logs in");
    let uri = credential.connection.as_ref().unwrap().uri.expose_secret();
    assert!(uri.contains(&format!(":{}@", credential.password.expose_secret())), "the URI is whole for its reader");
    let granted = stage.world.events("issue.granted");
    assert_eq!(granted[0]["verifier"], "scram_sha_256");
    let stored = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", credential.username);
    assert!(stage.world.database.value(&stored).await.unwrap().starts_with("SCRAM-SHA-256$4096:"));
    // The life of such a lease is that of any other.
    let client = stage.client();
    let renewed = client.renew(&credential.lease.lease_id, None).await.unwrap();
    assert!(renewed.term.expires_at >= credential.lease.term.expires_at && stage.is_good(&credential).await);
    client.revoke_all(std::slice::from_ref(&credential.lease.lease_id)).await.unwrap();
    stage.nothing_is_left().await;
    assert!(!stage.is_good(&credential).await);
    let by_the_broker = fetched(&stage, CredentialChoice::Password).await;
    assert!(stage.is_good(&by_the_broker).await);
    assert!(stage.world.events("issue.granted")[1].get("verifier").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_makes_passwords_and_its_files_stay_what_they_are() {
    let stage = AgentStage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &["--credential", "verifier"]);
    assert!(stage.is_good(&out).await);
    let url = variable(Path::new(&out), "DB_URL").unwrap();
    let password = variable(Path::new(&out), "DB_PASSWORD").unwrap();
    assert!(url.contains(&password), "the URL has it as well");
    assert_eq!(stage.world.events("issue.granted")[0]["verifier"], "scram_sha_256");
    let state = std::fs::read_to_string(stage.path(".db.env.jit-agent.json")).unwrap();
    assert!(!state.contains(&password) && !state.contains("SCRAM"), "{state}");
    stage.fetch(&stage.path("by-broker.env"), &["--credential", "password"]);
    assert!(stage.is_good(&stage.path("by-broker.env")).await);
    assert!(stage.world.events("issue.granted")[1].get("verifier").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_says_what_is_offered_and_which_rule_a_verifier_breaks() {
    let world = World::with(Settings::default()).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let stranger = client.token("reporting").await.unwrap();
    let offered = client.get("/v1/targets/inventory_db", &token).await.unwrap();
    assert_eq!(offered.status, 200, "{}", offered.text);
    let verifier = json!({"type": "verifier", "verifier": "scram_sha_256", "least_iterations": 4096, "most_iterations": 1_000_000});
    assert_eq!(offered.json["credentials"], json!([verifier, {"type": "password"}]));
    // No more than from /issue is to be learnt here.
    client.get("/v1/targets/inventory_db", &stranger).await.unwrap().assert_problem(403, "policy-denied");
    client.get("/v1/targets/nowhere", &token).await.unwrap().assert_problem(404, "unknown-target");
    client.get("/v1/targets/inventory_db?role=owner", &token).await.unwrap().assert_problem(403, "role-not-allowed");

    let key = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
    let body =
        |text: String| json!({"target": "inventory_db", "credential": {"type": "verifier", "scram_sha_256": text}});
    let few =
        client.issue(&token, &body(format!("SCRAM-SHA-256$1000:W22ZaJ0SNY7soEsUEjb6gQ==${key}:{key}"))).await.unwrap();
    few.assert_problem(400, "verifier-weak");
    assert!(few.text.contains("4096 to 1000000 iterations") && !few.text.contains(key), "{}", few.text);
    let other = json!({"target": "inventory_db", "credential": {"type": "verifier", "ssha": format!("{{SSHA}}{}", STANDARD.encode([7; 40]))}});
    let other = client.issue(&token, &other).await.unwrap();
    other.assert_problem(400, "not-offered");
    assert!(other.text.contains("scram_sha_256"), "{}", other.text);
    let good = body(format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${key}:{key}"));
    let first = client.issue_with_key(&token, "k", &good).await.unwrap();
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!((first.text_at("/credential/type"), first.password()), ("verifier", ""));
    assert!(first.text_at("/connection/uri").contains(&format!("//{}@", first.username())), "{}", first.text);
    assert_eq!(client.issue_with_key(&token, "k", &good).await.unwrap().lease(), first.lease(), "a retry");
    client.issue(&token, &good).await.unwrap().assert_problem(400, "verifier-weak");
    assert_eq!(world.accounts().await.len(), 1);
}

/// PostgreSQL checks by itself that a verifier is not one of the empty password, so the broker need not. The end of the
/// test shows that the check is needed: where the verifier stands in its table, the server lets anybody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verifier_of_an_empty_password_lets_nobody_in() {
    let world = World::with(Settings::default()).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let verifier = Verifier::of_empty_password(VerifierKind::ScramSha256, 4_096).unwrap();
    let text = verifier.text();
    let body =
        json!({"target": "inventory_db", "credential": {"type": "verifier", "scram_sha_256": text.expose_secret()}});
    let reply = client.issue(&token, &body).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let name = reply.username();
    let stored = format!("SELECT coalesce(rolpassword, 'none') FROM pg_authid WHERE rolname = '{name}'");
    assert_eq!(world.database.value(&stored).await.unwrap(), "none", "the server set no password");
    let refused = world.database.login(name, "").await.err().unwrap();
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");

    let text = text.expose_secret();
    let placed = format!("UPDATE pg_authid SET rolpassword = '{text}' WHERE rolname = '{name}'");
    world.database.execute(&placed).await.unwrap();
    world.database.login(name, "").await.unwrap();
}

/// A password in every way in which a program may hold it for a moment.
fn encodings(password: &str) -> Vec<(&'static str, Vec<u8>)> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
    let bytes = password.as_bytes();
    let hexed = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let mut reversed = bytes.to_vec();
    reversed.reverse();
    let utf16 = |of: fn(u16) -> [u8; 2]| password.encode_utf16().flat_map(of).collect::<Vec<u8>>();
    vec![
        ("as it is", bytes.to_vec()),
        ("UTF-16LE", utf16(u16::to_le_bytes)),
        ("UTF-16BE", utf16(u16::to_be_bytes)),
        ("hex", hexed(bytes).into_bytes()),
        ("HEX", hexed(bytes).to_uppercase().into_bytes()),
        ("base64", STANDARD.encode(bytes).into_bytes()),
        ("base64url", URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
        ("reversed", reversed),
        (
            "percent-encoded",
            password.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}")).into_bytes(),
        ),
        ("JSON", serde_json::to_vec(password).unwrap()),
        ("SHA-1", digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()),
        ("SHA-1 in hex", hexed(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).into_bytes()),
        ("SHA-256", digest(&SHA256, bytes).as_ref().to_vec()),
        ("SHA-256 in hex", hexed(digest(&SHA256, bytes).as_ref()).into_bytes()),
    ]
}

/// Which of the needles are in the process's memory that can be written; none where this process may not look: the
/// broker forbids that to all but root.
fn in_memory<'n>(pid: u32, needles: &'n [(&'static str, Vec<u8>)]) -> Option<Vec<&'n str>> {
    let memory = match File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        Err(error) => panic!("{error}"),
    };
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found = std::collections::BTreeSet::new();
    let (mut read, mut range) = (0, None);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        if let Some((from, to)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            range = words.next().filter(|rights| rights.starts_with("rw")).map(|_| (address(from), address(to)));
        } else if first == "Rss:"
            && words.next() != Some("0")
            && let Some((from, to)) = range
        {
            // Pages that were never touched read as zeros: the address space of guests is mostly that.
            let mut at = from;
            while at < to && read < MOST_MEMORY {
                // Pieces overlap by the longest needle.
                let mut piece = vec![0; PIECE.min(usize::try_from(to - at).unwrap())];
                let Ok(()) = memory.read_exact_at(&mut piece, at) else { break };
                read += piece.len() as u64;
                let hits = needles.iter().filter(|(_, needle)| holds(&piece, needle));
                found.extend(hits.map(|(name, _)| *name));
                at += (piece.len() as u64).saturating_sub(if at + piece.len() as u64 >= to { 0 } else { 256 }).max(1);
            }
        }
    }
    assert!(read > 1 << 20 && read < MOST_MEMORY, "{read} bytes of memory were searched");
    Some(found.into_iter().collect())
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// Which of the needles are in a file of the broker's.
fn in_files<'n>(folder: &Path, needles: &'n [(&'static str, Vec<u8>)]) -> Vec<&'n str> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(in_files(&path, needles));
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            found.extend(needles.iter().filter(|(_, needle)| holds(&bytes, needle)).map(|(name, _)| *name));
        }
    }
    found
}

/// The promise NEVER-HELD: an attacker who reads the broker's store, log and memory finds no password that a
/// caller made. The same search finds one that the broker made, so it can find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_has_no_password_that_a_caller_made() {
    let mut world = World::prepared(Settings::default()).await;
    world
        .start(&[(
            "JIT_LOG",
            "trace,cranelift_codegen=info,regalloc2=info,wasmtime_internal_cranelift=info,wasmtime_environ=info",
        )])
        .await;
    let mut stage = Stage::on(world).await;
    let own = fetched(&stage, CredentialChoice::Verifier).await;
    assert!(stage.is_good(&own).await, "the password is real");
    let made = encodings(own.password.expose_secret());
    let pid = stage.world.process().pid();
    let folder = stage.world.folder.path().to_owned();
    assert_eq!(in_files(&folder, &made), Vec::<&str>::new());
    match in_memory(pid, &made) {
        Some(found) => assert_eq!(found, Vec::<&str>::new(), "the broker's memory has the caller's password"),
        None => eprintln!("the memory was not searched: only root may"),
    }
    // The control: what the broker makes is in its memory, which keeps it for a retry.
    let by_the_broker = fetched(&stage, CredentialChoice::Password).await;
    let needles = encodings(by_the_broker.password.expose_secret());
    if let Some(found) = in_memory(pid, &needles) {
        assert!(found.contains(&"as it is"), "the search finds what is there: {found:?}");
    }
    assert_eq!(in_files(&folder, &needles), Vec::<&str>::new(), "on no disk is either");
}
