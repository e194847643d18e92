//! The driver on a scripted server: what it sends, and what it makes of the answers. The end to
//! end suite runs the same verbs on real servers.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod rotating;

use super::*;
use crate::statements as sql;
use jit_plugin::testing::{FakeSql, Run, account, role, secret, target};
use jit_plugin::{ServerError, SqlError, config};

type Answer = Result<Vec<Vec<Option<String>>>, SqlError>;

const NAME: &str = "v-payment-4qk2";

fn a_target() -> Target<TargetConfig> {
    target(config::parse("{}").unwrap())
}

fn a_role() -> Role<RoleConfig> {
    role(config::parse(r#"{"roles": ["app_read_only"], "require_tls": true, "max_user_connections": 5}"#).unwrap())
}

fn of_a_lease() -> Account {
    Account { external_id: Some("%".into()), ..account(NAME, 1_800_000_000) }
}

const MYSQL: &str = "8.4.3";
const MARIADB: &str = "10.11.19-MariaDB";

/// A server of that version; the rest is the test's.
fn server(version: &'static str, mut answer: impl FnMut(&Run) -> Answer + 'static) -> FakeSql<'static> {
    FakeSql::new(MySql::STATEMENTS, move |run| match run.template {
        t if t == sql::SERVER.text() => {
            Ok(vec![row(&[version, "jit_broker@%", if version == MARIADB { "0" } else { "1" }])])
        }
        _ => answer(run),
    })
}

fn refused(code: &str) -> Answer {
    Err(SqlError::Refused(ServerError { code: code.into(), message: "no".into() }))
}

fn row(columns: &[&str]) -> Vec<Option<String>> {
    let column = |text: &&str| (*text != "-").then(|| (*text).to_owned());
    columns.iter().map(column).collect()
}

fn create(fake: &mut FakeSql<'_>) -> Result<Issued, Error> {
    MySql::create(fake, &a_target(), &a_role(), &account(NAME, 1), secret("pw"))
}

#[test]
fn mysql_makes_an_account_with_its_roles_in_one_statement() {
    let mut fake = server(MYSQL, |_| Ok(vec![]));
    let made = create(&mut fake).unwrap();
    assert_eq!(made.external_id.as_deref(), Some("%"));
    assert_eq!(fake.templates(), [sql::SERVER.text(), sql::CREATE_TLS.text()]);
    assert_eq!(
        fake.runs[1].params,
        ["literal:v-payment-4qk2", "literal:%", "secret:pw:caching-sha2", "idents:app_read_only", "number:5"]
    );
    let plain = role(config::parse(r#"{"roles": ["a"]}"#).unwrap());
    let mut fake = server(MYSQL, |_| Ok(vec![]));
    assert!(MySql::create(&mut fake, &a_target(), &plain, &account(NAME, 1), secret("pw")).is_ok());
    assert_eq!(fake.templates()[1], sql::CREATE.text());
    let mut mariadb = server(MARIADB, |_| Ok(vec![]));
    assert!(MySql::create(&mut mariadb, &a_target(), &plain, &account(NAME, 1), secret("pw")).is_ok());
    assert_eq!(mariadb.templates()[1], sql::CREATE_TLS_MARIADB.text());
    assert_eq!(fake.runs[1].params[4], "number:100");
}

#[test]
fn mariadb_makes_an_account_in_steps() {
    let mut fake = server(MARIADB, |_| Ok(vec![]));
    assert!(create(&mut fake).is_ok());
    let steps = [
        sql::SERVER.text(),
        sql::CREATE_TLS_MARIADB.text(),
        sql::GRANT_MARIADB.text(),
        sql::DEFAULT_ROLE_MARIADB.text(),
    ];
    assert_eq!(fake.templates(), steps);
    assert_eq!(fake.runs[1].params, ["literal:v-payment-4qk2", "literal:%", "secret:pw:mysql-native", "number:5"]);
    assert_eq!(fake.runs[2].params, ["ident:app_read_only", "literal:v-payment-4qk2", "literal:%"]);
}

/// NO-GHOST: only an account that is surely gone is reported as refused.
#[test]
fn a_half_made_account_is_undone_or_in_doubt() {
    let create_with = |failing: &'static str, error: SqlError, undone: bool| {
        let mut fake = server(MARIADB, move |run| match run.template {
            t if t == failing => Err(error.clone()),
            t if t == sql::DROP.text() && !undone => Err(SqlError::Unavailable("down".into())),
            _ => Ok(vec![]),
        });
        (create(&mut fake).unwrap_err(), fake.templates().last() == Some(&sql::DROP.text()))
    };
    let no = |code: &str| SqlError::Refused(ServerError { code: code.into(), message: "no".into() });
    for step in [sql::GRANT_MARIADB.text(), sql::DEFAULT_ROLE_MARIADB.text()] {
        let (error, dropped) = create_with(step, no("1961"), true);
        assert!(matches!(error, Error::Refused(_)) && dropped, "{error:?}");
        let (error, dropped) = create_with(step, no("1205"), true);
        assert!(matches!(error, Error::Retryable(_)) && dropped, "{error:?}");
        for error in [no("1961"), no("1205"), SqlError::Unavailable("down".into())] {
            let (error, _) = create_with(step, error, false);
            assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
        }
        // What is still under way could come after the drop: the host's business.
        let (error, dropped) = create_with(step, SqlError::Unknown("lost".into()), true);
        assert!(matches!(error, Error::OutcomeUnknown(_)) && !dropped, "{error:?}");
    }
    let (error, dropped) = create_with(sql::CREATE_TLS_MARIADB.text(), no("1227"), true);
    assert!(matches!(error, Error::Refused(_)) && !dropped, "{error:?}");
}

#[test]
fn a_name_that_exists_is_a_conflict() {
    for version in [MYSQL, MARIADB] {
        let mut fake = server(version, |_| refused("1396"));
        assert!(matches!(create(&mut fake), Err(Error::Conflict(_))));
        assert!(!fake.templates().contains(&sql::DROP.text()), "somebody else's account is left alone");
    }
}

#[test]
fn verbs_on_a_missing_account() {
    let missing = || server(MYSQL, |run| if run.template.starts_with("ALTER") { refused("1396") } else { Ok(vec![]) });
    let (target, account) = (a_target(), of_a_lease());
    assert_eq!(MySql::renew(&mut missing(), &target, &a_role(), &account), Err(Error::NotFound));
    for step in [RotationStep::Stage, RotationStep::Discard] {
        assert_eq!(MySql::rotate(&mut missing(), &target, &account, step, Some(secret("pw"))), Err(Error::NotFound));
    }
    assert_eq!(MySql::inspect(&mut missing(), &target, NAME), Err(Error::NotFound));
    let mut fake = missing();
    assert_eq!(MySql::revoke(&mut fake, &target, &account), Ok(()));
    assert_eq!(
        fake.templates(),
        [sql::SERVER.text(), sql::HOSTS.text(), sql::SESSIONS.text(), sql::CONNECTIONS.text()]
    );
}

#[test]
fn renewal_needs_an_account_that_can_log_in() {
    let renew = |columns: &'static [&'static str]| {
        let mut fake = server(MYSQL, move |_| Ok(vec![row(columns)]));
        MySql::renew(&mut fake, &a_target(), &a_role(), &of_a_lease())
    };
    assert_eq!(renew(&["%", "N", "N", "0", "caching_sha2_password"]), Ok(1_800_000_000));
    assert!(matches!(renew(&["%", "Y", "N", "0", "caching_sha2_password"]), Err(Error::Refused(_))));
    assert!(matches!(renew(&["%", "N", "Y", "0", "caching_sha2_password"]), Err(Error::Refused(_))));
}

/// A server on which the account has two host parts and two sessions.
fn busy() -> FakeSql<'static> {
    let mut killed = 0;
    let mut looks = 0;
    let mut locked = false;
    let mut dropped = 0;
    server(MYSQL, move |run| match run.template {
        t if t == sql::HOSTS.text() => Ok([row(&["%"]), row(&["10.%"])].into_iter().skip(dropped).collect()),
        t if t == sql::LOCK.text() => {
            locked = true;
            Ok(vec![])
        }
        t if t == sql::DROP.text() => {
            assert!(locked, "a login could begin");
            dropped += 1;
            Ok(vec![])
        }
        t if t == sql::ROLES_OF.text() => Ok(vec![row(&["app_read_only", "%"])]),
        t if t == sql::SESSIONS.text() => {
            looks += 1;
            // One takes its time.
            let left = if killed == 0 { vec![row(&["7", "N"]), row(&["8", "N"])] } else { vec![row(&["8", "N"])] };
            Ok(if looks < 3 { left } else { vec![] })
        }
        t if t == sql::KILL.text() => {
            killed += 1;
            if killed == 2 { refused("1094") } else { Ok(vec![]) }
        }
        _ => Ok(vec![]),
    })
}

