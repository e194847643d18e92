//! The listener with TLS, and that there is no other way to listen beyond this machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jit_tests::http::reply;
use jit_tests::world::eventually;
use jit_tests::{Settings, Wire, World};
use serde_json::json;

/// A certificate for 127.0.0.1, its key, and the authority that signed it: those of the identity
/// tests.
pub(crate) fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/identity/src/tests/tls").canonicalize().unwrap()
}

/// A world whose broker serves with TLS.
async fn with_tls() -> World {
    let from = certificates();
    let server = "tls = { cert = \"server.pem\", key = \"server.key\" }\nhead_timeout = \"5s\"".to_owned();
    let mut world = World::prepared(Settings { server, ..Settings::default() }).await;
    for file in ["server.pem", "server.key"] {
        let to = world.folder.path().join(file);
        std::fs::copy(from.join(file), &to).unwrap();
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    world.start(&[]).await;
    world
}

/// A client that trusts that authority and no other.
fn trusting(authority: &[u8]) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(authority).unwrap();
    reqwest::Client::builder().no_proxy().https_only(true).tls_certs_only([authority]).build().unwrap()
}

#[tokio::test]
async fn credentials_are_issued_over_tls() {
    let world = with_tls().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let https = client.broker.replace("http://", "https://");
    let trusting = trusting(&std::fs::read(certificates().join("ca.pem")).unwrap());
    let ask = |url: String| trusting.post(url).bearer_auth(&token).json(&json!({"target": "inventory_db"}));
    let issued = reply(ask(format!("{https}/issue"))).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert!(world.database.login(issued.username(), issued.password()).await.is_ok());

    // Who trusts other authorities is not told anything.
    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    let untrusted = stranger.post(format!("{https}/issue")).bearer_auth(&token).send().await;
    assert!(untrusted.unwrap_err().is_connect());
    assert_eq!(world.accounts().await.len(), 1);
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_cut_off_and_hurts_nobody() {
    let world = with_tls().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    for bytes in [
        format!("POST /issue HTTP/1.1\r\nhost: broker\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes(),
        vec![0x16, 0x03, 0x01, 0xff, 0xff],
        // The beginning of a handshake, and nothing after it.
        vec![0x16, 0x03, 0x01, 0x00, 0xc8, 0x01],
        Vec::new(),
        vec![0; 100_000],
    ] {
        let mut wire = Wire::connect(&client.broker).await.unwrap();
        let _ = wire.send(&bytes).await;
        let answer = wire.until_closed().await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&answer));
    }
    let trusting = trusting(&std::fs::read(certificates().join("ca.pem")).unwrap());
    let live = reply(trusting.get(format!("{}/livez", client.broker.replace("http://", "https://")))).await.unwrap();
    assert_eq!((live.status, live.text.as_str()), (200, "ok\n"));
    assert!(world.leases().is_empty());
}

#[tokio::test]
async fn listening_beyond_this_machine_takes_tls_or_a_word_that_somebody_else_does_it() {
    let world = World::prepared(Settings::default()).await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    let check = |listen: &str| {
        std::fs::write(world.config(), text.replace("listen = \"127.0.0.1:0\"", listen)).unwrap();
        let output = world.cli(&["config", "check", "--offline"]);
        // Also where that is in order: these configurations have no identity, for example.
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for address in ["0.0.0.0:8700", "[::]:8700", "192.0.2.1:8700"] {
        let told = check(&format!("listen = \"{address}\""));
        assert!(told.contains("broker.toml:3:"), "{told}");
        assert!(told.contains("passwords would cross the network in clear"), "{told}");
        assert!(told.contains("tls = {") && told.contains("allow_plaintext = true"), "{told}");
        let told = check(&format!("listen = \"{address}\"\nallow_plaintext = true"));
        assert!(!told.contains("in clear"), "{told}");
    }
    // With TLS, but without its files.
    let told = check("listen = \"0.0.0.0:8700\"\ntls = { cert = \"no.pem\", key = \"no.key\" }");
    assert!(told.contains("no.pem is not there") && told.contains("no.key is not there"), "{told}");
}

/// As cert-manager does it: both files are replaced while the broker serves.
#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let from = certificates();
    let server = "tls = { cert = \"server.pem\", key = \"server.key\" }".to_owned();
    let mut world = World::prepared(Settings { server, watch: true, ..Settings::default() }).await;
    for file in ["server.pem", "server.key"] {
        std::fs::copy(from.join(file), world.folder.path().join(file)).unwrap();
    }
    world.start(&[]).await;
    let live = format!("{}/livez", world.client().broker.replace("http://", "https://"));
    let answers =
        async |client: &reqwest::Client| reply(client.get(&live)).await.is_ok_and(|reply| reply.status == 200);
    let old = || trusting(&std::fs::read(certificates().join("ca.pem")).unwrap());
    assert!(answers(&old()).await);

    let new = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let put = |file: &str, text: &str| jit_tests::world::put(&world.folder.path().join(file), text.as_bytes());
    put("server.key", &new.signing_key.serialize_pem());
    put("server.pem", &new.cert.pem());
    // A client of its own for each question: an open connection keeps what it began with.
    let renewed = || trusting(new.cert.pem().as_bytes());
    eventually("the new certificate is served", async || answers(&renewed()).await).await;
    assert!(!answers(&old()).await);

    put("server.pem", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    let told = "the old one stays";
    let log = world.log_path();
    eventually("the log says why", async || jit_tests::world::read(&log).unwrap().contains(told)).await;
    assert!(answers(&renewed()).await);
    // A key that belongs to another certificate.
    put("server.pem", &std::fs::read_to_string(from.join("server.pem")).unwrap());
    eventually("it is told as well", async || jit_tests::world::read(&log).unwrap().contains("do not belong together"))
        .await;
    assert!(answers(&renewed()).await);
}

#[tokio::test]
async fn a_certificate_and_a_key_that_do_not_fit_are_told_at_start() {
    let server = "tls = { cert = \"server.pem\", key = \"server.key\" }".to_owned();
    let mut world = World::prepared(Settings { server, ..Settings::default() }).await;
    for file in ["server.pem", "server.key"] {
        std::fs::copy(certificates().join("ca.pem"), world.folder.path().join(file)).unwrap();
    }
    let told = format!("{:#}", world.try_start(&[]).unwrap_err());
    assert!(told.contains("server.key holds a certificate and no private key"), "{told}");
}
