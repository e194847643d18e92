//! One request is followed by its id through reply, log, audit and trace, down to the database's own view of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use jit_tests::world::{eventually, read};
use jit_tests::{Gate, Settings, World};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What takes spans over OTLP, as a collector does, and keeps them.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(HeaderMap, Span)>>>);

impl Collector {
    async fn listen() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(Self::take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (collector, url)
    }

    async fn take(State(Self(kept)): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
        let spans = request.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|one| one.spans);
        kept.lock().unwrap().extend(spans.map(|span| (headers.clone(), span)));
        StatusCode::OK
    }

    /// What came, for a failed test.
    fn names(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap();
        kept.iter().map(|(_, span)| format!("{} of {}", span.name, hex(&span.trace_id))).collect()
    }

    fn of_trace(&self, trace: &str) -> Vec<(HeaderMap, Span)> {
        let kept = self.0.lock().unwrap();
        kept.iter().filter(|(_, span)| hex(&span.trace_id) == trace).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Attribute| match value {
        Attribute::StringValue(text) => Some(text.clone()),
        _ => None,
    };
    let pairs = span.attributes.iter().filter_map(|pair| {
        Some((pair.key.clone(), pair.value.as_ref().and_then(|value| value.value.as_ref()).and_then(text)?))
    });
    pairs.collect()
}

/// The log's lines, each of which is JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of<'a>(lines: &'a [Value], request: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["request_id"] == request).collect()
}

// The collector answers while the test waits for the broker's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_its_id_in_reply_log_audit_trace_and_database() {
    let (collector, url) = Collector::listen().await;
    let more = format!(
        "[log]\nformat = \"json\"\n[traces]\nurl = \"{url}\"\nheaders = {{ x-api-key = {{ file = \"collector\" }} }}\n"
    );
    let mut world = World::prepared(Settings { more, ..Settings::default() }).await;
    world.write_secret("collector", "the key of the collector").unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();

    // Held in the database for a moment, so that it can be looked at there.
    let gate = Gate::close(&world.database, &world.database.read_only).await.unwrap();
    let asking = client
        .raw()
        .post(format!("{}/issue", client.broker))
        .bearer_auth(&token)
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .json(&json!({"target": "inventory_db", "role": "app_read_only", "ttl": "10m"}));
    let asking = tokio::spawn(asking.send());
    world.database.waiting_become(1).await;
    let busy = "SELECT application_name FROM pg_stat_activity WHERE usename = current_setting('jit.test_user') \
                AND state = 'active'";
    let busy = busy.replace("current_setting('jit.test_user')", &format!("'{}'", world.database.broker));
    let named = world.database.value(&busy).await.unwrap();
    gate.open().await.unwrap();

    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), 201);
    let request = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let lease = answer.json::<Value>().await.unwrap()["lease_id"].as_str().unwrap().to_owned();
    assert_eq!(named, format!("jit-broker {request}"), "the database's administrator sees for whom the broker works");

    let revoked = client.post(&format!("/v1/leases/{lease}/revoke"), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    let stranger = client.token("reporting").await.unwrap();
    let denied = client.issue(&stranger, &json!({"target": "inventory_db", "role": "app_read_only"})).await.unwrap();
    assert_eq!(denied.status, 403, "{}", denied.text);
    let denial = denied.text_at("/request_id").to_owned();
    let missing = client.raw().get(format!("{}/nowhere", client.broker)).send().await.unwrap();
    let missing = missing.headers()["x-request-id"].to_str().unwrap().to_owned();
    let (operator, socket) = world.admin();
    let unknown = operator.get(format!("{socket}/admin/leases/lease_00000000000000000000000000")).send().await.unwrap();
    let of_operator = unknown.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(unknown.json::<Value>().await.unwrap()["request_id"], of_operator.as_str());

    let audit = world.audit();
    let records: Vec<_> = audit.iter().filter(|record| record["request_id"] == request.as_str()).collect();
    assert!(records.iter().any(|record| record["event"] == "issue.granted"), "{records:?}");

    world.process().stop().unwrap();
    let lines = lines(&read(&world.log_path()).unwrap());
    let granted: Vec<_> = of(&lines, &request).into_iter().filter(|line| line["message"] == "granted").collect();
    assert_eq!(granted.len(), 1, "{:#?}", of(&lines, &request));
    for (key, value) in [
        ("level", "INFO"),
        ("workload", "payment-service"),
        ("target", "inventory_db"),
        ("role", "app_read_only"),
        ("lease", lease.as_str()),
        ("trace_id", TRACE),
    ] {
        assert_eq!(granted[0][key], value, "{key}");
    }
    let removed: Vec<_> = lines.iter().filter(|line| line["message"] == "account removed").collect();
    assert_eq!(removed.len(), 1);
    for (key, value) in
        [("workload", "payment-service"), ("target", "inventory_db"), ("lease", &lease), ("request_id", &request)]
    {
        assert_eq!(removed[0][key], value, "{key}");
    }
    let refused = of(&lines, &denial);
    assert_eq!(refused.len(), 1, "{refused:#?}");
    for (key, value) in [
        ("message", "refused"),
        ("level", "INFO"),
        ("code", "policy-denied"),
        ("policy", "allow"),
        ("workload", "reporting"),
        ("target", "inventory_db"),
    ] {
        assert_eq!(refused[0][key], value, "{key}");
    }
    assert_eq!(refused[0]["status"], 403);
    assert_eq!(of(&lines, &missing)[0]["status"], 404);
    let administration = of(&lines, &of_operator);
    assert_eq!((administration.len(), &administration[0]["code"]), (1, &json!("unknown-lease")));

    // The stop sends what is left.
    let spans = collector.of_trace(TRACE);
    let (headers, root) = spans
        .iter()
        .find(|(_, span)| span.name == "request")
        .unwrap_or_else(|| panic!("the request's span is missing: {:?}", collector.names()));
    assert_eq!(headers["x-api-key"], "the key of the collector");
    assert_eq!(hex(&root.parent_span_id), CALLER, "it belongs to the caller's span");
    let about = attributes(root);
    assert_eq!(about["request_id"], request);
    assert_eq!((about["workload"].as_str(), about["lease"].as_str()), ("payment-service", lease.as_str()));
    let (_, creation) = spans.iter().find(|(_, span)| span.name == "driver.create").expect("the driver's span");
    assert_eq!(attributes(creation)["target"], "inventory_db");
}

#[tokio::test]
async fn a_collector_that_is_away_or_says_no_holds_nothing_up() {
    let more = "[traces]\nurl = \"http://127.0.0.1:9/v1/traces\"\n".to_owned();
    let mut world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db", "ttl": "10m"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    eventually("it is told once", async || world_log(&world).contains("the collector of [traces] does not take spans"))
        .await;
    world.process().stop().unwrap();
    assert_eq!(world_log(&world).matches("does not take spans").count(), 1);
}

fn world_log(world: &World) -> String {
    read(&world.log_path()).unwrap()
}

#[tokio::test]
async fn a_traceparent_that_is_none_is_no_reason_to_refuse() {
    let world = World::new().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    for wrong in ["", "00-1-2-3", "\u{7f}", &"0".repeat(4_000)] {
        let Ok(value) = reqwest::header::HeaderValue::from_bytes(wrong.as_bytes()) else { continue };
        let asked = client.raw().get(format!("{}/v1/leases", client.broker)).bearer_auth(&token);
        assert_eq!(asked.header("traceparent", value).send().await.unwrap().status(), 200, "{wrong:.20}");
    }
}
