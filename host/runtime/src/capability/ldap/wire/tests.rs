#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;

fn octets(text: &str) -> Octets {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn delete() -> Request {
    Request::Delete { name: "cn=a".into() }
}

/// A message as a server would write it.
fn message(id: i64, tag: u8, content: impl FnOnce(&mut Writer)) -> Octets {
    let mut writer = Writer::with_room(64);
    writer.constructed(SEQUENCE, |w| {
        w.integer(INTEGER, id);
        w.constructed(tag, content);
    });
    writer.finish()
}

fn result(w: &mut Writer, code: i64, text: &str) {
    w.integer(ENUMERATED, code);
    w.octets(OCTETS, b"");
    w.octets(OCTETS, text.as_bytes());
}

#[test]
fn a_bind_is_what_the_standard_shows() {
    let bytes = Request::Bind { name: "cn=a".into(), password: octets("pw") }.encode(1);
    let mut reader = Reader::new(&bytes);
    let mut message = reader.nested(SEQUENCE).unwrap();
    assert_eq!(message.number(INTEGER), Ok(1));
    let mut bind = message.nested(BIND).unwrap();
    assert_eq!(bind.number(INTEGER), Ok(3));
    assert_eq!(bind.element(OCTETS), Ok(&b"cn=a"[..]));
    assert_eq!(bind.element(0x80), Ok(&b"pw"[..]));
    assert!(bind.is_empty() && message.is_empty());
}

#[test]
fn a_message_with_a_secret_is_written_in_one_piece() {
    for length in [1, 100, 200, 5_000] {
        let values = || Values { name: "userPassword".into(), values: vec![octets(&"x".repeat(length))] };
        for request in [
            Request::Bind { name: "cn=a,dc=b".into(), password: octets(&"x".repeat(length)) },
            Request::Add { name: "cn=a,dc=b".into(), attributes: vec![values(), values()] },
            Request::Modify { name: "cn=a".into(), changes: vec![Modification { kind: 2, values: values() }] },
        ] {
            assert!(request.encode(i32::MAX).len() <= 64 + request.room());
        }
    }
}

#[test]
fn syntax_in_a_filter_is_data() {
    let search = Search {
        base: "dc=a".into(),
        scope: 2,
        filter: vec![Filter::Equals("cn".into(), octets("*)(uid=*")), Filter::StartsWith("cn".into(), "\0*".into())],
        attributes: vec!["cn".into()],
        size_limit: 1,
        time_limit: 1,
    };
    let bytes = Request::Search { search, page: 1, cookie: Vec::new() }.encode(1);
    let (_, mut rest) = decode(&bytes).unwrap();
    let mut search = rest.nested(SEARCH).unwrap();
    for tag in [OCTETS, ENUMERATED, ENUMERATED, INTEGER, INTEGER, ber::BOOLEAN] {
        search.element(tag).unwrap();
    }
    let mut and = search.nested(0xa0).unwrap();
    let mut equals = and.nested(0xa3).unwrap();
    assert_eq!(equals.element(OCTETS), Ok(&b"cn"[..]));
    assert_eq!(equals.element(OCTETS), Ok(&b"*)(uid=*"[..]));
    let mut starts = and.nested(0xa4).unwrap();
    starts.element(OCTETS).unwrap();
    assert_eq!(starts.nested(SEQUENCE).unwrap().element(0x80), Ok(&b"\0*"[..]));
}

#[test]
fn an_answer_is_a_code_and_a_text() {
    let bytes = message(7, DELETE_RESPONSE, |w| {
        result(w, 10, "go elsewhere");
        w.constructed(0xa3, |w| w.octets(OCTETS, b"ldap://evil.test/"));
    });
    let (id, rest) = decode(&bytes).unwrap();
    assert_eq!(id, 7);
    let Said::Answer(answer) = delete().understand(rest).unwrap() else { panic!() };
    assert_eq!((answer.code, answer.message.as_str()), (10, "go elsewhere"));
    // An answer to something else is not one to this.
    let (_, rest) = decode(&bytes).unwrap();
    assert_eq!(Request::StartTls.understand(rest), Err(Malformed));
}

#[test]
fn pages_end_with_an_empty_cookie() {
    for (cookie, expected) in [("", None), ("more", Some(b"more".to_vec()))] {
        let mut writer = Writer::with_room(64);
        writer.constructed(SEQUENCE, |w| {
            w.integer(INTEGER, 1);
            w.constructed(SEARCH_DONE, |w| result(w, 0, ""));
            w.constructed(CONTROLS, |w| {
                w.constructed(SEQUENCE, |w| {
                    w.octets(OCTETS, PAGED_RESULTS.as_bytes());
                    let mut value = Writer::with_room(32);
                    value.constructed(SEQUENCE, |w| {
                        w.integer(INTEGER, 0);
                        w.octets(OCTETS, cookie.as_bytes());
                    });
                    w.octets(OCTETS, &value.finish());
                });
            });
        });
        let bytes = writer.finish();
        let search =
            Search { base: String::new(), scope: 0, filter: vec![], attributes: vec![], size_limit: 0, time_limit: 0 };
        let request = Request::Search { search, page: 1, cookie: vec![] };
        let Said::Answer(answer) = request.understand(decode(&bytes).unwrap().1).unwrap() else { panic!() };
        assert_eq!(answer.cookie, expected);
    }
}

#[test]
fn a_refresh_tells_what_was_set() {
    let mut value = Writer::with_room(32);
    value.constructed(SEQUENCE, |w| w.integer(0x81, 86_400));
    let bytes = message(1, EXTENDED_RESPONSE, |w| {
        result(w, 0, "");
        w.octets(0x8a, REFRESH.as_bytes());
        w.octets(0x8b, &value.finish());
    });
    let request = Request::Refresh { name: "cn=a".into(), seconds: 5 };
    let Said::Answer(answer) = request.understand(decode(&bytes).unwrap().1).unwrap() else { panic!() };
    assert_eq!(refreshed(&answer), Some(86_400));
}

proptest! {
    #[test]
    fn no_answer_breaks_the_client(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        if let Ok((_, rest)) = decode(&bytes) {
            let _ = delete().understand(rest);
            let _ = notice(rest);
        }
        let mut framed = vec![SEQUENCE, u8::try_from(bytes.len() + 3).unwrap_or(0x7f), 2, 1, 1];
        framed.extend(&bytes);
        if let Ok((_, rest)) = decode(&framed) {
            let search = Search {
                base: String::new(), scope: 0, filter: vec![], attributes: vec![], size_limit: 0, time_limit: 0,
            };
            let _ = Request::Search { search, page: 1, cookie: vec![] }.understand(rest);
        }
    }
}
