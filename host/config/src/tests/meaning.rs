//! What a configuration without mistakes means.

use std::path::Path;
use std::time::Duration;

use jit_core::policy::Mode;
use jit_identity::SigningAlgorithm;

use super::super::{EXAMPLE, Export, LogFormat, Protocol, SecretRef, Signing, StoreKind, TrustedKey};
use super::{BASE, Config, changed, parse, position};

#[test]
fn the_example_is_right_and_has_no_warnings() {
    let config = Config::parse(EXAMPLE, "/etc/jit-broker/broker.toml").unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8700");
    assert_eq!(config.server.admin_socket, Path::new("/etc/jit-broker/run/admin.sock"));
    assert_eq!(config.store.kind, StoreKind::Sqlite("/etc/jit-broker/data/broker.db".into()));
    assert_eq!(config.audit.signing_key, SecretRef::File("/etc/jit-broker/data/audit.key".into()));
    assert_eq!(config.audit.export, [Export::Jsonl { path: "/etc/jit-broker/data/audit.jsonl".into() }]);
    let issuer = &config.identity.jwt[0];
    assert_eq!(issuer.issuer.as_str(), "https://kubernetes.default.svc");
    assert_eq!(issuer.workload.to_string(), "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}");
    assert_eq!(issuer.attributes["k8s_pod"].to_string(), "kubernetes.io.pod.name");
    let connection = &config.connections["inventory"];
    let password = Some(SecretRef::File("/etc/jit-broker/secrets/inventory".into()));
    assert_eq!((&connection.protocol, connection.max_connections), (&Protocol::Postgres { password }, 8));
    let policy = &config.policies["allow-listed"];
    assert_eq!((policy.plugin.as_str(), policy.mode), ("allow-list", Mode::Enforce));
    assert_eq!(policy.config["rules"][0]["roles"], serde_json::json!(["app_read_only"]));
    let target = &config.targets["inventory_db"];
    assert_eq!((target.default_ttl.seconds(), target.max_ttl.seconds()), (3_600, 28_800));
    assert_eq!(target.policies, ["allow-listed"]);
    assert_eq!(target.roles["app_read_only"], serde_json::json!({ "grants": ["app_read_only"] }));
}

#[test]
fn a_store_in_a_database_has_a_url_for_each_server() {
    let text = EXAMPLE.replace(
        "url = \"sqlite:data/broker.db\"",
        "url = \"postgres://jit_store@db-1.example,[::1]:5433/jit_store?sslmode=verify-full\"\n\
         password = { file = \"secrets/store\" }",
    );
    let config = Config::parse(&text, "/etc/jit-broker/broker.toml").unwrap();
    let StoreKind::Postgres(store) = &config.store.kind else { panic!("{:?}", config.store.kind) };
    let servers: Vec<&str> = store.servers.iter().map(url::Url::as_str).collect();
    let expected = ["db-1.example", "[::1]:5433"];
    assert_eq!(servers, expected.map(|host| format!("postgres://jit_store@{host}/jit_store?sslmode=verify-full")));
    assert_eq!(store.password, Some(SecretRef::File("/etc/jit-broker/secrets/store".into())));
    assert_eq!((&store.ca, &store.plaintext), (&None, &None));
}

/// The public half of a key that everybody knows, of golang.org/x/mod/sumdb/note.
const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

/// Every commented-out key of the example, put in force: so that the comments cannot rot.
#[test]
fn what_the_example_has_in_comments_is_right_too() {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let key = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split(" = ").next().unwrap_or(rest);
            rest.starts_with("[[")
                || rest.contains(" = ")
                    && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
        });
        text.push_str(key.unwrap_or(line));
        text.push('\n');
    }
    let text = text
        .replace("https://…", "https://keys.example.com/jwks")
        .replace("security-team+4f2a91c0+AXx…", VERIFIER)
        .replace("sha256 = \"…\"", &format!("sha256 = \"{}\"", "ab".repeat(32)));
    let config = Config::parse(&text, "broker.toml").unwrap_or_else(|errors| panic!("{}", errors.render(false)));
    assert!(text.matches("# ").count() > 10 && config.server.tls.is_some());
    assert_eq!(config.plugin_limits.policy_time, Some(Duration::from_millis(50)));
    assert_eq!(config.plugins["postgres"].sha256, Some([0xab; 32]));
    assert_eq!(config.targets["inventory_db"].endpoint.as_ref().unwrap().port, Some(5432));
    assert_eq!(config.identity.jwt[0].algorithms, [SigningAlgorithm::Rs256, SigningAlgorithm::Es256]);
    assert_eq!(config.identity.jwt[1].name, "github");
}

