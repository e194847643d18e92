#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use jit_plugin::testing::{FakeHttp, Reply, Sent, account, role, secret, target};

use super::*;

fn config() -> TargetConfig {
    TargetConfig { user: "jit_broker".to_owned() }
}

fn rights() -> RoleConfig {
    let text = |text: &str| text.to_owned();
    RoleConfig {
        vhost: text("shop/eu"),
        configure: text(""),
        write: text("^orders$"),
        read: text(".*"),
        management: false,
    }
}

/// A server that answers by method and first segment.
fn server(answer: impl Fn(&Sent) -> Reply + 'static) -> FakeHttp<'static> {
    FakeHttp::new(move |sent| Ok(answer(sent))).with_credential(PASSWORD, "root-pw")
}

fn create(http: &mut FakeHttp<'_>) -> Result<(), Error> {
    let made = RabbitMq::create(http, &target(config()), &role(rights()), &account("v-a", 1_800_000_000), secret("pw"));
    made.map(|_| ())
}

fn lines(http: &FakeHttp<'_>) -> Vec<String> {
    http.sent.iter().map(Sent::line).collect()
}

#[test]
fn a_user_is_made_in_two_steps_after_a_question() {
    let mut http = server(|sent| match sent.method {
        "GET" => Reply::json(404, &json!({ "error": "Object Not Found" })),
        _ => Reply::text(201, ""),
    });
    create(&mut http).unwrap();
    assert_eq!(lines(&http), ["GET /users/v-a", "PUT /users/v-a", "PUT /permissions/shop%2Feu/v-a"]);
    assert_eq!(http.sent.iter().map(|sent| sent.changes).collect::<Vec<_>>(), [false, true, true]);
    // The broker's own password and the hash are placed by the host.
    assert!(http.sent.iter().all(|sent| sent.header("authorization") == Some("Basic <jit_broker:root-pw>")));
    assert_eq!(http.sent[1].json()["password_hash"], "<pw as salted-sha256/before/4/base64>");
    assert_eq!(http.sent[2].json(), json!({ "configure": "", "write": "^orders$", "read": ".*" }));
}

#[test]
fn a_user_that_is_there_is_a_conflict_and_stays_as_it_is() {
    let mut http = server(|_| Reply::json(200, &json!({ "name": "v-a" })));
    assert!(matches!(create(&mut http), Err(Error::Conflict(_))));
    assert_eq!(lines(&http), ["GET /users/v-a"]);
    // It came in between: RabbitMQ says 204 where it overwrote.
    let mut http = server(|sent| Reply::text(if sent.method == "GET" { 404 } else { 204 }, ""));
    assert!(matches!(create(&mut http), Err(Error::OutcomeUnknown(_))));
}

#[test]
fn a_second_step_that_is_refused_takes_the_first_one_back() {
    let after = |rights: u16, removal: u16| {
        let mut http = server(move |sent| match (sent.method, sent.path[0].as_str()) {
            ("GET", _) => Reply::text(404, ""),
            ("DELETE", _) => Reply::text(removal, ""),
            (_, "users") => Reply::text(201, ""),
            _ => Reply::json(rights, &json!({ "reason": "no" })),
        });
        let made = create(&mut http);
        (made, lines(&http).last().cloned().unwrap())
    };
    let (made, last) = after(400, 204);
    assert!(matches!(made, Err(Error::Refused(_))), "{made:?}");
    assert_eq!(last, "DELETE /users/v-a");
    // It cannot be taken back: the host has to find out, and to remove it.
    assert!(matches!(after(400, 500).0, Err(Error::OutcomeUnknown(_))));
    // Not known whether it was done: the host removes the account, this driver does not touch it.
    let (made, last) = after(500, 204);
    assert!(matches!(made, Err(Error::OutcomeUnknown(_))), "{made:?}");
    assert_eq!(last, "PUT /permissions/shop%2Feu/v-a");
    assert!(matches!(after(503, 204).0, Err(Error::OutcomeUnknown(_))), "the user is there: not 'nothing was done'");
}

#[test]
fn a_removal_ends_the_sessions_each_time() {
    let mut http = server(|_| Reply::text(404, ""));
    RabbitMq::revoke(&mut http, &target(config()), &account("v-a", 2)).unwrap();
    assert_eq!(lines(&http), ["DELETE /users/v-a", "DELETE /connections/username/v-a"]);
    let mut http = server(|sent| Reply::text(if sent.path[0] == "users" { 204 } else { 500 }, ""));
    assert!(RabbitMq::revoke(&mut http, &target(config()), &account("v-a", 2)).is_err());
}

#[test]
fn a_list_is_ordered_paged_and_without_hashes() {
    let everybody: Vec<Value> = (0..PAGE + 7)
        .rev()
        .map(|number| json!({ "name": format!("v-{number:04}"), "password_hash": "canary" }))
        .chain([json!({ "name": "guest", "password_hash": "canary" })])
        .collect();
    let everybody = json!(everybody);
    let mut http = server(move |_| Reply::json(200, &everybody));
    let first = RabbitMq::list_accounts(&mut http, &target(config()), "v-", None).unwrap();
    assert_eq!((first.names.len(), first.next.as_deref()), (PAGE, Some("v-0099")));
    let second = RabbitMq::list_accounts(&mut http, &target(config()), "v-", first.next.as_deref()).unwrap();
    assert_eq!((second.names.len(), second.next), (7, None));
    assert!(second.names.is_sorted() && second.names[0] == "v-0100");
    assert_eq!(http.sent[0].withhold, ["/*/password_hash"]);
}

#[test]
fn what_cannot_be_extended_is_looked_for() {
    let renew = |status: u16| {
        let mut http = server(move |_| Reply::json(status, &json!({})));
        RabbitMq::renew(&mut http, &target(config()), &role(rights()), &account("v-a", 1_800_000_000))
    };
    assert_eq!(renew(200), Ok(1_800_000_000));
    assert_eq!(renew(404), Err(Error::NotFound));
    // A lost answer of a question is no doubt.
    let mut lost = FakeHttp::new(|_| Err(HttpError::Unknown("cut off".to_owned()))).with_credential(PASSWORD, "p");
    let renewed = RabbitMq::renew(&mut lost, &target(config()), &role(rights()), &account("v-a", 2));
    assert!(matches!(renewed, Err(Error::Retryable(_))), "{renewed:?}");
}