#[test]
fn an_account_is_shut_out_before_its_sessions_end_and_then_dropped() {
    let mut fake = busy();
    assert_eq!(MySql::revoke(&mut fake, &a_target(), &of_a_lease()), Ok(()));
    let (lock, sessions, kill, wait, drop) =
        (sql::LOCK.text(), sql::SESSIONS.text(), sql::KILL.text(), sql::WAIT.text(), sql::DROP.text());
    let rights = [sql::NO_DEFAULT_ROLE.text(), sql::ROLES_OF.text(), sql::REVOKE_ROLE.text(), sql::REVOKE_ALL.text()];
    let templates = fake.templates();
    assert_eq!(templates[..4], [sql::SERVER.text(), sql::HOSTS.text(), lock, lock]);
    assert_eq!(templates[4..8], rights);
    assert_eq!(templates[8..12], rights);
    // Two in one message, which ends at the one that is gone; then one by one.
    let ended = [sessions, kill, kill, kill, kill, wait, sessions, kill, wait, sessions, sql::CONNECTIONS.text()];
    assert_eq!(templates[12..23], ended);
    assert_eq!(templates[23..], [drop, drop, sessions, sql::CONNECTIONS.text(), sql::PREPARED.text()]);
    assert_eq!(fake.runs[6].params, ["literal:app_read_only", "literal:%", "literal:v-payment-4qk2", "literal:%"]);
    assert_eq!(fake.runs[24].params, ["literal:v-payment-4qk2", "literal:10.%"]);
}