#[test]
fn what_is_left_out_has_the_documented_defaults() {
    let config = parse(BASE).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.account_prefix.as_str(), "v-");
    assert_eq!(config.store.kind, StoreKind::Sqlite("data/broker.db".into()));
    assert_eq!(config.store.keep_revoked.to_string(), "7d");
    assert_eq!(config.server.request_timeout, Duration::from_secs(60));
    assert_eq!(config.server.max_in_flight, 1_024);
    assert_eq!((config.limits.requests_per_second, config.limits.burst), (50, 100));
    assert_eq!(config.reconcile_interval, Duration::from_secs(3_600));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.audit.origin, "jit-broker");
    assert_eq!(config.identity.jwt[0].leeway, Duration::from_secs(30));
    assert_eq!(config.identity.jwt[0].algorithms, [SigningAlgorithm::Rs256, SigningAlgorithm::Es256]);
    assert_eq!(config.identity.jwt[0].max_token_lifetime, None);
    assert_eq!(config.identity.jwt[0].max_stale, None);
    assert_eq!(config.plugins["postgres"].grants, None);
    assert_eq!(config.policies["allow-listed"].config, serde_json::json!({}));
    let target = &config.targets["inventory_db"];
    assert_eq!((target.timeout, target.endpoint.is_none()), (Duration::from_secs(30), true));
}

/// [`BASE`] with another connection in the place of its own.
fn connected(connection: &str) -> String {
    let start = BASE.find("[connections.inventory]").unwrap();
    let end = BASE.find("[policies.allow-listed]").unwrap();
    format!("{}[connections.inventory]\n{connection}\n{}", &BASE[..start], &BASE[end..])
}

#[test]
fn each_kind_of_connection_has_its_own_keys() {
    let read = |text: &str| parse(&connected(text)).unwrap().connections["inventory"].clone();
    let mysql = read("kind = \"mysql\"\nurl = \"mysql://jit@db\"\npassword = { env = \"PW\" }\nca = \"ca.pem\"");
    assert_eq!(mysql.protocol, Protocol::MySql { password: Some(SecretRef::Env("PW".into())) });
    assert_eq!((mysql.ca.as_deref(), mysql.protocol.capability()), (Some(Path::new("ca.pem")), "sql"));

    let ldap = "kind = \"ldap\"\nurl = \"ldap://[::1]:1389\"\nbind_dn = \"cn=jit,dc=x\"\npassword = { file = \"p\" }";
    let expected = Protocol::Ldap {
        bind_dn: "cn=jit,dc=x".into(),
        password: SecretRef::File("p".into()),
        operation_timeout: Duration::from_secs(10),
    };
    let read_ldap = read(&format!("{ldap}\nplaintext = {{ because = \"a test\" }}"));
    assert_eq!((read_ldap.protocol, read_ldap.plaintext.as_deref()), (expected, Some("a test")));

    let http = read(
        "kind = \"http\"\nurl = \"http://localhost:8200/v1\"\naddresses = [\"169.254.1.1\", \"fe80::1\"]\n\
         request_timeout = \"3s\"\nsecrets = { jwt = { file = \"/run/token\" }, api_key = { env = \"KEY\" } }",
    );
    let Protocol::Http { secrets, addresses, request_timeout } = http.protocol else { panic!("another kind") };
    assert_eq!(secrets["jwt"], SecretRef::File("/run/token".into()));
    assert_eq!((secrets.len(), &secrets["api_key"]), (2, &SecretRef::Env("KEY".into())));
    assert_eq!((addresses.len(), request_timeout), (2, Duration::from_secs(3)));
    assert_eq!(read("kind = \"http\"\nurl = \"https://vault.example.com\"").protocol.capability(), "http");
}

