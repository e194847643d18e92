#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;
use std::time::Duration;

use crate::limits::Limits;
use crate::meter::Meter;
use url::Url;
use wasmtime::component::ResourceTable;

/// What a view is of.
struct Bench {
    meter: Meter,
    table: ResourceTable,
    session: LdapSession,
}

impl Bench {
    fn view(&mut self) -> View<'_, LdapSession> {
        View { meter: &mut self.meter, table: &mut self.table, session: Some(&mut self.session) }
    }
}

/// A call on a directory that is never reached, with one secret.
fn call(plaintext: bool) -> (Bench, Resource<GuestSecret>) {
    let options = LdapConnectionOptions {
        name: "people".into(),
        url: Url::parse(if plaintext { "ldap://127.0.0.1:9" } else { "ldaps://127.0.0.1:9" }).unwrap(),
        plaintext,
        ca: None,
        bind_dn: "cn=jit,dc=a".into(),
        password: SecretString::from("broker"),
        max_connections: 1,
        connect_timeout: Duration::from_secs(5),
        operation_timeout: Duration::from_secs(5),
    };
    let connection = Arc::new(LdapConnection::new(options).unwrap());
    let session = LdapSession::new(connection, Lane::Live);
    let mut call = Bench { meter: Meter::new("test".into(), Limits::default()), table: ResourceTable::new(), session };
    let secret = call.table.push(GuestSecret::from(SecretString::from("x7Kq2mPz"))).unwrap();
    (call, secret)
}

fn name(value: &str) -> Name {
    Name { rdns: vec![("cn".into(), value.into())], base: "dc=a".into() }
}

