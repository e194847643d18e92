//! The driver on a scripted server: what it sends, and what it makes of the answers. The end to
//! end suite runs the same verbs on real servers.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use super::*;
use crate::statements as sql;
use jit_plugin::testing::{FakeSql, Run, account, role, secret, target};
use jit_plugin::{ServerError, SqlError, config};

type Answer = Result<Vec<Vec<Option<String>>>, SqlError>;

const NAME: &str = "v-payment-4qk2";

fn a_target() -> Target<TargetConfig> {
    target(config::parse(r#"{"reassign_owned_to": "inventory_owner"}"#).unwrap())
}

fn a_role() -> Role<RoleConfig> {
    role(config::parse(r#"{"grants": ["app_read_only"], "connection_limit": 5}"#).unwrap())
}

fn server(answer: impl FnMut(&Run) -> Answer + 'static) -> FakeSql<'static> {
    FakeSql::new(Postgres::STATEMENTS, answer)
}

fn refused(code: &str) -> Answer {
    Err(SqlError::Refused(ServerError { code: code.into(), message: "no".into() }))
}

fn row(columns: &[&str]) -> Vec<Option<String>> {
    let column = |text: &&str| (*text != "-").then(|| (*text).to_owned());
    columns.iter().map(column).collect()
}

#[test]
fn an_account_is_made_with_its_expiry_and_its_rights_in_one_transaction() {
    let mut fake = server(|_| Ok(vec![]));
    let made = Postgres::create(&mut fake, &a_target(), &a_role(), &account(NAME, 1_800_000_000), secret("pw"));
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(fake.templates(), [sql::CREATE.text(), sql::GRANT_RIGHTS.text()]);
    let of_role = ["ident:v-payment-4qk2", "number:5", "secret:pw:scram-sha-256/4096", "timestamp:1800000000"];
    assert_eq!(fake.runs[0].params, of_role);
    assert_eq!(fake.runs[1].params, ["idents:app_read_only", "ident:v-payment-4qk2"]);

    // A server that cannot grant rights without SET ROLE, and a role that is to have it.
    let mut old = server(|run| if run.template == sql::GRANT_RIGHTS.text() { refused("42601") } else { Ok(vec![]) });
    let made = Postgres::create(&mut old, &a_target(), &a_role(), &account(NAME, 1_800_000_000), secret("pw"));
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(old.templates().last(), Some(&sql::CREATE_IN_ROLE.text()));
    let mut fake = server(|_| Ok(vec![]));
    let migrates = role(config::parse(r#"{"grants": ["app_owner"], "set_role": true}"#).unwrap());
    let made = Postgres::create(&mut fake, &a_target(), &migrates, &account(NAME, 1_800_000_000), secret("pw"));
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(fake.templates(), [sql::CREATE_IN_ROLE.text()]);
    assert_eq!(fake.runs[0].params[1], "number:16");
}

#[test]
fn creation_without_an_answer_is_in_doubt_and_without_a_connection_is_not() {
    let create = |error: SqlError| {
        let mut fake = server(move |_| Err(error.clone()));
        Postgres::create(&mut fake, &a_target(), &a_role(), &account(NAME, 1), secret("pw")).unwrap_err()
    };
    let lost = create(SqlError::Unknown("lost".into()));
    assert!(matches!(lost, Error::OutcomeUnknown(_)));
    let down = create(SqlError::Unavailable("down".into()));
    assert!(matches!(down, Error::Retryable(_)));
}

#[test]
fn verbs_on_a_missing_account() {
    let missing = || server(|run| if run.template.starts_with("ALTER") { refused("42704") } else { Ok(vec![]) });
    let (target, role, account) = (a_target(), a_role(), account(NAME, 1));
    let renewed = Postgres::renew(&mut missing(), &target, &role, &account);
    assert_eq!(renewed, Err(Error::NotFound));
    let stage = RotationStep::Stage;
    let rotated = Postgres::rotate(&mut missing(), &target, &account, stage, Some(secret("pw")));
    assert_eq!(rotated, Err(Error::NotFound));
    assert_eq!(Postgres::inspect(&mut missing(), &target, NAME), Err(Error::NotFound));
    let mut fake = missing();
    assert_eq!(Postgres::revoke(&mut fake, &target, &account), Ok(()));
    assert_eq!(fake.templates(), [sql::DISABLE.text()]);
}

#[test]
fn rotation_is_its_first_step() {
    let (target, account) = (a_target(), account(NAME, 1));
    let mut fake = server(|_| Ok(vec![]));
    for step in [RotationStep::Stage, RotationStep::Commit, RotationStep::Discard] {
        assert_eq!(Postgres::rotate(&mut fake, &target, &account, step, Some(secret("pw"))), Ok(()));
    }
    assert_eq!(fake.templates(), [sql::SET_PASSWORD.text()]);
    let without = Postgres::rotate(&mut fake, &target, &account, RotationStep::Stage, None);
    assert!(matches!(without, Err(Error::Other(_))));
}

/// What hangs on an account in no database.
fn bare(sessions: &str, prepared: &str) -> Vec<Option<String>> {
    row(&["170010", sessions, prepared, "-", "-", "0", "0"])
}

#[test]
fn an_account_that_owns_nothing_goes_in_three_steps() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![bare("0", "0")]),
        _ => Ok(vec![]),
    });
    assert_eq!(Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1)), Ok(()));
    let steps = [sql::DISABLE.text(), sql::FOOTPRINT.text(), sql::DROP.text()];
    assert_eq!(fake.templates(), steps);
}

/// Answers as a server of that version on which the account has a session and owns things in the
/// connection's own database and in another one.
fn busy(version: &'static str) -> FakeSql<'static> {
    let mut sessions = "1";
    server(move |run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![
            row(&[version, sessions, "0", "inventory", "t", "2", "1"]),
            row(&[version, sessions, "0", "other", "f", "1", "1"]),
        ]),
        t if t == sql::SIGNAL_SESSIONS.text() => {
            sessions = "0";
            Ok(vec![row(&["1"])])
        }
        t if t == sql::MEMBERSHIPS.text() => Ok(vec![row(&["app_read_only"])]),
        _ => Ok(vec![]),
    })
}

