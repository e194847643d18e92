//! The provider on a scripted server.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use jit_plugin::testing::{FakeHttp, Reply, request};
use serde_json::{Value, json};

use super::*;

const CONFIG: &str = r#"{
    "path": ["v1", "hosts", "{workload}"],
    "query": {"ns": "{attributes.k8s_namespace}", "view": "short"},
    "bearer": "token",
    "facts": {"score": {"pointer": "/edr/score", "type": "number"}, "patched": "/patch/current", "os": "/os"},
    "required": ["score", "patched"],
    "on_status": {"404": {"known": false, "score": 0}}
}"#;

const TICKET: &str = r#"{
    "path": ["changes", "{ticket}"], "facts": {"state": "/state"},
    "without_value": {"state": "none"}, "secret_headers": {"X-Api-Key": "key"}
}"#;

fn config(json: &str) -> Config {
    let config: Config = jit_plugin::config::parse(json).unwrap();
    assert_eq!(Posture::validate(&config), []);
    config
}

fn workload() -> Request<'static> {
    request().with_attribute("k8s_namespace", "payments")
}

type Facts = Result<Vec<(String, String)>, String>;

/// What comes of an answer, and what was sent.
fn asked(json: &str, request: &Request, reply: Result<Reply, HttpError>) -> (Facts, Vec<String>) {
    let mut http = FakeHttp::new(move |_| reply.clone()).with_credential("token", "t-1").with_credential("key", "k-1");
    let facts = gather(&mut http, &config(json), request);
    let sent = http.sent.iter().map(|sent| sent.text()).collect();
    (facts, sent)
}

