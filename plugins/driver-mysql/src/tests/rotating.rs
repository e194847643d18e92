//! A standing account whose password changes.

use super::*;

/// A server on which the account has one password or two, and the new one is or is not among them.
pub(super) fn with_passwords(overlaps: &'static str, knows: bool) -> FakeSql<'static> {
    server(MYSQL, move |run| match run.template {
        t if t == sql::INSPECT.text() => Ok(vec![row(&["%", "N", "N", overlaps, "caching_sha2_password"])]),
        "authenticate" if knows => Ok(vec![vec![]]),
        _ => Ok(vec![]),
    })
}

#[test]
fn staging_keeps_what_callers_hold() {
    let (target, standing) = (a_target(), account("app", u64::MAX));
    let stage = |fake: &mut FakeSql<'_>, account: &Account| {
        MySql::rotate(fake, &target, account, RotationStep::Stage, Some(secret("next")))
    };
    let mut fake = with_passwords("0", false);
    assert_eq!(stage(&mut fake, &standing), Ok(()));
    let at = |text: &str| fake.runs.iter().position(|run| run.template == text).unwrap();
    let (marked, staged) = (at(sql::SET_MARK.text()), at(sql::STAGE.text()));
    let mark = r#"literal:{"jit_broker": {"sessions_before": 0}}"#;
    assert!(marked < staged, "what is opened from then on may have the new password");
    assert_eq!(fake.runs[marked].params, ["literal:app", "literal:%", mark]);
    assert_eq!(fake.runs[staged].params, ["literal:app", "literal:%", "secret:next:plain"]);

    // It took effect before, and its answer was lost.
    let mut fake = with_passwords("1", true);
    assert_eq!(stage(&mut fake, &standing), Ok(()));
    assert!(!fake.templates().contains(&sql::STAGE.text()));

    // Staging once more would drop the older one, which callers hold.
    let mut fake = with_passwords("1", false);
    assert!(matches!(stage(&mut fake, &standing), Err(Error::Conflict(_))));
    assert!(!fake.templates().contains(&sql::STAGE.text()));

    // Of a lease's account nobody holds the older one.
    let mut fake = with_passwords("1", false);
    assert_eq!(stage(&mut fake, &of_a_lease()), Ok(()));
    assert_eq!(fake.templates().last(), Some(&sql::STAGE.text()));

    let without = MySql::rotate(&mut fake, &target, &standing, RotationStep::Stage, None);
    assert!(matches!(without, Err(Error::Other(_))));
}

#[test]
fn a_trial_that_fails_for_another_reason_stages_nothing() {
    let mut fake = server(MYSQL, |run| match run.template {
        t if t == sql::INSPECT.text() => Ok(vec![row(&["%", "N", "N", "1", "caching_sha2_password"])]),
        "authenticate" => Err(SqlError::Unavailable("too many connections".into())),
        _ => Ok(vec![]),
    });
    let staged = MySql::rotate(&mut fake, &a_target(), &account("app", 1), RotationStep::Stage, Some(secret("next")));
    assert!(matches!(staged, Err(Error::Retryable(_))));
    assert!(!fake.templates().contains(&sql::STAGE.text()));
}

#[test]
fn the_old_password_goes_when_it_is_discarded() {
    let mut fake = with_passwords("1", true);
    for (step, last) in [(RotationStep::Commit, sql::SERVER.text()), (RotationStep::Discard, sql::MARK.text())] {
        assert_eq!(MySql::rotate(&mut fake, &a_target(), &account("app", 1), step, None), Ok(()));
        assert_eq!(fake.templates().last(), Some(&last));
    }
}