#[test]
fn rights_then_sessions_then_code_then_data_in_each_database() {
    for (version, join) in [("150018", sql::JOIN.text()), ("170010", sql::JOIN_INHERITING.text())] {
        let mut fake = busy(version);
        assert_eq!(Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1)), Ok(()));
        let cleared = [sql::ACCOUNT.text(), sql::DROP_CODE.text(), sql::REASSIGN.text(), sql::DROP_OWNED.text()];
        let mut steps = vec![
            sql::DISABLE.text(),
            sql::FOOTPRINT.text(),
            join,
            sql::MEMBERSHIPS.text(),
            sql::TAKE_ROLES.text(),
            sql::SIGNAL_SESSIONS.text(),
            sql::AWAIT_SESSIONS.text(),
            sql::FOOTPRINT.text(),
        ];
        steps.extend(cleared.iter().chain(&cleared));
        steps.push(sql::DROP.text());
        assert_eq!(fake.templates(), steps);
        let databases: Vec<_> = fake.runs[8..16].iter().map(|run| run.database.as_deref()).collect();
        assert_eq!(databases, [[None; 4], [Some("other"); 4]].concat());
        assert_eq!(fake.runs[4].params, ["idents:app_read_only", "ident:v-payment-4qk2"]);
        assert_eq!(fake.runs[10].params, ["ident:v-payment-4qk2", "ident:inventory_owner"]);
    }
}

#[test]
fn an_account_that_locks_its_own_role_is_ended_all_the_same() {
    let mut locks = 2;
    let mut fake = server(move |run| match run.template {
        t if t == sql::DISABLE.text() && locks > 0 => {
            locks -= 1;
            refused("55P03")
        }
        t if t == sql::FOOTPRINT.text() => Ok(vec![bare(if locks > 0 { "1" } else { "0" }, "0")]),
        _ => Ok(vec![]),
    });
    assert_eq!(Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1)), Ok(()));
    let (signal, disable) = (sql::SIGNAL_SESSIONS.text(), sql::DISABLE.text());
    let (wait, look) = (sql::AWAIT_SESSIONS.text(), sql::FOOTPRINT.text());
    assert_eq!(
        fake.templates(),
        [
            disable,
            look,
            sql::JOIN_INHERITING.text(),
            sql::MEMBERSHIPS.text(),
            signal,
            disable,
            wait,
            look,
            signal,
            disable,
            look,
            sql::DROP.text()
        ]
    );
}

