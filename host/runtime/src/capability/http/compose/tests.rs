#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use wasmtime::component::Resource;

use super::super::case::Case;
use super::*;
use crate::capability::secrets::GuestSecret;

const BASE: &str = "https://vault.example/v1/";

impl Case {
    fn compose(&self) -> Result<Composed, Unfit> {
        compose(&Url::parse(BASE).unwrap(), &self.request, &self.handles, Vec::new())
    }

    fn url(&self) -> String {
        self.compose().unwrap().request.url().to_string()
    }

    fn body(&self) -> String {
        let composed = self.compose().unwrap();
        String::from_utf8(composed.request.body().unwrap().as_bytes().unwrap().to_vec()).unwrap()
    }

    fn denied(&self) -> String {
        match self.compose() {
            Err(Unfit::Denied(text)) => text,
            other => panic!("{other:?}"),
        }
    }
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn field(name: &str, value: Vec<Part>) -> Field {
    Field { name: name.to_owned(), value }
}

fn json(text: &str, secrets: Vec<(&str, Resource<GuestSecret>)>) -> Body {
    let secrets = secrets.into_iter().map(|(pointer, secret)| field(pointer, vec![Part::Secret(secret)])).collect();
    Body::Json(JsonBody { text: text.to_owned(), secrets })
}

#[test]
fn segments_stand_below_the_base_and_are_escaped() {
    let mut case = Case::new();
    case.request.path = ["a/b", "..%2f", "ü ?#&=+;:\\", "%2e", "...", "~"].map(str::to_owned).to_vec();
    let escaped = "a%2Fb/..%252f/%C3%BC%20%3F%23%26%3D%2B%3B%3A%5C/%252e/.../~";
    assert_eq!(case.url(), format!("{BASE}{escaped}"));
    case.request.path.clear();
    assert_eq!(case.url(), BASE);
    for bad in ["", ".", ".."] {
        case.request.path = vec!["a".to_owned(), bad.to_owned()];
        assert!(case.denied().contains("segment"), "{bad}");
    }
    case.request.path = vec!["a".to_owned(); SEGMENTS + 1];
    assert!(case.denied().contains("segments"));
    case.request.path = vec!["a".repeat(URL_BYTES + 1)];
    assert!(case.denied().contains("URL"));
}

#[test]
fn parameters_are_encoded() {
    let mut case = Case::new();
    case.request.query = vec![("a&b".to_owned(), "c=d#e f%".to_owned()), ("x".to_owned(), String::new())];
    assert_eq!(case.url(), format!("{BASE}a?a%26b=c%3Dd%23e+f%25&x="));
    case.request.query = vec![Default::default(); PARAMETERS + 1];
    assert!(case.denied().contains("parameters"));
}

proptest! {
    #[test]
    fn no_segment_leaves_its_place(segments in prop::collection::vec(any::<String>(), 1..5)) {
        let mut case = Case::new();
        case.request.path = segments;
        if let Ok(composed) = case.compose() {
            let url = composed.request.url();
            prop_assert_eq!(url.host_str(), Some("vault.example"));
            prop_assert_eq!((url.query(), url.fragment()), (None, None));
            let found: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(found.len(), case.request.path.len() + 1);
            prop_assert_eq!(found[0], "v1");
        }
    }
}

#[test]
fn headers_are_tokens_and_lines() {
    let mut case = Case::new();
    let token = case.secret("tok en");
    case.request.headers =
        vec![field("Authorization", vec![text("Bearer "), Part::Secret(token)]), field("x-plain", vec![text("a")])];
    let composed = case.compose().unwrap();
    let headers = composed.request.headers();
    assert_eq!(headers["authorization"], "Bearer tok en");
    assert!(headers["authorization"].is_sensitive() && !headers["x-plain"].is_sensitive());
    assert!(!format!("{composed:?}").contains("tok en"));
    for name in RESERVED.iter().map(|name| name.to_uppercase()) {
        case.request.headers = vec![field(&name, vec![text("a")])];
        assert!(case.denied().contains("host's to set"), "{name}");
    }
    for name in ["", "a b", "a:", "a\r\nb", "ü", ":path"] {
        case.request.headers = vec![field(name, vec![text("a")])];
        assert!(case.denied().contains("no name of a header"), "{name}");
    }
    for value in ["a\r\nx: y", "a\nb", "\0", "\u{7f}"] {
        let secret = case.secret(&format!("canary{value}"));
        case.request.headers = vec![field("x", vec![Part::Secret(secret)])];
        let denied = case.denied();
        assert!(denied.contains("control character") && !denied.contains("canary"), "{denied}");
    }
    case.request.headers = (0..=HEADERS).map(|_| field("x", vec![])).collect();
    assert!(case.denied().contains("headers"));
    case.request.headers = vec![field("x", vec![text(&"a".repeat(HEADER_BYTES))]), field("y", vec![text("a")])];
    assert!(case.denied().contains("bytes"));
}

#[test]
fn secrets_stand_in_json_where_their_pointers_lead() {
    let mut case = Case::new();
    let (first, second) = (case.secret("a\"\\b\u{1}é"), case.secret("two"));
    let given = r#" {"z": 1.5, "a/b": {"~": null}, "list": [true, {}, [], "x"], "é\"": 12345678901234567890} "#;
    case.request.body = json(given, vec![("/a~1b/~0", first), ("/list/3", second)]);
    let composed = case.compose().unwrap();
    assert_eq!(composed.request.headers()["content-type"], "application/json");
    assert_eq!(composed.placed.len(), 2);
    let sent: Value = serde_json::from_str(&case.body()).unwrap();
    let mut expected: Value = serde_json::from_str(given).unwrap();
    expected["a/b"]["~"] = Value::from("a\"\\b\u{1}é");
    expected["list"][3] = Value::from("two");
    assert_eq!(sent, expected);

    let whole = case.secret("whole");
    case.request.body = json("0", vec![("", whole)]);
    assert_eq!(case.body(), "\"whole\"");
}

#[test]
fn a_secret_without_a_place_of_its_own_in_json_is_denied() {
    let given = r#"{"a":{"b":1}}"#;
    for pointers in [&["/x"][..], &["a"], &["/a/b/c"], &["/a~2"], &["/a", "/a"], &["/a", "/a/b"], &["", "/a"]] {
        let mut case = Case::new();
        let secrets = pointers.iter().map(|pointer| (*pointer, case.secret(pointer))).collect();
        case.request.body = json(given, secrets);
        let denied = case.denied();
        assert!(denied.contains("member"), "{pointers:?}: {denied}");
    }
    let mut case = Case::new();
    for bad in ["", "{", "{}x", "nul"] {
        case.request.body = json(bad, vec![]);
        assert_eq!(case.denied(), "the body is not JSON", "{bad}");
    }
    case.request.body = json(&"[".repeat(1_000), vec![]);
    assert_eq!(case.denied(), "the body is not JSON");
    let many = (0..=SECRETS).map(|n| ("/a", case.secret(&n.to_string()))).collect();
    case.request.body = json(given, many);
    assert!(case.denied().contains("secrets"));
}

#[test]
fn forms_and_texts_are_encoded_as_they_are_to_be() {
    let mut case = Case::new();
    let secret = case.secret("p&w=d +%é");
    let parts = vec![text("x-"), Part::Secret(secret)];
    case.request.body = Body::Form(vec![field("a b", parts), field("c", vec![])]);
    assert_eq!(case.body(), "a+b=x-p%26w%3Dd+%2B%25%C3%A9&c=");
    assert_eq!(case.compose().unwrap().request.headers()["content-type"], "application/x-www-form-urlencoded");

    let secret = case.secret("key\n");
    case.request.body = Body::Text(vec![text("a"), Part::Secret(secret), text("b")]);
    assert_eq!(case.body(), "akey\nb");
    assert_eq!(case.compose().unwrap().request.headers()["content-type"], "text/plain; charset=utf-8");

    case.request.body = Body::Text(vec![text(&"a".repeat(BODY_BYTES + 1))]);
    assert!(case.denied().contains("bytes"));
    case.request.body = Body::Form(vec![field("a", vec![text(&"ü".repeat(BODY_BYTES / 4))])]);
    assert!(case.denied().contains("bytes"));
    case.request.body = Body::Form((0..=FIELDS).map(|_| field("a", vec![])).collect());
    assert!(case.denied().contains("fields"));
}

#[test]
fn a_handle_that_is_none_of_the_calls_is_no_denial_but_a_fault() {
    let mut case = Case::new();
    case.request.headers = vec![field("x", vec![Part::Secret(Resource::new_borrow(77))])];
    assert!(matches!(case.compose(), Err(Unfit::Handle(_))));
}

#[test]
fn what_is_withheld_is_named_by_pointers() {
    let mut case = Case::new();
    case.request.withhold = ["", "/", "/a/0", "/a~0b~1"].map(str::to_owned).to_vec();
    assert!(case.compose().is_ok());
    for bad in ["a", "#/a", "/~", "/~2"] {
        case.request.withhold = vec![bad.to_owned()];
        assert!(case.denied().contains("JSON Pointer"), "{bad}");
    }
    case.request.withhold = vec![String::new(); POINTERS + 1];
    assert!(case.denied().contains("withhold"));
}
