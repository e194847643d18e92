//! Passwords that are changed before they are handed out, or when a lease ends.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// A server whose variable has so many versions; a rotation adds one when `at_once`.
fn rotating(versions: &Rc<RefCell<Vec<u64>>>, at_once: bool) -> FakeHttp<'static> {
    let versions = Rc::clone(versions);
    with_token(move |sent| match sent.line().as_str() {
        SHOW => Ok(resource(&versions.borrow())),
        EXPIRE => {
            let next = versions.borrow().len() as u64 + 1;
            if at_once {
                versions.borrow_mut().push(next);
            }
            Ok(Reply::text(201, ""))
        }
        line if line.starts_with("GET /secrets/acme/variable/inventory%2Fdb%2Fpassword?version=") => {
            Ok(Reply::text(200, &format!("pw-{}", sent.query[0].1)))
        }
        line if line.starts_with("GET /secrets?") => {
            Ok(Reply::json(200, &json!({"acme:variable:inventory/db/username": "app"})))
        }
        line => panic!("{line}"),
    })
}

fn count(http: &FakeHttp<'_>, line: &str) -> usize {
    http.lines().iter().filter(|sent| *sent == line).count()
}

#[test]
fn a_password_that_is_changed_at_once_is_handed_out() {
    let versions = Rc::new(RefCell::new(vec![1]));
    let mut http = rotating(&versions, true);
    let role = role_with(&json!({"rotate_before": true}));
    let issued = create(&mut http, &role).unwrap();
    assert_eq!(password_of(&issued), "<pw-2>");
    // The next one gets another.
    assert_eq!(password_of(&create(&mut http, &role).unwrap()), "<pw-3>");
    assert_eq!(count(&http, EXPIRE), 2);
    assert!(http.sent.iter().filter(|sent| sent.line() == EXPIRE).all(|sent| sent.changes));
}

#[test]
fn a_rotation_is_triggered_once_and_waited_for() {
    let versions = Rc::new(RefCell::new(vec![4, 5]));
    let mut http = rotating(&versions, false);
    let role = role_with(&json!({"rotate_before": true}));
    for _ in 0..3 {
        let Err(Error::Retryable(retry)) = create(&mut http, &role) else { panic!() };
        assert!(retry.after_ms.is_some());
        http.now += 5;
    }
    assert_eq!(count(&http, EXPIRE), 1);
    versions.borrow_mut().push(6);
    assert_eq!(password_of(&create(&mut http, &role).unwrap()), "<pw-6>");
    assert_eq!(count(&http, EXPIRE), 1);
    // What was handed out is not handed out again.
    assert!(matches!(create(&mut http, &role), Err(Error::Retryable(_))));
    assert_eq!(count(&http, EXPIRE), 2);
}

#[test]
fn a_rotator_that_does_not_run_is_triggered_again_after_a_while() {
    let versions = Rc::new(RefCell::new(vec![1]));
    let mut http = rotating(&versions, false);
    let role = role_with(&json!({"rotate_before": true}));
    assert!(create(&mut http, &role).is_err());
    // The broker's token still holds: this is about the note.
    http.now += 301;
    let mut http = http.with_kept(&key(), "token", 400);
    assert!(create(&mut http, &role).is_err());
    assert_eq!(count(&http, EXPIRE), 2);
}

#[test]
fn a_password_that_was_changed_and_could_not_be_fetched_is_still_there_for_the_next_call() {
    let versions = Rc::new(RefCell::new(vec![1]));
    let mut http = rotating(&versions, false);
    let role = role_with(&json!({"rotate_before": true}));
    assert!(create(&mut http, &role).is_err());
    versions.borrow_mut().push(2);
    let broken = role_with(&json!({"rotate_before": true, "username": "inventory/db/other"}));
    assert!(create(&mut http, &broken).is_err());
    assert_eq!(password_of(&create(&mut http, &role).unwrap()), "<pw-2>");
    assert_eq!(count(&http, EXPIRE), 1);
}