#[test]
fn before_postgresql_16_an_account_that_holds_up_the_membership_is_ended_in_another_way() {
    let mut locked = true;
    let mut fake = server(move |run| match run.template {
        t if t == sql::JOIN.text() && locked => refused("55P03"),
        t if t == sql::MAY_NOT_SIGNAL.text() => {
            locked = false;
            Ok(vec![])
        }
        t if t == sql::FOOTPRINT.text() => {
            Ok(vec![row(&["150018", if locked { "1" } else { "0" }, "0", "-", "-", "0", "0"])])
        }
        _ => Ok(vec![]),
    });
    assert_eq!(Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1)), Ok(()));
    let (join, signal) = (sql::JOIN.text(), sql::SIGNAL_SESSIONS.text());
    let steps = [join, sql::MAY_SIGNAL.text(), signal, sql::MAY_NOT_SIGNAL.text(), join];
    assert_eq!(fake.templates()[2..7], steps);
}

#[test]
fn data_without_an_heir_is_never_dropped() {
    let mut fake = busy("170010");
    let target = target(config::parse("{}").unwrap());
    let left = Postgres::revoke(&mut fake, &target, &account(NAME, 1));
    assert_eq!(left, Err(Error::Dependents(vec!["inventory: 2 in all, 1 owned".into()])));
    assert!(!fake.templates().contains(&sql::DROP_OWNED.text()));
    assert_eq!(fake.templates()[0], sql::DISABLE.text());
    assert!(fake.templates().contains(&sql::TAKE_ROLES.text()), "what stays has no rights");
}

#[test]
fn what_others_use_of_its_code_is_named_and_nothing_is_done() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![row(&["170010", "0", "0", "inventory", "t", "1", "1"])]),
        t if t == sql::DROP_CODE.text() => {
            Err(SqlError::Refused(ServerError { code: "JIT01".into(), message: "view public.theirs".into() }))
        }
        _ => Ok(vec![]),
    });
    let left = Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1));
    let Err(Error::Dependents(things)) = left else { panic!("{left:?}") };
    assert_eq!(things[0], "inventory: view public.theirs");
    assert!(!fake.templates().contains(&sql::DROP.text()));
}

#[test]
fn more_than_fits_into_a_transaction_goes_in_parts() {
    let mut parts = 0;
    let mut fake = server(move |run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![row(&["170010", "0", "0", "inventory", "t", "1", "1"])]),
        t if t == sql::ACCOUNT.text() && run.params[2] == "literal:part" => {
            parts += 1;
            Ok(vec![])
        }
        t if t == sql::REASSIGN.text() && parts < 2 => refused("JIT02"),
        _ => Ok(vec![]),
    });
    assert_eq!(Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1)), Ok(()));
    let steps: Vec<_> =
        fake.runs.iter().filter(|run| run.template == sql::ACCOUNT.text()).map(|run| run.params[2].clone()).collect();
    assert_eq!(steps, ["all", "part", "all", "part", "all"].map(|step| format!("literal:{step}")));
}

#[test]
fn what_the_keeper_lacks_is_told_in_a_statement_to_copy() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![row(&["170010", "0", "0", "inventory", "t", "1", "1"])]),
        t if t == sql::REASSIGN.text() => Err(SqlError::Refused(ServerError {
            code: "42501".into(),
            message: "permission denied for schema public".into(),
        })),
        _ => Ok(vec![]),
    });
    let left = Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1));
    let Err(Error::Refused(reason)) = left else { panic!("{left:?}") };
    assert!(reason.contains("GRANT CREATE ON SCHEMA public TO \"inventory_owner\""), "{reason}");
}

#[test]
fn prepared_transactions_are_named_at_once_and_nothing_waits_for_them() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![bare("0", "1")]),
        t if t == sql::PREPARED.text() => Ok(vec![row(&["inventory", "it's"])]),
        _ => Ok(vec![]),
    });
    let left = Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1));
    let Err(Error::Dependents(things)) = left else { panic!("{left:?}") };
    assert!(things[0].starts_with("inventory: ") && things[0].ends_with("ROLLBACK PREPARED 'it''s'"), "{things:?}");
    assert!(!fake.templates().contains(&sql::DROP.text()));
}

#[test]
fn sessions_that_do_not_end_bring_the_host_back() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![bare("1", "-")]),
        t if t == sql::AWAIT_SESSIONS.text() => Ok(vec![row(&["4711"])]),
        _ => Ok(vec![]),
    });
    let left = Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1));
    assert!(matches!(left, Err(Error::OutcomeUnknown(_))));
    assert!(!fake.templates().contains(&sql::DROP.text()));
}

