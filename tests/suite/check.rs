//! A check that says good is right: `config check` refuses what `serve` refuses, in the same words, and asks
//! the issuers and the targets.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;

use axum::routing::get;
use axum::{Json, Router};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use jit_tests::issuer::Key;
use jit_tests::world::{Settings, World, eventually};
use serde_json::json;

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A certificate and its key in files of the world's folder.
fn pair(folder: &Path, name: &str, ends: i32) {
    pair_for(folder, name, ends, &["localhost", "127.0.0.1"]);
}

/// The same for other names.
fn pair_for(folder: &Path, name: &str, ends: i32, names: &[&str]) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_after = rcgen::date_time_ymd(ends, 1, 1);
    std::fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.join(format!("{name}.key")), private).unwrap();
}

/// A world that is prepared and not started, and its configuration as `serve` would take it.
async fn prepared() -> (World, String) {
    let world = World::prepared(Settings::default()).await;
    let made = world.cli(&["audit", "key", &world.folder.path().join("audit.key").display().to_string()]);
    assert!(made.status.success(), "{}", text_of(&made));
    let config = std::fs::read_to_string(world.config_with_issuer()).unwrap();
    (world, config)
}

fn check(world: &World, text: &str, more: &[&str]) -> (Option<i32>, String, PathBuf) {
    let path = world.folder.path().join("checked.toml");
    std::fs::write(&path, text).unwrap();
    let shown = path.display().to_string();
    let mut arguments = vec!["config", "check", "--config", &shown];
    arguments.extend(more);
    let output = world.cli(&arguments);
    (output.status.code(), text_of(&output), path)
}

#[tokio::test]
async fn what_serve_refuses_the_check_refuses_in_the_same_words() {
    let (world, good) = prepared().await;
    let folder = world.folder.path();
    for (name, ends) in [("one", 4000), ("two", 4000), ("old", 2020)] {
        pair(folder, name, ends);
    }
    let with_tls = |cert: &str, key: &str| {
        good.replace("[store]", &format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}\n[store]"))
    };
    let issuer = "https://issuer.invalid";
    let (code, told, _) = check(&world, &with_tls("one.pem", "one.key"), &["--offline"]);
    assert!(code == Some(0) && told.contains("valid until 4000-01-01"), "{told}");
    let cases = [
        ("the key of another", with_tls("one.pem", "two.key"), "two.key holds the key of another certificate"),
        ("a key for a certificate", with_tls("one.key", "one.key"), "one.key holds a private key and no certificate"),
        ("a certificate for a key", with_tls("one.pem", "two.pem"), "two.pem holds a certificate and no private key"),
        ("http", good.replace(issuer, "http://127.0.0.1:9"), "must be an https address"),
        (
            "http keys",
            good.replace(issuer, &format!("{issuer}\"\njwks_url = \"http://127.0.0.1:9/keys")),
            "must be an https address",
        ),
        ("a key that is none", good.replace("file = \"audit.key\"", "file = \"one.key\""), "one.key"),
        (
            "a setting that is no setting",
            good.lines()
                .map(|line| match line.strip_suffix('"').filter(|line| line.starts_with("url = \"postgres://")) {
                    Some(url) => format!("{url}?ssl_mode=verify-full\"\n"),
                    None => format!("{line}\n"),
                })
                .collect(),
            "did you mean `sslmode`",
        ),
    ];
    for (what, text, says) in cases {
        assert_ne!(text, good, "{what}");
        let (code, told, path) = check(&world, &text, &["--offline"]);
        assert!(code == Some(3) && told.contains(says), "{what}: {code:?} {told}");
        // It ends by itself; where it served, this would end it, with another code.
        let mut serve = std::process::Command::new("timeout");
        serve.arg("120").arg(world.binary()).args(["serve", "--config"]).arg(&path);
        let served = serve.output().unwrap();
        let told = text_of(&served);
        assert!(served.status.code() == Some(1) && told.contains(says), "{what}: {:?} {told}", served.status);
    }
    // What is served, and will not be of use.
    let (code, told, _) = check(&world, &with_tls("old.pem", "old.key"), &["--offline"]);
    assert!(code == Some(0) && told.contains("warning: the certificate") && told.contains("expired on 2020"), "{told}");
    let rule = good.replacen("target = \"*\"", "target = \"inventory_bd\"", 1);
    assert_ne!(rule, good);
    let (code, told, _) = check(&world, &rule, &["--offline"]);
    assert!(code == Some(0) && told.contains("did you mean `inventory_db`"), "{told}");
}