/// And with it the sessions that are older than the one which replaced it.
#[test]
fn sessions_end_with_the_password_that_they_may_have_been_opened_with() {
    let mut killed = std::collections::BTreeSet::new();
    let mut fake = server(MYSQL, move |run| match run.template {
        t if t == sql::MARK.text() => Ok(vec![row(&["40"])]),
        t if t == sql::SESSIONS.text() => {
            Ok(["7", "41"].into_iter().filter(|id| !killed.contains(*id)).map(|id| row(&[id, "N"])).collect())
        }
        t if t == sql::KILL.text() => {
            killed.insert(run.params[0].trim_start_matches("number:").to_owned());
            Ok(vec![])
        }
        _ => Ok(vec![]),
    });
    let discard = RotationStep::Discard;
    assert_eq!(MySql::rotate(&mut fake, &a_target(), &account("app", 1), discard, None), Ok(()));
    let killed: Vec<_> = fake.runs.iter().filter(|run| run.template == sql::KILL.text()).collect();
    assert_eq!((killed.len(), killed[0].params[0].as_str()), (1, "number:7"));
    let of = |text: &str| fake.templates().iter().position(|template| *template == text);
    assert!(of(sql::DISCARD.text()) < of(sql::KILL.text()), "it could log in again");
    let stays = target(config::parse(r#"{"terminate_sessions": false}"#).unwrap());
    let before = fake.runs.len();
    assert_eq!(MySql::rotate(&mut fake, &stays, &account("app", 1), discard, None), Ok(()));
    assert_eq!(fake.templates()[before..].last(), Some(&sql::DISCARD.text()));
}

#[test]
fn an_account_that_somebody_changed_is_taken_back_with_nobody_in_it() {
    let mut open = true;
    let mut fake = server(MYSQL, move |run| match run.template {
        t if t == sql::LOCK.text() && open => refused("1205"),
        t if t == sql::SESSIONS.text() && open => Ok(vec![row(&["7", "N"])]),
        t if t == sql::KILL.text() => {
            open = false;
            Ok(vec![])
        }
        _ => Ok(vec![]),
    });
    let replace = RotationStep::Replace;
    let replaced = MySql::rotate(&mut fake, &a_target(), &account("app", 1), replace, Some(secret("next")));
    assert_eq!(replaced, Ok(()));
    let changes: Vec<_> =
        fake.templates().into_iter().filter(|text| text.starts_with("ALTER") || text.starts_with("KILL")).collect();
    let (lock, kill) = (sql::LOCK.text(), sql::KILL.text());
    let rest = [sql::REPLACE.text(), sql::DISCARD.text(), sql::ALL_DEFAULT.text(), sql::UNLOCK.text()];
    assert_eq!(changes[..3], [lock, kill, lock]);
    assert_eq!(changes[3..], rest);
}

#[test]
fn default_roles_that_a_holder_took_away_are_restored() {
    for (counts, restored) in [(["2", "0"], true), (["2", "1"], false), (["0", "0"], false)] {
        let mut fake = server(MYSQL, move |run| match run.template {
            t if t == sql::INSPECT.text() => Ok(vec![row(&["%", "N", "N", "0", "caching_sha2_password"])]),
            t if t == sql::ROLES_AND_DEFAULTS.text() => Ok(vec![row(&counts)]),
            _ => Ok(vec![]),
        });
        let stage = RotationStep::Stage;
        assert_eq!(MySql::rotate(&mut fake, &a_target(), &account("app", 1), stage, Some(secret("next"))), Ok(()));
        assert_eq!(fake.templates().contains(&sql::ALL_DEFAULT.text()), restored, "{counts:?}");
    }
}

#[test]
fn mariadb_changes_no_password_that_somebody_holds() {
    let mut fake = server(MARIADB, |_| Ok(vec![]));
    let stage = RotationStep::Stage;
    let standing = MySql::rotate(&mut fake, &a_target(), &account("app", 1), stage, Some(secret("next")));
    assert!(matches!(standing, Err(Error::Refused(_))));
    assert_eq!(fake.templates(), [sql::SERVER.text()]);
    assert_eq!(MySql::rotate(&mut fake, &a_target(), &of_a_lease(), stage, Some(secret("next"))), Ok(()));
    assert_eq!(fake.templates().last(), Some(&sql::SET_PASSWORD_MARIADB.text()));
    assert_eq!(MySql::rotate(&mut fake, &a_target(), &of_a_lease(), RotationStep::Discard, None), Ok(()));
}