#[test]
fn an_endpoint_says_what_callers_speak() {
    let endpoint = "max_ttl = \"8h\"\nendpoint = { scheme = \"postgres\", host = \"db\", database = \"inventory\" }";
    let endpoint = parse(&changed("max_ttl = \"8h\"", endpoint)).unwrap().targets["inventory_db"].endpoint.clone();
    let endpoint = endpoint.unwrap();
    assert_eq!(
        (endpoint.scheme.as_deref(), endpoint.host.as_deref(), endpoint.port),
        (Some("postgres"), Some("db"), None)
    );
    assert_eq!(endpoint.database.as_deref(), Some("inventory"));
}

#[test]
fn whoever_says_nothing_gets_the_shorter_life() {
    let lengths = |from: &str, to: &str| {
        let text = BASE.replace("default_ttl = \"1h\"\n", from).replace("max_ttl = \"8h\"\n", to);
        let target = parse(&text).unwrap().targets["inventory_db"].clone();
        (target.default_ttl.to_string(), target.max_ttl.to_string())
    };
    assert_eq!(lengths("", ""), ("1h".into(), "1h".into()));
    assert_eq!(lengths("", "max_ttl = \"8h\"\n"), ("1h".into(), "8h".into()));
    assert_eq!(lengths("", "max_ttl = \"10m\"\n"), ("10m".into(), "10m".into()));
    assert_eq!(lengths("default_ttl = 7200\n", ""), ("2h".into(), "2h".into()));
}

#[test]
fn listening_beyond_loopback_needs_tls_or_a_word_for_it() {
    for good in [
        "listen = \"0.0.0.0:1\"\nallow_plaintext = true",
        "listen = \"0.0.0.0:1\"\ntls = { cert = \"c\", key = \"k\" }",
        "listen = \"[::1]:1\"",
        "listen = \"127.8.0.1:0\"",
    ] {
        parse(&changed("listen = \"127.0.0.1:8700\"", good)).unwrap();
    }
    for bad in ["listen = \"[::]:1\"", "listen = \"10.0.0.1:1\"\nallow_plaintext = false"] {
        parse(&changed("listen = \"127.0.0.1:8700\"", bad)).unwrap_err();
    }
}

#[test]
fn an_http_issuer_on_loopback_is_for_development() {
    for issuer in ["http://127.0.0.1:9000", "http://localhost:9000/realm", "http://[::1]:9000"] {
        let config = parse(&changed("https://kubernetes.default.svc", issuer)).unwrap();
        assert_eq!(config.identity.jwt[0].issuer.as_str(), issuer, "kept byte for byte");
    }
    for issuer in ["http://localhost.example.com", "http://128.0.0.1", "ftp://127.0.0.1", "https:///x?y=1"] {
        parse(&changed("https://kubernetes.default.svc", issuer)).unwrap_err();
    }
}