/// An issuer of its own, over TLS. Dropped, it stops.
struct TlsIssuer {
    url: String,
    handle: Handle<SocketAddr>,
}

impl Drop for TlsIssuer {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl TlsIssuer {
    /// With the pair `issuer` of the folder.
    async fn start(folder: &Path, keys: &[&Key]) -> Self {
        Self::start_with(folder, "issuer", keys).await
    }

    /// With another pair of the folder.
    async fn start_with(folder: &Path, pair: &str, keys: &[&Key]) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let keys: Vec<_> = keys.iter().map(|key| key.public.clone()).collect();
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let keys = json!({"keys": keys});
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(async move || Json(discovery)))
            .route("/keys", get(async move || Json(keys)));
        let tls = RustlsConfig::from_pem_file(folder.join(format!("{pair}.pem")), folder.join(format!("{pair}.key")))
            .await
            .unwrap();
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap().handle(handle.clone());
        tokio::spawn(server.serve(router.into_make_service()));
        Self { url, handle }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_asks_each_issuer_and_each_target_and_ends_with_a_verdict() {
    let (world, good) = prepared().await;
    let folder = world.folder.path();
    pair(folder, "issuer", 4000);
    let key = Key::generate("one").unwrap();
    let (issuer, empty) = (TlsIssuer::start(folder, &[&key]).await, TlsIssuer::start(folder, &[]).await);
    let at = |url: &str| good.replace("https://issuer.invalid\"", &format!("{url}\"\nca = \"issuer.pem\""));
    let (code, told, _) = check(&world, &at(&issuer.url), &[]);
    for line in ["issuer cluster: good, 1 key", "target inventory_db: good", "checked.toml: the configuration is good"]
    {
        assert!(code == Some(0) && told.contains(line), "{line}: {told}");
    }
    // The set-up on the driver's page leaves nothing to warn of.
    assert!(!told.contains("inventory_db: warning"), "{told}");
    // The message about a certificate says where to mend it.
    pair_for(folder, "other", 4000, &["elsewhere.example"]);
    let other = TlsIssuer::start_with(folder, "other", &[&key]).await;
    let by_name = good.replace("https://issuer.invalid\"", &format!("{}\"\nca = \"other.pem\"", other.url));
    let unknown = good.replace("https://issuer.invalid", &issuer.url);
    pair(folder, "old", 2020);
    let expired = TlsIssuer::start_with(folder, "old", &[&key]).await;
    let expired = good.replace("https://issuer.invalid\"", &format!("{}\"\nca = \"old.pem\"", expired.url));
    for (text, says) in [
        (by_name, "is for another name than \"127.0.0.1\": "),
        (unknown, "(UnknownIssuer): name the authority's certificate as the issuer's `ca`"),
        (expired, "the server's certificate has expired on 2020-01-01T00:00:00Z"),
    ] {
        let (code, told, _) = check(&world, &text, &[]);
        assert!(code == Some(3) && told.contains(says) && !told.contains("peer certificate"), "{says}: {told}");
    }
    let (code, told, _) = check(&world, &at(&empty.url), &[]);
    assert!(code == Some(3) && told.contains("no key that could be used"), "{told}");
    assert!(told.contains("checked.toml: 1 issuer is not in order"), "{told}");
    // Nobody there; and a target whose role the server does not have: at its line.
    let (code, told, _) = check(&world, &good, &[]);
    assert!(
        code == Some(3) && told.contains("issuer cluster: ") && told.contains("target inventory_db: good"),
        "{told}"
    );
    let (from, to) = (format!("grants = [\"{}\"]", world.database.read_only), "grants = [\"no_such_role\"]");
    let wrong = at(&issuer.url).replace(&from, to);
    let line = wrong.lines().position(|line| line.contains(to)).expect("the role is in the configuration") + 1;
    let (code, told, _) = check(&world, &wrong, &[]);
    assert!(code == Some(3) && told.contains(&format!("checked.toml:{line}:")), "{told}");
    assert!(told.contains("no_such_role") && told.contains("checked.toml: 1 target is not in order"), "{told}");
}

/// Each finding of a driver has the form of a mistake of the broker's own: file, line, column and the line itself.
#[tokio::test]
async fn what_a_driver_finds_has_the_form_of_every_other_mistake() {
    let (world, good) = prepared().await;
    let folder = world.folder.path();
    std::fs::write(folder.join("wrong.password"), "not it").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.join("wrong.password"), private).unwrap();
    let database = &world.database;
    let name = format!("/{}\"", database.name);
    let slip = format!("{}x", database.read_only);
    let (grants, slipped) = (format!("grants = [\"{}\"]", database.read_only), format!("grants = [\"{slip}\"]"));
    let near = format!("the server has no role \"{slip}\": did you mean \"{}\"? Otherwise make it", database.read_only);
    let cases = [
        // What is wrong, the line it is shown at, what is said, and the verdict on the target.
        (
            good.replace("inventory.password", "wrong.password"),
            "password = { file = \"wrong.password\" }",
            "refuses the connection: password authentication failed",
            "cannot be asked",
        ),
        (
            good.replace(&name, "/no_such_database\""),
            "/no_such_database\"",
            "refuses the connection: database \"no_such_database\" does not exist",
            "cannot be asked",
        ),
        (good.replace(&grants, &slipped), slipped.as_str(), near.as_str(), "a mistake"),
    ];
    for (text, line, says, verdict) in cases {
        assert_ne!(text, good, "{says}");
        let number = text.lines().position(|written| written.contains(line)).expect("the line is there") + 1;
        let (code, told, _) = check(&world, &text, &[]);
        let place = format!("checked.toml:{number}:");
        let finding = told.lines().find(|said| said.contains(&place)).unwrap_or_else(|| panic!("{place} {told}"));
        assert!(code == Some(3) && finding.contains(says) && told.contains("^^^"), "{says}: {told}");
        assert!(told.contains(&format!("target inventory_db: {verdict}")) && !told.contains("unavailable"), "{told}");
        assert!(told.contains("1 target is not in order"), "{told}");
    }
    // Without its server the driver still finds what stands in the file.
    let wrong = good.replacen("grants = [", "grantts = [", 1);
    let (code, told, _) = check(&world, &wrong, &["--offline"]);
    assert!(code == Some(3) && told.contains("unknown") && told.contains("`grants`"), "{told}");
    assert!(told.contains("target inventory_db: ") && told.contains("1 target is not in order"), "{told}");
    let (code, told, _) = check(&world, &good, &["--offline"]);
    assert!(code == Some(0) && told.contains("target inventory_db: its driver finds no mistake"), "{told}");
    // A file that is missing says what it was for and where paths begin.
    let text = good.replace("inventory.password", "inventry.password");
    let (code, told, _) = check(&world, &text, &["--offline"]);
    let says = format!("relative paths begin in {}", std::fs::canonicalize(folder).unwrap().display());
    assert!(code == Some(3) && told.contains("the file of `password` is missing: ") && told.contains(&says), "{told}");
    // Mistakes in a policy's configuration: in the broker's words, and under the key that is wrong.
    let rule = "roles = [\"*\"]";
    let (code, told, _) = check(&world, &good.replacen(rule, "roles = \"*\"", 1), &["--offline"]);
    assert!(code == Some(3) && told.contains("must be a list, such as [\"…\"], not a text"), "{told}");
    let text = good.replacen(rule, "roles = [\"*\"], max_tll = \"1h\"", 1);
    let column = text.lines().find_map(|line| line.find("max_tll")).unwrap() + 1;
    let (code, told, _) = check(&world, &text, &["--offline"]);
    assert!(code == Some(3) && told.contains(&format!(":{column}: unknown key `max_tll`: write `max_ttl`")), "{told}");
    let (code, told, _) = check(&world, &format!("{good}\n[loging]\nlevel = \"info\"\n"), &["--offline"]);
    assert!(
        code == Some(3) && told.contains("unknown key `loging` in the file's top level: did you mean `log`?"),
        "{told}"
    );
}