fn answered(body: &Value) -> Facts {
    asked(CONFIG, &workload(), Ok(Reply::json(200, body))).0
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn an_answers_values_become_facts() {
    let body = json!({"edr": {"score": 87}, "patch": {"current": true}, "os": "debian 12", "more": [1, 2]});
    let (facts, sent) = asked(CONFIG, &workload(), Ok(Reply::json(200, &body)));
    assert_eq!(facts.unwrap(), pairs(&[("os", "debian 12"), ("patched", "true"), ("score", "87")]));
    assert_eq!(
        sent,
        [
            "GET /v1/hosts/payment-service?ns=payments&view=short\naccept: application/json\nauthorization: Bearer <t-1>\n"
        ]
    );
}

#[test]
fn numbers_stay_what_they_are() {
    for (number, text) in [("-1", "-1"), ("0.5", "0.5"), ("18446744073709551615", "18446744073709551615")] {
        let body = format!(r#"{{"edr": {{"score": {number}}}, "patch": {{"current": true}}}}"#);
        let (facts, _) = asked(CONFIG, &workload(), Ok(Reply::text(200, &body)));
        assert_eq!(facts.unwrap()[1].1, text);
    }
}

#[test]
fn whatever_a_workload_is_called_the_path_keeps_its_shape() {
    let body = json!({"edr": {"score": 1}, "patch": {"current": true}});
    for (name, line) in [
        ("../admin", "GET /v1/hosts/..%2Fadmin?ns=payments&view=short"),
        ("a?score=100#", "GET /v1/hosts/a%3Fscore%3D100%23?ns=payments&view=short"),
        ("spiffe://corp/ns/x", "GET /v1/hosts/spiffe%3A%2F%2Fcorp%2Fns%2Fx?ns=payments&view=short"),
        ("{ticket}", "GET /v1/hosts/%7Bticket%7D?ns=payments&view=short"),
    ] {
        let mut request = workload();
        request = request.with_workload(name);
        let (facts, sent) = asked(CONFIG, &request, Ok(Reply::json(200, &body)));
        facts.unwrap();
        assert_eq!(sent[0].lines().next(), Some(line));
    }
    let long = "x".repeat(513);
    for name in ["", ".", "..", "a\r\nHost: evil", "a\0", "\u{1b}", &long] {
        let mut request = workload();
        request = request.with_workload(name);
        let (facts, sent) = asked(CONFIG, &request, Ok(Reply::json(200, &body)));
        let why = facts.unwrap_err();
        assert!(why.contains("workload cannot be asked about") && !why.contains(char::is_control), "{why}");
        assert!(sent.is_empty());
    }
    // A parameter's value, too, is a value.
    let injected = request().with_attribute("k8s_namespace", "x&view=long");
    let (_, sent) = asked(CONFIG, &injected, Ok(Reply::json(200, &body)));
    assert!(sent[0].contains("?ns=x%26view%3Dlong&view=short"), "{sent:?}");
}

#[test]
fn what_is_missing_is_a_failure_unless_it_is_not_required() {
    let facts = answered(&json!({"edr": {"score": 5}, "patch": {"current": false}, "os": null})).unwrap();
    assert_eq!(facts, pairs(&[("patched", "false"), ("score", "5")]));
    for body in [json!({}), json!([]), json!("x"), json!({"edr": {"score": null}, "patch": {"current": true}})] {
        assert!(answered(&body).unwrap_err().contains("is not there"), "{body}");
    }
    // Without the list, all of them are required.
    let all = CONFIG.replace(r#""required": ["score", "patched"],"#, "");
    let body = json!({"edr": {"score": 5}, "patch": {"current": false}});
    let (facts, _) = asked(&all, &workload(), Ok(Reply::json(200, &body)));
    assert_eq!(facts.unwrap_err(), "fact os at /os of the answer is not there");
}

#[test]
fn what_is_no_fact_is_a_failure_and_is_not_repeated() {
    let long = "x".repeat(257);
    for odd in [json!([1]), json!({"a": 1}), json!(long), json!("a\nlevel=error"), json!("\u{1b}[2J")] {
        let why = answered(&json!({"edr": {"score": 5}, "patch": {"current": odd}})).unwrap_err();
        assert!(why.starts_with("fact patched at /patch/current of the answer is "), "{why}");
        assert!(!why.contains("level=error") && !why.contains("xxx"), "{why}");
    }
    let why = answered(&json!({"edr": {"score": "87"}, "patch": {"current": true}})).unwrap_err();
    assert_eq!(why, "fact score at /edr/score of the answer is a string, and should be a number");
    for text in ["", "not json", "{", r#"{"edr": {"score": 1e999}}"#, &"[".repeat(10_000)] {
        let (facts, _) = asked(CONFIG, &workload(), Ok(Reply::text(200, text)));
        assert_eq!(facts.unwrap_err(), "the answer is not JSON");
    }
}

#[test]
fn a_status_is_a_failure_unless_the_configuration_gives_it_a_meaning() {
    let answer = |status| asked(CONFIG, &workload(), Ok(Reply::text(status, r#"{"edr": {"score": 99}}"#))).0;
    assert_eq!(answer(404).unwrap(), pairs(&[("known", "false"), ("score", "0")]));
    for status in [204, 301, 302, 400, 410, 429, 500, 503] {
        assert!(answer(status).unwrap_err().contains(&format!("answers {status}")));
    }
    for status in [401, 403] {
        assert!(answer(status).unwrap_err().contains("credential"));
    }
}

#[test]
fn what_goes_wrong_on_the_way_is_a_failure() {
    for (error, word) in [
        (HttpError::Unavailable("refused".into()), "did not answer: refused"),
        (HttpError::Unknown("cut off".into()), "did not answer: cut off"),
        (HttpError::Denied("link-local".into()), "does not send the request: link-local"),
    ] {
        assert!(asked(CONFIG, &workload(), Err(error)).0.unwrap_err().contains(word));
    }
    let mut http = FakeHttp::new(|_| Ok(Reply::text(200, "{}")));
    let why = gather(&mut http, &config(CONFIG), &workload()).unwrap_err();
    assert!(why.contains("the secret `token`") && http.sent.is_empty(), "{why}");
}

#[test]
fn a_request_without_what_is_asked_about() {
    let (facts, sent) = asked(TICKET, &request(), Ok(Reply::json(200, &json!({"state": "approved"}))));
    assert_eq!((facts.unwrap(), sent.len()), (pairs(&[("state", "none")]), 0));
    let mut with_ticket = request();
    with_ticket = with_ticket.with_ticket("OPS-42");
    let (facts, sent) = asked(TICKET, &with_ticket, Ok(Reply::json(200, &json!({"state": "approved"}))));
    assert_eq!(facts.unwrap(), pairs(&[("state", "approved")]));
    assert_eq!(sent, ["GET /changes/OPS-42\naccept: application/json\nx-api-key: <k-1>\n"]);
    // What is there and cannot be asked about is no absence.
    with_ticket = with_ticket.with_ticket("..");
    assert!(asked(TICKET, &with_ticket, Ok(Reply::text(200, "{}"))).0.unwrap_err().contains("ticket cannot"));

    let (facts, sent) = asked(CONFIG, &request(), Ok(Reply::text(200, "{}")));
    assert!(facts.unwrap_err().contains("no attribute `k8s_namespace`") && sent.is_empty());
}

#[test]
fn mistakes_are_told_with_their_place() {
    let with = |more: &str| format!(r#"{{"path": ["{{workload}}"], "facts": {{"a": "/a"}}, {more}}}"#);
    let many: Vec<String> = (0..33).map(|n| format!(r#""f{n}": "/a""#)).collect();
    for (json, path, word) in [
        ("{}".to_owned(), "", "`path` is missing"),
        (r#"{"path": ["{workload}"]}"#.to_owned(), "", "`facts` is missing"),
        (r#"{"path": ["{workload}"], "facts": {}}"#.to_owned(), "facts", "/edr/score"),
        (r#"{"path": ["v1"], "facts": {"a": "/a"}}"#.to_owned(), "path", "the same for every request"),
        (r#"{"path": ["..", "{workload}"], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "dot segment"),
        (r#"{"path": ["{host}"], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "{attributes.NAME}"),
        (r#"{"path": ["{workload"], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "not around a place"),
        (r#"{"path": ["x}{workload}"], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "not around a place"),
        (r#"{"path": ["{attributes.}"], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "{attributes.NAME}"),
        (r#"{"path": [""], "facts": {"a": "/a"}}"#.to_owned(), "path[0]", "is empty"),
        (r#"{"path": ["{workload}"], "facts": {"a": "a"}}"#.to_owned(), "facts.a", "JSON Pointer"),
        (r#"{"path": ["{workload}"], "facts": {"a": "/~2"}}"#.to_owned(), "facts.a", "JSON Pointer"),
        (r#"{"path": ["{workload}"], "facts": {"a": 7}}"#.to_owned(), "facts.a", "/edr/score"),
        (r#"{"path": ["{workload}"], "facts": {"A b": "/a"}}"#.to_owned(), "facts", "no fact's name"),
        (r#"{"path": ["{workload}"], "facts": {"status": "/a"}}"#.to_owned(), "facts", "the host's own"),
        (
            r#"{"path": ["{workload}"], "facts": {"a": {"pointer": "/a", "type": "nmber"}}}"#.to_owned(),
            "facts.a",
            "write `number`",
        ),
        (format!(r#"{{"path": ["{{workload}}"], "facts": {{{}}}}}"#, many.join(",")), "facts", "more than 32"),
        (with(r#""required": ["b"]"#), "required", "not among the facts"),
        (with(r#""on_status": {"403": {"known": false}}"#), "on_status", "204, 400, 404"),
        (with(r#""on_status": {"404": {"known": [1]}}"#), "on_status", "short string"),
        (with(r#""secret_headers": {"a b": "k"}"#), "secret_headers", "x-api-key"),
        (with(r#""bearer": "t", "secret_headers": {"Authorization": "k"}"#), "secret_headers", "`bearer`"),
        (with(r#""berer": "t""#), "berer", "write `bearer`"),
    ] {
        let problems = match jit_plugin::config::parse::<Config>(&json) {
            Ok(config) => Posture::validate(&config),
            Err(problems) => problems,
        };
        assert_eq!(problems.len(), 1, "{json} {problems:?}");
        assert!(problems[0].path.starts_with(path), "{json} {problems:?}");
        assert!(problems[0].message.contains(word), "{json} {problems:?}");
    }
}
