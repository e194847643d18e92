//! The listener under TLS, and what is refused without it.

use std::path::PathBuf;

use jit_tests::{Settings, World};

/// A test CA and a certificate for localhost and 127.0.0.1; their README says why they are public.
fn certificates() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../host/broker/src/identity/tests/tls").canonicalize().unwrap()
}

#[tokio::test]
async fn with_a_certificate_the_api_is_https_and_plaintext_gets_nothing() {
    let files = certificates();
    let names: Vec<String> = std::fs::read_dir(&files)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let file = |part: &[&str]| {
        let name = names.iter().find(|name| part.iter().all(|part| name.contains(part)));
        files.join(name.unwrap_or_else(|| panic!("no {part:?} among {names:?}")))
    };
    let (ca, certificate, key) = (file(&["ca", "pem"]), file(&["server", "pem"]), file(&["server", "key"]));
    let server = format!("tls = {{ cert = {certificate:?}, key = {key:?} }}");
    let world = World::with(Settings { server, ..Settings::default() }).await;
    let address = world.client().broker.trim_start_matches("http://").to_owned();
    let port = address.rsplit(':').next().unwrap();

    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(ca).unwrap()).unwrap();
    let trusting = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let ready = trusting.get(format!("https://127.0.0.1:{port}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);

    let stranger = reqwest::Client::builder().no_proxy().build().unwrap();
    let untrusted = stranger.get(format!("https://127.0.0.1:{port}/readyz")).send().await;
    assert!(untrusted.is_err(), "a client that does not know the authority refuses");
    let plaintext = stranger.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
    assert!(plaintext.is_err(), "there is no plaintext on this port");
    let still = trusting.get(format!("https://127.0.0.1:{port}/livez")).send().await.unwrap();
    assert_eq!(still.status(), 200);
}

#[tokio::test]
async fn beyond_this_machine_there_is_no_listening_without_tls() {
    let world = World::prepared(Settings::default()).await;
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"")).unwrap();
    let checked = world.cli(&["config", "check"]);
    assert_eq!(checked.status.code(), Some(3));
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(told.contains("broker.toml:3") && told.contains("tls") && told.contains("allow_plaintext"), "{told}");
}