/// Reads an object key by key: one that stands there twice is an error.
struct NoKeyTwice;

impl<'de> serde::de::Visitor<'de> for NoKeyTwice {
    type Value = std::collections::BTreeMap<String, serde_json::Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Self::Value::new();
        while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
            if all.insert(key.clone(), value).is_some() {
                return Err(serde::de::Error::custom(format!("{key} is there twice")));
            }
        }
        Ok(all)
    }
}

#[tokio::test]
async fn a_refused_reload_says_every_mistake_in_the_log_and_no_line_has_a_key_twice() {
    let more = "[log]\nformat = \"json\"\n".to_owned();
    let mut world = World::with(Settings { more, watch: true, ..Settings::default() }).await;
    let good = std::fs::read_to_string(world.config()).unwrap();
    let bad = good.replacen("default_ttl", "defualt_ttl", 1).replacen("listen =", "lisen =", 1);
    // Moved to its place, so that no half of it is read.
    std::fs::write(world.folder.path().join("bad.toml"), &bad).unwrap();
    std::fs::rename(world.folder.path().join("bad.toml"), world.config()).unwrap();
    let process = world.process();
    eventually("the refusal is logged", async || process.log().contains("unknown key `defualt_ttl`")).await;
    let log = process.log();
    let mut told = Vec::new();
    for line in log.lines().filter(|line| line.starts_with('{') && line.ends_with('}')) {
        let mut reader = serde_json::Deserializer::from_str(line);
        let read = serde::Deserializer::deserialize_map(&mut reader, NoKeyTwice);
        told.push(read.unwrap_or_else(|error| panic!("{error}: {line}")));
    }
    for (says, in_line) in [("unknown key `lisen`", "lisen ="), ("unknown key `defualt_ttl`", "defualt_ttl")] {
        let line = bad.lines().position(|line| line.contains(in_line)).unwrap() + 1;
        let found = told.iter().any(|one| {
            one["message"].as_str().is_some_and(|message| message.contains(says))
                && one.get("line") == Some(&json!(line))
        });
        assert!(found, "{says} in line {line}: {log}");
    }
    assert!(told.iter().all(|one| one["module"].is_string()), "{log}");
}