/// Cut off after any statement, with or without its effect, the next call ends the same.
#[test]
fn a_revocation_that_was_cut_off_anywhere_goes_on() {
    for at in 0..27 {
        for effect in [false, true] {
            let mut inner = busy();
            let mut count = 0;
            let mut cut = server(MYSQL, move |run| {
                count += 1;
                let is_cut = count == at + 1;
                if is_cut && !effect {
                    return Err(SqlError::Unknown("cut".into()));
                }
                // The template is listed, and the script does not look at parameters.
                let params = run.params.iter().map(|_| jit_plugin::Param::Number(0)).collect();
                let statement = jit_plugin::Statement::raw(run.template, params);
                let answer = inner.query(None, &statement, 9).map(|rows| rows.rows);
                if is_cut { Err(SqlError::Unknown("cut".into())) } else { answer }
            });
            // A step that sessions may block is tried again in the same call.
            let _first = MySql::revoke(&mut cut, &a_target(), &of_a_lease());
            assert_eq!(MySql::revoke(&mut cut, &a_target(), &of_a_lease()), Ok(()), "{at}");
            assert!(cut.templates().contains(&sql::DROP.text()));
            // Whoever still had something to drop is also told of prepared transactions.
            let last = cut.templates().into_iter().rfind(|template| *template != sql::PREPARED.text());
            assert_eq!(last, Some(sql::CONNECTIONS.text()));
        }
    }
}