#[test]
fn dependents_that_keep_coming_are_told_after_a_few_rounds() {
    let mut fake = server(|run| match run.template {
        t if t == sql::FOOTPRINT.text() => Ok(vec![row(&["170010", "0", "0", "inventory", "t", "1", "0"])]),
        t if t == sql::DEPENDENTS.text() => Ok(vec![row(&["privileges for table g"])]),
        t if t == sql::DROP.text() => refused("2BP01"),
        _ => Ok(vec![]),
    });
    let left = Postgres::revoke(&mut fake, &a_target(), &account(NAME, 1));
    assert_eq!(
        left,
        Err(Error::Dependents(
            vec!["inventory: privileges for table g".into(), "inventory: 1 in all, 0 owned".into(),]
        ))
    );
    let drops = fake.templates().iter().filter(|t| **t == sql::DROP.text()).count();
    assert_eq!(drops, 3);
}

/// Cut off after any statement, with or without its effect, the next call ends the same.
#[test]
fn a_revocation_that_was_cut_off_anywhere_goes_on() {
    // Taking roles is the one step that may fail without an end: DROP does it as well.
    let optional = [sql::MEMBERSHIPS.text(), sql::TAKE_ROLES.text()];
    for at in 0..17 {
        let mut inner = busy("170010");
        let mut count = 0;
        let mut cut_at = "";
        let mut cut = server(move |run| {
            count += 1;
            if count == at + 1 {
                return Err(SqlError::Unknown("cut".into()));
            }
            // The template is listed, and the script does not look at parameters.
            let statement = jit_plugin::Statement::raw(run.template, params(run));
            inner.query(None, &statement, 9).map(|rows| rows.rows)
        });
        let first = Postgres::revoke(&mut cut, &a_target(), &account(NAME, 1));
        if let Some(run) = cut.runs.get(at) {
            cut_at = run.template;
        }
        assert!(first.is_err() || optional.contains(&cut_at), "{at}: {cut_at}");
        assert_eq!(Postgres::revoke(&mut cut, &a_target(), &account(NAME, 1)), Ok(()), "{at}");
        assert_eq!(cut.templates().last(), Some(&sql::DROP.text()));
    }
}

fn params(run: &Run) -> Vec<jit_plugin::Param<'static>> {
    run.params.iter().map(|_| jit_plugin::Param::Number(0)).collect()
}

#[test]
fn an_accounts_state() {
    let inspect = |columns: &'static [&'static str]| {
        let mut fake = server(move |_| Ok(vec![row(columns)]));
        Postgres::inspect(&mut fake, &a_target(), NAME).unwrap()
    };
    let state = inspect(&["t", "1800000000", "app_read_only"]);
    assert!(state.can_login);
    assert_eq!(state.expires_at, Some(1_800_000_000));
    assert_eq!(state.properties, [("member_of".into(), "app_read_only".into())]);
    let state = inspect(&["false", "-", "-"]);
    assert!(!state.can_login && state.expires_at.is_none() && state.properties.is_empty());
}

#[test]
fn accounts_are_listed_a_page_at_a_time() {
    let names: Vec<String> = (0..501).map(|i| format!("v-{i:03}")).collect();
    let mut fake = server(move |run| {
        let after = run.params[1].strip_prefix("literal:").unwrap().to_owned();
        let rest = names.iter().filter(|name| **name > after).take(500);
        Ok(rest.map(|name| vec![Some(name.clone())]).collect())
    });
    let first = Postgres::list_accounts(&mut fake, &a_target(), "v-", None).unwrap();
    assert_eq!((first.names.len(), first.next.as_deref()), (500, Some("v-499")));
    let last = Postgres::list_accounts(&mut fake, &a_target(), "v-", first.next.as_deref()).unwrap();
    assert_eq!((last.names, last.next), (vec!["v-500".to_owned()], None));
    assert_eq!(fake.runs[0].params, ["literal:v-", "literal:", "number:500"]);
}