/// S-L3: the note is taken before the secret is read.
#[test]
fn two_calls_at_once_do_not_get_one_password() {
    let versions = Rc::new(RefCell::new(vec![1]));
    let role = role_with(&json!({"rotate_before": true}));
    let mut http = rotating(&versions, false);
    assert!(create(&mut http, &role).is_err());
    versions.borrow_mut().push(2);
    // While this one reads, nothing is left for another.
    assert_eq!(http.keys().len(), 2);
    assert_eq!(password_of(&create(&mut http, &role).unwrap()), "<pw-2>");
    assert_eq!(http.keys().len(), 1);
}

/// S-L2: without a note, each poll would trigger another rotation.
#[test]
fn without_room_for_a_note_nothing_is_rotated() {
    let versions = Rc::new(RefCell::new(vec![1]));
    let mut http = rotating(&versions, false);
    http.is_full = true;
    let Err(Error::Refused(text)) = create(&mut http, &role_with(&json!({"rotate_before": true}))) else { panic!() };
    assert!(text.contains("too many"), "{text}");
    assert_eq!(count(&http, EXPIRE), 0);
}

/// S-M4: a page of a gateway is neither a rotation nor a variable.
#[test]
fn what_conjur_does_not_say_is_not_done() {
    for page in [Reply::text(200, "<html>maintenance"), Reply::text(204, ""), Reply::text(201, "<html>")] {
        let mut http = with_token(move |_| Ok(page.clone()));
        let ended = ConjurDriver::revoke(&mut http, &a_target(), &ended(Some("rotate/inventory/db/password")));
        assert!(matches!(ended, Err(Error::OutcomeUnknown(_))), "{ended:?}");
    }
    let mut http = with_token(|_| Ok(Reply::text(200, "<html>")));
    let made = create(&mut http, &role_with(&json!({"rotate_before": true})));
    assert!(matches!(made, Err(Error::Retryable(_))), "{made:?}");
}

#[test]
fn a_rotation_without_an_answer_is_tried_again_and_leaves_no_doubt_of_an_account() {
    for reply in [Err(HttpError::Unknown("cut".into())), Ok(Reply::text(500, ""))] {
        let mut http = with_token(move |sent| match sent.line().as_str() {
            EXPIRE => reply.clone(),
            _ => Ok(good(sent)),
        });
        let made = create(&mut http, &role_with(&json!({"rotate_before": true})));
        assert!(matches!(made, Err(Error::Retryable(_))), "{made:?}");
    }
    let mut never = with_token(|_| Ok(resource(&[])));
    assert!(matches!(create(&mut never, &role_with(&json!({"rotate_before": true}))), Err(Error::Refused(_))));
}

fn ended(external_id: Option<&str>) -> Account {
    Account { external_id: external_id.map(str::to_owned), ..an_account() }
}

#[test]
fn the_end_of_a_lease_takes_nothing_back_unless_the_role_rotates() {
    let mut http = server(|sent| panic!("{}", sent.line()));
    for id in [None, Some("keep/inventory/db/password")] {
        assert_eq!(ConjurDriver::revoke(&mut http, &a_target(), &ended(id)), Ok(()));
    }
    let mut http = with_token(|sent| Ok(good(sent)));
    let issued = create(&mut http, &role_with(&json!({"rotate_on_revoke": true}))).unwrap();
    assert_eq!(issued.properties, [pair("revocation", "rotation")]);
    let id = issued.external_id.unwrap();
    assert_eq!(ConjurDriver::revoke(&mut http, &a_target(), &ended(Some(&id))), Ok(()));
    assert_eq!(http.lines().last().unwrap(), EXPIRE);
}

#[test]
fn a_rotation_that_is_not_allowed_any_more_is_no_success() {
    let revoke = |reply: Result<Reply, HttpError>| {
        let mut http = with_token(move |_| reply.clone());
        ConjurDriver::revoke(&mut http, &a_target(), &ended(Some("rotate/inventory/db/password"))).unwrap_err()
    };
    // 404 may be a privilege that was taken away: the password would stand, and nobody would know.
    for status in [403, 404] {
        assert!(matches!(revoke(Ok(Reply::text(status, ""))), Error::Refused(_)), "{status}");
    }
    assert!(matches!(revoke(Ok(Reply::text(500, ""))), Error::OutcomeUnknown(_)));
    assert!(matches!(revoke(Err(HttpError::Unknown("cut".into()))), Error::OutcomeUnknown(_)));
    assert!(matches!(revoke(Err(HttpError::Unavailable("down".into()))), Error::Retryable(_)));
}