/// The store is read and not changed; an address that is taken is told, and may be the broker's own.
#[tokio::test]
async fn the_store_and_the_addresses_are_looked_at_and_left_alone() {
    let (mut world, good) = prepared().await;
    let (code, told, _) = check(&world, &good, &["--offline"]);
    assert!(code == Some(0) && told.contains("broker.db: not there yet") && !told.contains("warning"), "{told}");
    let file = world.folder.path().join("broker.db");
    assert!(!file.exists(), "a check makes nothing");

    // While the broker serves, from another port.
    world.start(&[]).await;
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let here = good.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\""));
    let (code, told, _) = check(&world, &here, &["--offline"]);
    let line = format!("server.listen {address}: warning: in use by a process of this machine");
    assert!(code == Some(0) && told.contains("broker.db: good, version ") && told.contains(&line), "{told}");
    world.process().stop().unwrap();

    // What `serve` would refuse.
    let mut bytes = std::fs::read(&file).unwrap();
    // `PRAGMA user_version`, in the file's header.
    bytes[60..64].copy_from_slice(&999_u32.to_be_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let (code, told, _) = check(&world, &good, &["--offline"]);
    assert!(code == Some(3) && told.contains("has version 999") && told.contains("1 store is not in order"), "{told}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was changed");
    let refused = world.try_start(&[]).unwrap_err();
    assert!(format!("{refused:#}").contains("has version 999"), "serve refuses it in the same words: {refused:#}");
}
