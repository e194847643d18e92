//! Context providers: facts from a real HTTP server reach the policies and the record; a provider that
//! fails denies or is done without, as configured; one that misbehaves harms nobody.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use jit_tests::{Settings, World, surroundings};
use serde_json::json;
use tokio::sync::watch;

/// What the server answers next.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// That status and body.
    Say(u16, String),
    /// A redirect to itself.
    Redirect,
    /// A body without end.
    Endless,
    /// Nothing.
    Silence,
}

/// Path and authorization of a request.
pub(crate) type Seen = (String, String);

#[derive(Clone)]
struct Server {
    answer: watch::Receiver<Answer>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Seen>>,
}

/// A server of facts on loopback.
pub(crate) struct Facts {
    /// Its URL.
    pub(crate) url: String,
    answer: watch::Sender<Answer>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Seen>>,
}

async fn answer(State(server): State<Server>, uri: Uri, headers: HeaderMap) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
    *server.last.lock().unwrap() = (uri.path().to_owned(), authorization.to_owned());
    server.asked.fetch_add(1, Ordering::SeqCst);
    let answer = server.answer.borrow().clone();
    match answer {
        Answer::Say(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        Answer::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Answer::Endless => {
            let chunk = || Ok::<_, std::io::Error>("x".repeat(65_536));
            axum::body::Body::from_stream(futures_util::stream::repeat_with(chunk)).into_response()
        }
        Answer::Silence => std::future::pending().await,
    }
}

impl Facts {
    pub(crate) async fn new() -> Self {
        let (sender, answer_now) = watch::channel(Answer::Say(200, "good".to_owned()));
        let asked = Arc::new(AtomicUsize::new(0));
        let last = Arc::new(Mutex::new(Seen::default()));
        let state = Server { answer: answer_now, asked: Arc::clone(&asked), last: Arc::clone(&last) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answer: sender, asked, last }
    }