fn paths(result: Result<(), Error>) -> Vec<String> {
    match result {
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| p.path).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_are_found_before_the_server_is_asked() {
    let mut fake = server(|_| panic!("asked"));
    let target = target(
        config::parse(r#"{"scram_iterations": 0, "reassign_owned_to": "", "terminate_sessions": false}"#).unwrap(),
    );
    let role = role(config::parse(r#"{"grants": [], "connection_limit": 0}"#).unwrap());
    assert_eq!(
        paths(Postgres::validate(&mut fake, &target, &[role])),
        [
            "scram_iterations",
            "terminate_sessions",
            "reassign_owned_to",
            "roles.app_read_only.grants",
            "roles.app_read_only.connection_limit",
        ]
    );
    assert!(config::parse::<TargetConfig>(r#"{"scram_iteration": 1}"#).is_err());
}

/// A server on which all is well, but for what `other` answers otherwise.
fn sound(version: &'static str, mut other: impl FnMut(&Run) -> Option<Answer> + 'static) -> FakeSql<'static> {
    server(move |run| match (other(run), run.template) {
        (Some(answer), _) => answer,
        (None, t) if t == sql::BROKER.text() => Ok(vec![row(&[version, "jit_broker", "f", "t", "f", "f", "f"])]),
        (None, t) if t == sql::GRANTABLE.text() => {
            Ok(vec![row(&["app_read_only", "t", "f"]), row(&["inventory_owner", "f", "t"])])
        }
        (None, t) if t == sql::KEEPER.text() => Ok(vec![row(&["", "-"])]),
        _ => Ok(vec![]),
    })
}

#[test]
fn what_would_fail_at_an_issue_fails_at_load() {
    let validate = |version: &'static str, administers: &'static str| {
        let mut fake = sound(version, move |run| {
            let grantable = [row(&["app_read_only", administers, "f"]), row(&["inventory_owner", "f", "t"])];
            (run.template == sql::GRANTABLE.text()).then(|| Ok(grantable.to_vec()))
        });
        Postgres::validate(&mut fake, &a_target(), &[a_role()])
    };
    assert_eq!(validate("170010", "t"), Ok(()));
    assert_eq!(validate("150018", "f"), Ok(()));
    assert_eq!(paths(validate("170010", "f")), ["roles.app_read_only.grants[0]"]);
    assert_eq!(paths(validate("130000", "t")), [""]);

    let mut nobody = server(|run| match run.template {
        t if t == sql::BROKER.text() => Ok(vec![row(&["170010", "b", "f", "f", "f", "f", "f"])]),
        _ => Ok(vec![]),
    });
    assert_eq!(
        paths(Postgres::validate(&mut nobody, &a_target(), &[a_role()])),
        ["", "reassign_owned_to", "roles.app_read_only.grants[0]"]
    );
}

#[test]
fn a_role_that_is_not_there_may_be_a_slip_of_one_that_is() {
    let mut fake = sound("170010", |run| match run.template {
        t if t == sql::GRANTABLE.text() => Some(Ok(vec![])),
        t if t == sql::GROUPS.text() => Some(Ok(vec![row(&["app_raed_only"]), row(&["auditors"])])),
        _ => None,
    });
    let found = problems(Postgres::validate(&mut fake, &a_target(), &[a_role()]));
    let said: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(
        said,
        [
            "the server has no role \"inventory_owner\": write one that it has, or make it: \
             CREATE ROLE \"inventory_owner\" NOLOGIN",
            "the server has no role \"app_read_only\": did you mean \"app_raed_only\"? \
             Otherwise make it: CREATE ROLE \"app_read_only\" NOLOGIN",
        ]
    );
}

fn problems(result: Result<(), Error>) -> Vec<(String, String)> {
    match result {
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| (p.path, p.message)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grant_that_leads_to_power_is_refused_with_the_way_to_it() {
    let mut fake = sound("170010", |run| {
        let way = row(&["app_read_only", "app_read_only \u{2192} dba", "creates roles"]);
        (run.template == sql::POWERS.text()).then(|| Ok(vec![way]))
    });
    let found = problems(Postgres::validate(&mut fake, &a_target(), &[a_role()]));
    let [(path, message)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(path, "roles.app_read_only.grants[0]");
    assert!(message.contains("app_read_only \u{2192} dba creates roles"), "{message}");
}

#[test]
fn what_keeps_the_data_has_no_power_and_has_room() {
    let mut fake = sound("170010", |run| match run.template {
        t if t == sql::KEEPER.text() => Some(Ok(vec![row(&["LOGIN, BYPASSRLS", "app_owner"])])),
        t if t == sql::NO_ROOM.text() => Some(Ok(vec![row(&["SCHEMA public"])])),
        _ => None,
    });
    let found = problems(Postgres::validate(&mut fake, &a_target(), &[a_role()]));
    assert!(found.iter().all(|(path, _)| path == "reassign_owned_to"), "{found:?}");
    let words =
        ["has LOGIN, BYPASSRLS", "is a member of app_owner", "GRANT CREATE ON SCHEMA public TO \"inventory_owner\""];
    assert_eq!(found.len(), words.len());
    for ((_, message), word) in found.iter().zip(words) {
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_server_that_is_down_is_no_mistake_in_the_configuration() {
    let mut down = server(|_| Err(SqlError::Unavailable("down".into())));
    let result = Postgres::validate(&mut down, &a_target(), &[a_role()]);
    assert!(matches!(result, Err(Error::Retryable(_))));
}