/// A session of the account itself holds the lock that locking it waits for; or another one does.
#[test]
fn sessions_end_even_where_the_account_cannot_be_locked() {
    for (no, first) in [("1205", sql::HOSTS.text()), ("1205", sql::LOCK.text()), ("unknown", sql::LOCK.text())] {
        for ends in [true, false] {
            let mut open = true;
            let mut fake = server(MYSQL, move |run| match run.template {
                t if t == first && (open || !ends) => match no {
                    "unknown" => Err(SqlError::Unknown("no answer".into())),
                    code => refused(code),
                },
                t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
                t if t == sql::SESSIONS.text() && open => Ok(vec![row(&["7", "N"])]),
                t if t == sql::KILL.text() => {
                    open = false;
                    Ok(vec![])
                }
                _ => Ok(vec![]),
            });
            let revoked = MySql::revoke(&mut fake, &a_target(), &of_a_lease());
            assert_eq!(revoked.is_ok(), ends, "{no} {first}: {revoked:?}");
            assert!(fake.templates().contains(&sql::KILL.text()));
            assert_eq!(fake.templates().contains(&sql::DROP.text()), ends);
        }
    }
}

/// The 200 that roll back do not hide the one that works.
#[test]
fn every_session_is_ended_and_those_that_roll_back_are_not_waited_for() {
    for version in [MYSQL, MARIADB] {
        let mut killed = std::collections::BTreeSet::new();
        let mut fake = server(version, move |run| match run.template {
            t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
            t if t == sql::SESSIONS.text() || t == sql::SESSIONS_MARIADB.text() => {
                let after: u64 = run.params[1].trim_start_matches("number:").parse().unwrap();
                let left = (1_u64..=1_201).filter(|number| *number > after);
                let left = left.filter(|number| *number != 1_201 || !killed.contains(number));
                let ends = |number: &u64| if killed.contains(number) { "Y" } else { "N" };
                Ok(left.take(500).map(|number| row(&[&number.to_string(), ends(&number)])).collect())
            }
            t if t == sql::KILL.text() => {
                killed.insert(run.params[0].trim_start_matches("number:").parse::<u64>().unwrap());
                Ok(vec![])
            }
            _ => Ok(vec![]),
        });
        assert_eq!(MySql::revoke(&mut fake, &a_target(), &of_a_lease()), Ok(()));
        let ended = fake.runs.iter().filter(|run| run.params.iter().any(|param| param == "number:1201"));
        assert!(ended.filter(|run| run.template == sql::KILL.text()).count() >= 1);
        assert!(fake.templates().contains(&sql::DROP.text()));
    }
}