    pub(crate) fn say(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    pub(crate) fn last(&self) -> Seen {
        self.last.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Sections for a provider `health` of this server, and a policy that wants its word to be good.
    fn sections(&self, more: &str) -> String {
        let plugins = surroundings("JIT_TEST_PLUGINS");
        let url = &self.url;
        format!(
            r#"
[plugins.facts]
path = "{plugins}/context-facts.wasm"
[plugins.scripted]
path = "{plugins}/policy-scripted.wasm"
[connections.facts]
kind = "http"
url = "{url}"
[contexts.health]
plugin = "facts"
connection = "facts"
config = {{ path = ["facts"] }}
{more}
[policies.healthy]
plugin = "scripted"
[[policies.healthy.config.rules]]
when = {{ facts = {{ "health.body" = "good", "health.status" = "ok" }} }}
reason = "healthy"
[[policies.healthy.config.rules]]
when = {{ facts = {{ "health.status" = "failed" }} }}
reason = "health unknown"
max_ttl_seconds = 60
[[policies.healthy.config.rules]]
deny = "the workload's machine is not healthy"
"#
        )
    }

    async fn world(&self, more: &str) -> World {
        World::with(Settings {
            policies: vec!["allow".into(), "healthy".into()],
            target: "contexts = [\"health\"]".into(),
            more: self.sections(more),
            ..Settings::default()
        })
        .await
    }
}

#[tokio::test]
async fn facts_decide_are_on_record_and_are_asked_for_once_while_they_are_fresh() {
    let facts = Facts::new().await;
    let world = facts.world("cache_ttl = \"1h\"").await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    for _ in 0..3 {
        let issued = client.issue(&token, &body).await.unwrap();
        assert_eq!(issued.status, 201, "{}", issued.text);
    }
    assert_eq!(facts.asked(), 1, "for an hour the first answer is good");
    let granted = world.events("issue.granted");
    let outcomes: Vec<_> = granted.iter().map(|record| record["contexts"][0]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["asked", "cached", "cached"]);
    for record in &granted {
        assert_eq!(record["contexts"][0]["name"], "health");
        assert_eq!(record["contexts"][0]["plugin_sha256"].as_str().unwrap().len(), 64);
        assert_eq!(record["input"]["facts"]["health.body"], "good");
        assert_eq!(record["input"]["facts"]["health.status"], "ok");
    }
    // Of another workload nothing is known yet, and it may be another answer.
    facts.say(Answer::Say(200, "infected".into()));
    let other = client.token("payment-worker").await.unwrap();
    let denied = client.issue(&other, &body).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    assert_eq!(denied.json["policy"], "healthy");
    assert_eq!(world.events("issue.denied")[0]["input"]["facts"]["health.body"], "infected");
    assert_eq!(facts.asked(), 2);
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    world.assert_log_is_intact();
}

#[tokio::test]
async fn a_provider_that_fails_denies_by_name_or_is_done_without() {
    let facts = Facts::new().await;
    let closed = facts.world("cache = false\ntimeout = \"3s\"").await;
    let open = facts.world("cache = false\ntimeout = \"3s\"\non_failure = \"allow\"").await;
    for (world, is_open) in [(&closed, false), (&open, true)] {
        let client = world.client();
        let token = client.token("payment-service").await.unwrap();
        for bad in [Answer::Endless, Answer::Silence] {
            facts.say(bad.clone());
            let reply = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
            let told = format!("{bad:?}: {}", reply.text);
            if is_open {
                assert_eq!((reply.status, &reply.json["ttl_seconds"]), (201, &json!(60)), "{told}");
                continue;
            }
            reply.assert_problem(403, "policy-denied");
            assert_eq!(reply.json["policy"], "health", "{told}");
            assert!(!reply.text.contains(&facts.url), "the inside is not told: {told}");
        }
        let event = if is_open { "issue.granted" } else { "issue.denied" };
        let records = world.events(event);
        assert_eq!(records.len(), 2);
        for record in records {
            let context = &record["contexts"][0];
            assert_eq!((&context["outcome"], context["failed_open"] == true), (&json!("failed"), is_open), "{record}");
            assert!(context["error"].as_str().unwrap().contains("facts"), "{record}");
            assert_eq!(record["input"]["facts"]["health.status"], "failed");
        }
        // A redirect is an answer like another, and nobody follows it.
        facts.say(Answer::Redirect);
        let before = facts.asked();
        let redirected = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        redirected.assert_problem(403, "policy-denied");
        assert_eq!((redirected.json["policy"].as_str(), facts.asked()), (Some("healthy"), before + 1));
        facts.say(Answer::Say(200, "good".into()));
        assert_eq!(client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap().status, 201);
    }
}

#[tokio::test]
async fn the_posture_provider_asks_an_endpoint_about_the_workload() {
    let facts = Facts::new().await;
    let (plugins, url) = (surroundings("JIT_TEST_PLUGINS"), &facts.url);
    let more = format!(
        r#"
[plugins.posture]
path = "{plugins}/context-posture.wasm"
[plugins.scripted]
path = "{plugins}/policy-scripted.wasm"
[connections.edr]
kind = "http"
url = "{url}"
secrets = {{ token = {{ file = "edr.token" }} }}
[contexts.posture]
plugin = "posture"
connection = "edr"
cache = false
[contexts.posture.config]
path = ["v1", "hosts", "{{workload}}"]
bearer = "token"
facts = {{ score = "/edr/score" }}
on_status.404 = {{ score = 0 }}
[policies.healthy]
plugin = "scripted"
[[policies.healthy.config.rules]]
when = {{ facts = {{ "posture.score" = "87" }} }}
[[policies.healthy.config.rules]]
deny = "the score is too low"
"#
    );
    let policies = vec!["allow".into(), "healthy".into()];
    let settings = Settings { policies, target: "contexts = [\"posture\"]".into(), more, ..Settings::default() };
    let mut world = World::prepared(settings).await;
    world.write_secret("edr.token", "s3cr3t-of-the-edr").unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    facts.say(Answer::Say(200, json!({"edr": {"score": 87}}).to_string()));
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    let last = facts.last();
    assert_eq!(last, ("/v1/hosts/payment-service".to_owned(), "Bearer s3cr3t-of-the-edr".to_owned()));
    facts.say(Answer::Say(404, String::new()));
    let unknown = client.issue(&token, &body).await.unwrap();
    unknown.assert_problem(403, "policy-denied");
    assert_eq!(unknown.text_at("/detail"), "the score is too low");
    // What is no answer about the workload is none.
    facts.say(Answer::Say(500, json!({"edr": {"score": 87}}).to_string()));
    let broken = client.issue(&token, &body).await.unwrap();
    broken.assert_problem(403, "policy-denied");
    assert_eq!(broken.json["policy"], "posture", "{}", broken.text);
    let log = world.audit();
    assert!(log.iter().all(|record| !record.to_string().contains("s3cr3t-of-the-edr")));
}

/// Where machines keep their own credentials: link-local, and the same address in other spellings.
#[tokio::test]
async fn a_metadata_address_is_refused_unless_the_connection_names_it() {
    let facts = Facts::new().await;
    for url in ["https://169.254.169.254", "https://[::ffff:169.254.169.254]", "https://[fe80::1]"] {
        let real = facts.sections("");
        let more = real.replace(&format!("\"{}\"", facts.url), &format!("\"{url}\""));
        assert_ne!(real, more);
        let settings = Settings {
            policies: vec!["allow".into(), "healthy".into()],
            target: "contexts = [\"health\"]".into(),
            more,
            ..Settings::default()
        };
        let mut world = World::prepared(settings).await;
        if world.try_start(&[]).is_err() {
            // Told already when the configuration is read.
            continue;
        }
        let client = world.client();
        let token = client.token("payment-service").await.unwrap();
        let reply = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
        reply.assert_problem(403, "policy-denied");
        assert_eq!(reply.json["policy"], "health", "{url}: {}", reply.text);
    }
    assert_eq!(facts.asked(), 0);
}

/// The fixture's own list of what it does: a mode that is added there is tried here.
const HOSTILE: &str = include_str!("../guests/context-hostile/src/lib.rs");

#[tokio::test]
async fn a_provider_that_misbehaves_denies_by_name_and_harms_nobody() {
    let facts = Facts::new().await;
    let plugins = surroundings("JIT_TEST_PLUGINS");
    let mut more = facts.sections("");
    let _ = writeln!(
        more,
        "[plugins.hostile]\npath = \"{plugins}/context-hostile.wasm\"\n[plugins.noop]\npath = \"{plugins}/driver-noop.wasm\""
    );
    let modes = super::hostile::variants(HOSTILE, "pub enum Mode {");
    let at_load = |mode: &str| mode.ends_with("-validate") || mode.ends_with("-prepare");
    for mode in modes.iter().filter(|mode| !at_load(mode)) {
        let _ = writeln!(
            more,
            "[contexts.c-{mode}]\nplugin = \"hostile\"\nconnection = \"facts\"\ntimeout = \"2s\"\ncache = false\n\
             config = {{ mode = \"{mode}\" }}\n\
             [targets.c-{mode}]\ndriver = \"noop\"\ncontexts = [\"c-{mode}\"]\npolicies = [\"allow\"]\nroles.any = {{}}"
        );
    }
    let settings = Settings {
        policies: vec!["allow".into(), "healthy".into()],
        target: "contexts = [\"health\"]".into(),
        more: more.clone(),
        ..Settings::default()
    };
    let mut world = World::with(settings).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    for mode in modes.iter().filter(|mode| !at_load(mode)) {
        let target = format!("c-{mode}");
        let reply = client.issue(&token, &json!({"target": target, "role": "any"})).await.unwrap();
        if mode == "forged" {
            // Its facts are its own by their names, so they stand in for nobody's.
            assert_eq!(reply.status, 201, "{}", reply.text);
            let facts = world.events("issue.granted").pop().unwrap()["input"]["facts"].take();
            assert_eq!(facts, json!({"c-forged.status": "ok", "c-forged.usage.workload.leases": "0"}));
            continue;
        }
        reply.assert_problem(403, "policy-denied");
        assert_eq!(reply.json["policy"], json!(target), "{}", reply.text);
        let denied = world.events("issue.denied");
        let record = denied.last().unwrap();
        assert_eq!(record["contexts"][0]["outcome"], "failed", "{record}");
        assert!(record.to_string().len() < 16 << 10);
    }
    let good = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(good.status, 201, "{}", good.text);
    super::hostile::assert_log_is_sane(&mut world);
    assert!(super::hostile::most_memory(&mut world) < 1 << 20);

    for mode in modes.iter().filter(|mode| at_load(mode)) {
        let bad = format!("mode = \"{mode}\"");
        let text = std::fs::read_to_string(world.config()).unwrap();
        std::fs::write(world.config(), text.replace("mode = \"loop\"", &bad)).unwrap();
        let refused = world.cli(&["config", "reload"]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && told.contains("plugin hostile") && told.contains("broker.toml:"),
            "{mode}: {told}"
        );
        std::fs::write(world.config(), text).unwrap();
    }
    assert_eq!(client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap().status, 201);
}