#[test]
fn what_a_plugin_says_is_told_with_its_line() {
    let text =
        format!("{BASE}[[policies.allow-listed.config.rules]]\ntarget = \"x\"\nroles = [\n  \"a\",\n  \"b\",\n]\n");
    let config = parse(&text).unwrap();
    for (path, at) in [
        ("policies.allow-listed.config.rules[0].roles[1]", "\"b\""),
        ("policies.allow-listed.config.rules[0].nothing.such", "[[policies"),
        ("targets.inventory_db.roles.reader.grants[0]", "\"app_read_only\""),
        ("targets.inventory_db.config.x", "inventory_db]"),
    ] {
        let told = config.explain(path, "is wrong").plain();
        assert!(told.starts_with(&format!("broker.toml:{}: is wrong", position(&text, at))), "{path}: {told}");
    }
    assert_eq!(config.explain("nowhere", "is wrong").plain(), "broker.toml: is wrong");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_change_nothing() {
    let text = format!("\u{feff}{}", BASE.replace('\n', "\r\n"));
    assert_eq!(parse(&text).unwrap().targets, parse(BASE).unwrap().targets);
    let text = text.replace("listen", "lisen");
    let told = parse(&text).unwrap_err().render(false);
    assert!(told.starts_with("broker.toml:2:1: unknown key `lisen`") && !told.contains('\r'), "{told:?}");
}

#[test]
fn who_vouches_for_plugins_stands_beside_them() {
    let signed = |keys: &str| changed("[plugins.postgres]", &format!("[plugins]\n{keys}\n[plugins.postgres]"));
    let config = parse(BASE).unwrap();
    assert!(!config.signing.required && config.signing.keys() == Ok(None) && config.server.watch);
    assert_eq!(config.served_files().len(), 4, "itself, two plugins, a password: {:?}", config.served_files());

    let text = signed(&format!("require_signature = true\ntrusted_keys = [\"{VERIFIER}\", {{ file = \"no.pub\" }}]"));
    let config = parse(&text).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.plugins.len(), 2, "its keys are no plugins: {:?}", config.plugins.keys());
    assert_eq!(config.signing.trusted[0], TrustedKey::Key(VERIFIER.parse().unwrap()));
    let (index, wrong) = config.signing.keys().unwrap_err();
    assert!(index == 1 && wrong.contains("no.pub: cannot be read"), "{wrong}");
    let files = config.served_files();
    assert_eq!(files.len(), 7, "with two signatures and a key: {files:?}");
    assert!(files.iter().any(|file| file.ends_with("driver-postgres.wasm.sig")), "{files:?}");

    let idle = parse(&signed(&format!("trusted_keys = [\"{VERIFIER}\"]"))).unwrap();
    assert_eq!(idle.warnings.len(), 1, "{:?}", idle.warnings);
    assert!(idle.warnings[0].message.contains("has no effect") && idle.signing.keys() == Ok(None));
    // The wrong half is not shown again.
    let seed = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";
    let errors = parse(&signed(&format!("trusted_keys = [\"jit-plugin-key-v1:team:{seed}\"]"))).unwrap_err();
    assert!(!errors.render(false).contains(seed) && !errors.render(true).contains(seed));
}

#[test]
fn a_key_in_a_file_is_one_line_and_the_public_half() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("team.pub");
    let signing = Signing { required: true, trusted: vec![TrustedKey::File(file.clone())] };
    std::fs::write(&file, format!("{VERIFIER}\n")).unwrap();
    assert_eq!(signing.keys(), Ok(Some(vec![VERIFIER.parse().unwrap()])));
    let secret = "jit-plugin-key-v1:team:c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";
    for (content, says) in
        [(secret, "is the signing key itself"), ("team", "not a key"), (&"x".repeat(2_000), "too long")]
    {
        std::fs::write(&file, content).unwrap();
        let (_, wrong) = signing.keys().unwrap_err();
        assert!(wrong.contains(says) && !wrong.contains("c2Vj"), "{wrong}");
    }
}

#[test]
fn a_template_that_leaves_out_the_namespace_is_warned_of() {
    let with = |template: &str| parse(&changed("\"{sub}\"", &format!("\"{template}\""))).unwrap().warnings;
    let warnings = with("{kubernetes.io.serviceaccount.name}");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.contains("without its namespace"), "{}", warnings[0].message);
    for whole in ["{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}", "{sub}", "{kubernetes.io.pod.name}"]
    {
        assert!(with(whole).is_empty(), "{whole}");
    }
}

#[test]
fn the_shared_digest_is_of_what_all_brokers_of_a_store_have_alike() {
    let digest = |text: &str| crate::shared_sha256(text);
    let text =
        "[server]\nlisten = \"127.0.0.1:1\"\n[limits]\nmax = 1\n[[identity.jwt]]\nissuer = \"https://a.example\"\n";
    let same = "# another broker\n[server]\nlisten = \"127.0.0.1:2\"\n[[identity.jwt]]\nissuer = \"https://a.example\"\n\
        [[identity.jwt]]\nissuer = \"http://127.0.0.1:4000\"\n[store]\nurl = \"postgres://b/c\"\n[limits]\nmax = 1\n";
    assert_eq!(digest(text), digest(same));
    assert_ne!(digest(text), digest(&text.replace("max = 1", "max = 2")));
    assert_ne!(digest(text), digest(&text.replace("a.example", "b.example")));
}