fn attribute(name: &str, value: Value) -> Attribute {
    Attribute { name: name.into(), values: vec![value] }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn query(filter: Vec<Condition>, attributes: &[&str]) -> Query {
    let attributes = attributes.iter().map(|name| (*name).to_owned()).collect();
    Query { base: name("a"), scope: Scope::Base, filter, attributes, max_entries: 1 }
}

fn denied<T: std::fmt::Debug>(result: Result<Result<T, LdapError>, wasmtime::Error>) -> String {
    match result.unwrap() {
        Err(LdapError::Denied(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_goes_only_where_it_cannot_be_read() {
    let (mut call, secret) = call(false);
    let place = |encoding| Value::Secret((Resource::new_borrow(secret.rep()), encoding));
    for open in ["description", "cn", "userPassword2"] {
        let reason = denied(call.view().add(name("a"), vec![attribute(open, place(Encoding::Plain))]).await);
        assert!(reason.contains("can be read"), "{reason}");
    }
    let condition = Condition::Equals(("cn".into(), place(Encoding::Plain)));
    assert!(denied(call.view().search(query(vec![condition], &["cn"])).await).contains("no condition"));
    let sql =
        denied(call.view().add(name("a"), vec![attribute("userPassword", place(Encoding::ScramSha256(1)))]).await);
    assert!(sql.contains("SQL"), "{sql}");
    // A handle that is none ends the call.
    let stray = Value::Secret((Resource::new_borrow(77), Encoding::Plain));
    assert!(call.view().add(name("a"), vec![attribute("userPassword", stray)]).await.is_err());
    assert!(call.view().authenticate(name("a"), Resource::new_borrow(77)).await.is_err());
}

#[tokio::test]
async fn no_password_crosses_an_open_connection() {
    let (mut call, secret) = call(true);
    for encoding in [Encoding::Plain, Encoding::Utf16leQuoted] {
        let value = Value::Secret((Resource::new_borrow(secret.rep()), encoding));
        let reason = denied(call.view().add(name("a"), vec![attribute("userPassword", value)]).await);
        assert!(reason.contains("not encrypted"), "{reason}");
    }
    let tried = call.view().authenticate(name("a"), Resource::new_borrow(secret.rep())).await;
    assert!(denied(tried).contains("not encrypted"));
    // Its hash may: then there is only nobody who listens.
    let value = Value::Secret((Resource::new_borrow(secret.rep()), Encoding::SaltedSha1));
    let sent = call.view().add(name("a"), vec![attribute("userPassword", value)]).await.unwrap();
    assert!(matches!(sent, Err(LdapError::Unavailable(_))), "{sent:?}");
    assert!(!call.meter.track.effect_possible());
}

#[tokio::test]
async fn passwords_are_neither_given_nor_searched_by() {
    let (mut call, _) = call(false);
    let present = || vec![Condition::Present("objectClass".into())];
    for held in ["userPassword", "2.5.4.35", "unicodePwd;binary", "SAMBANTPASSWORD", "olcRootPW"] {
        assert!(denied(call.view().search(query(present(), &["cn", held])).await).contains("passwords"), "{held}");
        for filter in [
            Condition::Present(held.into()),
            Condition::StartsWith((held.into(), "{SSHA}a".into())),
            Condition::Equals((held.into(), text("a"))),
            Condition::AtLeast((held.into(), text("a"))),
        ] {
            assert!(denied(call.view().search(query(vec![filter], &["cn"])).await).contains("passwords"), "{held}");
        }
    }
    for all in ["*", "+", "", "@person", "cn=*"] {
        assert!(denied(call.view().search(query(present(), &[all])).await).contains("not an attribute"), "{all}");
    }
    assert!(denied(call.view().search(query(present(), &[])).await).contains("names 1"));
    assert!(denied(call.view().search(query(vec![], &["cn"])).await).contains("filter"));
    let everywhere =
        Query { base: Name { rdns: vec![], base: String::new() }, scope: Scope::Subtree, ..query(present(), &["cn"]) };
    assert!(denied(call.view().search(everywhere).await).contains("root DSE"));
}

#[tokio::test]
async fn what_is_no_request_is_not_sent() {
    let (mut call, secret) = call(false);
    let root = Name { rdns: vec![], base: String::new() };
    assert!(denied(call.view().delete(root.clone()).await).contains("root"));
    assert!(denied(call.view().authenticate(root, Resource::new_borrow(secret.rep())).await).contains("root"));
    let outside = Name { rdns: vec![], base: "dc=a\0".into() };
    assert!(denied(call.view().delete(outside).await).contains("base"));
    assert!(denied(call.view().add(name("a"), vec![]).await).contains("1 to"));
    assert!(denied(call.view().add(name(""), vec![attribute("cn", text("a"))]).await).contains("empty"));
    let none = || Attribute { name: "cn".into(), values: vec![] };
    assert!(denied(call.view().add(name("a"), vec![none()]).await).contains("no value"));
    let change = Change { kind: ChangeKind::Add, attribute: none() };
    assert!(denied(call.view().modify(name("a"), vec![change]).await).contains("no value"));
    assert!(denied(call.view().modify(name("a"), vec![]).await).contains("changes"));
    let late = attribute("pwdEndTime", Value::GeneralizedTime(u64::MAX));
    assert!(denied(call.view().add(name("a"), vec![late]).await).contains("9999"));
    for seconds in [0, u32::MAX] {
        assert!(denied(call.view().refresh(name("a"), seconds).await).contains("year"));
    }
    assert!(!call.meter.track.effect_possible());
    let mut without = View::<LdapSession> { session: None, ..call.view() };
    assert!(denied(without.delete(name("a")).await).contains("no directory"));
}

#[test]
fn a_message_that_quotes_a_secret_is_withheld() {
    let (mut call, _) = call(false);
    let session = &mut call.session;
    session.remember(&SecretString::from("x7Kq2mPz"), None);
    let shown = |message: &str| {
        let answer = Answer { code: 19, message: message.into(), refreshed: None };
        session.shown(answer).message
    };
    assert!(shown("password x7Kq2mPz is too short").contains("withheld"));
    assert!(shown("bad: Kq2m").contains("withheld"));
    assert_eq!(shown("too short"), "too short");
    assert_eq!(shown(""), "constraint violation");
    // Active Directory ends its texts with a NUL.
    assert_eq!(shown("no\u{1b}[1m\0"), "no\\u{1b}[1m");
}

proptest! {
    #[test]
    fn syntax_in_a_filter_is_data(value in any::<String>(), start in "\\PC{1,20}|[*()\\\\\0]{1,8}") {
        use ldap3::asn1::ASNTag as _;
        let equals = Condition::Equals(("cn".into(), text(&value)));
        let starts = Condition::StartsWith(("cn".into(), start.clone()));
        let filter = format!("(&{}{})", condition(&equals).unwrap(), condition(&starts).unwrap());
        let parts = ldap3::parse_filter(&filter).unwrap().into_structure().expect_constructed().unwrap();
        prop_assert_eq!(parts.len(), 2);
        prop_assert_eq!((parts[0].id, parts[1].id), (3, 4));
        let leaves = |tag: &ldap3::asn1::StructureTag| tag.clone().expect_constructed().unwrap();
        let sent = leaves(&parts[0])[1].clone().expect_primitive().unwrap();
        prop_assert_eq!(sent, value.into_bytes());
        let pieces = leaves(&leaves(&parts[1])[1]);
        prop_assert_eq!((pieces.len(), pieces[0].id), (1, 0));
        prop_assert_eq!(pieces[0].clone().expect_primitive().unwrap(), start.into_bytes());
    }
}