#[test]
fn sessions_that_do_not_end_bring_the_host_back() {
    let stays = || {
        server(MYSQL, |run| match run.template {
            t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
            t if t == sql::SESSIONS.text() => Ok(vec![row(&["7", "N"])]),
            _ => Ok(vec![]),
        })
    };
    let mut fake = stays();
    let left = MySql::revoke(&mut fake, &a_target(), &of_a_lease());
    assert!(matches!(left, Err(Error::Retryable(_))));
    assert!(fake.templates().contains(&sql::DROP.text()), "the account goes all the same");
    let alone = target(config::parse(r#"{"terminate_sessions": false}"#).unwrap());
    assert_eq!(MySql::revoke(&mut stays(), &alone, &of_a_lease()), Ok(()));
    // The server has connections of it that it does not list.
    let mut hidden = server(MYSQL, |run| match run.template {
        t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
        t if t == sql::CONNECTIONS.text() => Ok(vec![row(&["1"])]),
        _ => Ok(vec![]),
    });
    let left = MySql::revoke(&mut hidden, &a_target(), &of_a_lease());
    assert!(matches!(left, Err(Error::Retryable(_))));
}

/// Rights that cannot be taken hold up nothing, and without the performance schema the list of
/// processes is looked at.
#[test]
fn an_older_set_up_still_ends_accounts() {
    let mut fake = server(MYSQL, |run| match run.template {
        t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
        t if [sql::ROLES_OF.text(), sql::SESSIONS.text(), sql::CONNECTIONS.text()].contains(&t) => refused("1142"),
        t if t == sql::REVOKE_ALL.text() => refused("1227"),
        _ => Ok(vec![]),
    });
    assert_eq!(MySql::revoke(&mut fake, &a_target(), &of_a_lease()), Ok(()));
    for statement in [sql::SESSIONS_MARIADB.text(), sql::DROP.text()] {
        assert!(fake.templates().contains(&statement));
    }
}

#[test]
fn what_the_account_defined_keeps_it_but_locked() {
    let mut fake = server(MYSQL, |run| match run.template {
        t if t == sql::HOSTS.text() => Ok(vec![row(&["%"])]),
        t if t == sql::DROP.text() => refused("4006"),
        t if t == sql::DEFINED.text() => Ok(vec![row(&["view inventory.v"])]),
        _ => Ok(vec![]),
    });
    let left = MySql::revoke(&mut fake, &a_target(), &of_a_lease());
    assert_eq!(left, Err(Error::Dependents(vec!["view inventory.v".into(), "no".into()])));
    assert_eq!(fake.runs.last().unwrap().params[0], "literal:v-payment-4qk2@%");
    let of = |text: &str| fake.templates().iter().rposition(|template| *template == text);
    assert!(of(sql::REVOKE_ALL.text()) < of(sql::DROP.text()), "it has no rights any more");
    assert!(of(sql::SESSIONS.text()) > of(sql::DROP.text()), "a login that was under way is looked for");
}

#[test]
fn an_accounts_state() {
    let mut fake = server(MARIADB, |run| match run.template {
        t if t == sql::INSPECT_MARIADB.text() => {
            Ok(vec![row(&["%", "Y", "N", "0", "x"]), row(&["10.%", "N", "N", "0", "x"])])
        }
        other => panic!("{other}"),
    });
    let state = MySql::inspect(&mut fake, &a_target(), NAME).unwrap();
    assert!(state.can_login && state.expires_at.is_none());
    assert_eq!(state.properties, [("hosts".into(), "%,10.%".into())]);
    let state = MySql::inspect(&mut rotating::with_passwords("1", true), &a_target(), NAME).unwrap();
    assert_eq!(state.properties[1], ("old_password".into(), "valid".into()));
}

#[test]
fn accounts_are_listed_a_page_at_a_time() {
    let names: Vec<String> = (0..501).map(|i| format!("v-{i:03}")).collect();
    let mut fake = server(MYSQL, move |run| {
        let after = run.params[2].strip_prefix("literal:").unwrap().to_owned();
        let rest = names.iter().filter(|name| **name > after).take(500);
        Ok(rest.map(|name| vec![Some(name.clone())]).collect())
    });
    let first = MySql::list_accounts(&mut fake, &a_target(), "v-", None).unwrap();
    assert_eq!((first.names.len(), first.next.as_deref()), (500, Some("v-499")));
    let last = MySql::list_accounts(&mut fake, &a_target(), "v-", first.next.as_deref()).unwrap();
    assert_eq!((last.names, last.next), (vec!["v-500".to_owned()], None));
    assert_eq!(fake.runs[0].params, ["literal:v-", "literal:v-", "literal:", "number:500"]);
}

fn paths(result: Result<(), Error>) -> Vec<String> {
    match result {
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| p.path).collect(),
        other => panic!("{other:?}"),
    }
}

fn messages(result: Result<(), Error>) -> String {
    match result {
        Err(Error::InvalidConfig(problems)) => problems.into_iter().map(|p| p.message + "\n").collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mistakes_are_found_before_the_server_is_asked() {
    let mut fake = FakeSql::new(MySql::STATEMENTS, |_| panic!("asked"));
    let target = target(config::parse(r#"{"host": ""}"#).unwrap());
    let wrong = |json: &str| role(config::parse(json).unwrap());
    let roles = [
        wrong(r#"{"roles": [], "max_user_connections": 0}"#),
        wrong(r#"{"rotating": {"account": "app", "period": "1h"}, "roles": ["a"]}"#),
        wrong(r#"{"roles": ["123456789012345678901234567890123"]}"#),
    ];
    assert_eq!(
        paths(MySql::validate(&mut fake, &target, &roles)),
        [
            "host",
            "roles.app_read_only.roles",
            "roles.app_read_only.max_user_connections",
            "roles.app_read_only",
            "roles.app_read_only.roles[0]"
        ]
    );
    assert!(config::parse::<TargetConfig>(r#"{"hosts": "%"}"#).is_err());
    assert!(config::parse::<RoleConfig>(r#"{"role": ["a"]}"#).is_err());
}

/// A server whose broker has those privileges, and one role of that power that it may grant or not.
fn prepared(
    version: &'static str,
    privileges: &'static [&'static str],
    powers: &'static str,
    grants: bool,
) -> FakeSql<'static> {
    server(version, move |run| match run.template {
        t if t == sql::PRIVILEGES.text() => Ok(privileges.iter().map(|p| row(&[p, "NO"])).collect()),
        t if t == sql::SCHEMA_PRIVILEGES.text() => Ok(vec![row(&["UPDATE"])]),
        t if t == sql::POWERS.text() => {
            let host = if version == MARIADB { "" } else { "%" };
            let list = if powers == "Y" { "CREATE USER" } else { "" };
            Ok(vec![row(&["app_read_only", host, list]), row(&["app", "%", list])])
        }
        t if t == sql::GRANTABLE.text() && grants => Ok(vec![row(&["app_read_only"])]),
        t if t == sql::INSPECT.text() => Ok(vec![row(&["%", "N", "N", "0", "caching_sha2_password"])]),
        _ => Ok(vec![]),
    })
}

const NEEDED: &[&str] = &["CREATE USER", "PROCESS", "CONNECTION_ADMIN"];
const NEEDED_MARIADB: &[&str] = &["CREATE USER", "PROCESS", "CONNECTION ADMIN"];

#[test]
fn what_would_fail_at_an_issue_fails_at_load() {
    let validate = |mut fake: FakeSql<'_>| MySql::validate(&mut fake, &a_target(), &[a_role()]);
    assert_eq!(validate(prepared(MYSQL, NEEDED, "N", true)), Ok(()));
    assert_eq!(validate(prepared(MARIADB, NEEDED_MARIADB, "N", true)), Ok(()));
    let lacking = messages(validate(prepared(MYSQL, &["CREATE USER"], "N", true)));
    assert!(lacking.contains("GRANT PROCESS, CONNECTION_ADMIN ON *.* TO 'jit_broker'@'%'"), "{lacking}");
    let admin = messages(validate(prepared(MYSQL, NEEDED, "N", false)));
    assert!(admin.contains("GRANT 'app_read_only' TO 'jit_broker'@'%' WITH ADMIN OPTION"), "{admin}");
    assert!(messages(validate(prepared(MYSQL, NEEDED, "Y", true))).contains("only what applications need"));
    assert!(messages(validate(prepared("8.0.13", NEEDED, "N", true))).contains("too old"));
    assert!(messages(validate(prepared("10.5.9-MariaDB", NEEDED_MARIADB, "N", true))).contains("too old"));
    assert!(messages(validate(prepared("8.0.13", NEEDED, "N", true))).contains("8.0.14"));

    let mut blind = server(MYSQL, |run| match run.template {
        t if t == sql::PRIVILEGES.text() => Ok(NEEDED.iter().map(|p| row(&[p, "NO"])).collect()),
        t if t.contains("mysql.user") => refused("1142"),
        _ => Ok(vec![]),
    });
    let told = messages(MySql::validate(&mut blind, &a_target(), &[a_role()]));
    assert_eq!(told.matches("GRANT SELECT (User, Host").count(), 1, "{told}");

    let mut none = server(MYSQL, |run| match run.template {
        t if t == sql::PRIVILEGES.text() => Ok(NEEDED.iter().map(|p| row(&[p, "NO"])).collect()),
        _ => Ok(vec![]),
    });
    assert!(messages(MySql::validate(&mut none, &a_target(), &[a_role()])).contains("CREATE ROLE 'app_read_only'"));
}

#[test]
fn a_rotating_account_must_be_one_that_can_have_two_passwords() {
    let of = |json: &str| role(config::parse::<RoleConfig>(json).unwrap());
    let app = of(r#"{"rotating": {"account": "app", "period": "1h", "overlap": "10m"}}"#);
    let mut fake = prepared(MYSQL, NEEDED, "N", true);
    assert_eq!(MySql::validate(&mut fake, &a_target(), std::slice::from_ref(&app)), Ok(()));
    let mut fake = prepared(MARIADB, NEEDED_MARIADB, "N", true);
    let refused = MySql::validate(&mut fake, &a_target(), std::slice::from_ref(&app));
    assert!(messages(refused).contains("MariaDB keeps one password"));
    let mut fake = prepared(MYSQL, NEEDED, "N", true);
    let own = of(r#"{"rotating": {"account": "jit_broker"}}"#);
    assert_eq!(paths(MySql::validate(&mut fake, &a_target(), &[own])), ["roles.app_read_only.rotating.account"]);
    for columns in [
        &["10.%", "N", "N", "0", "caching_sha2_password"],
        &["%", "Y", "N", "0", "caching_sha2_password"],
        &["%", "N", "N", "0", "auth_socket"],
    ] {
        let mut fake = server(MYSQL, move |run| match run.template {
            t if t == sql::PRIVILEGES.text() => Ok(NEEDED.iter().map(|p| row(&[p, "NO"])).collect()),
            t if t == sql::INSPECT.text() => Ok(vec![row(columns)]),
            _ => Ok(vec![]),
        });
        let found = MySql::validate(&mut fake, &a_target(), std::slice::from_ref(&app));
        assert_eq!(paths(found), ["roles.app_read_only.rotating.account"], "{columns:?}");
    }
}

#[test]
fn a_server_that_is_down_is_no_mistake_in_the_configuration() {
    let mut down = FakeSql::new(MySql::STATEMENTS, |_| Err(SqlError::Unavailable("down".into())));
    let result = MySql::validate(&mut down, &a_target(), &[a_role()]);
    assert!(matches!(result, Err(Error::Retryable(_))));
}

#[test]
fn a_configuration_that_names_the_other_server_is_told_so() {
    let named = |server: &str| target(config::parse(&format!(r#"{{"server": "{server}"}}"#)).unwrap());
    for (version, server, is_wrong) in
        [(MYSQL, "mysql", false), (MYSQL, "mariadb", true), (MARIADB, "mariadb", false), (MARIADB, "mysql", true)]
    {
        let mut fake = self::server(version, |_| Ok(vec![]));
        // The scripted server has no privileges to show: of the problems, this one is asked for.
        let told = match MySql::validate(&mut fake, &named(server), &[]) {
            Err(Error::InvalidConfig(problems)) => problems.iter().any(|problem| problem.path == "server"),
            other => panic!("{other:?}"),
        };
        assert_eq!(told, is_wrong, "{version} {server}");
    }
    assert!(config::parse::<TargetConfig>(r#"{"server": "postgres"}"#).is_err());
}
