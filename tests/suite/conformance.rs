//! The conformance kit: each shipped driver passes it on its real server, and it finds each mistake
//! of a careless one.

use std::path::Path;

use jit_tests::database::Database;
use jit_tests::kit::conjur::StoredAccount;
use jit_tests::kit::mysql::Server;
use jit_tests::kit::people::{BY_REQUESTS, People};
use jit_tests::kit::queues::Queues;
use jit_tests::kit::{KitFixture, VERIFIERS};
use jit_tests::surroundings;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::spawn_blocking;

/// A login that does nothing more, and keeps no session, cannot try these.
const HELD: [&str; 2] =
    ["hostile::one_that_holds_all_it_may_is_gone", "hostile::one_that_changes_its_password_is_gone"];

/// Every case of the kit, but those that cannot apply.
async fn conforms(driver: &'static str, fixture: KitFixture, not_applicable: &[&str]) {
    let report = spawn_blocking(move || fixture.run(driver, &[])).await.unwrap().unwrap();
    report.must_pass_without(not_applicable).unwrap();
}

async fn postgres(config: &str) -> KitFixture {
    KitFixture::postgres(|_| config.to_owned()).await.unwrap()
}

#[tokio::test]
async fn the_postgres_driver_conforms() {
    let fixture = KitFixture::postgres(|database| format!("reassign_owned_to = \"{}\"", database.owner)).await.unwrap();
    conforms("driver-postgres", fixture, &["refusals::a_strange_authority_is_not_trusted"]).await;
}

#[tokio::test]
async fn the_mysql_driver_conforms_on_mysql() {
    let fixture = KitFixture::mysql(Server::MySql).await.unwrap();
    conforms("driver-mysql", fixture, &["lifecycle::it_expires_by_itself"]).await;
}

#[tokio::test]
async fn the_mysql_driver_conforms_on_mariadb() {
    let fixture = KitFixture::mysql(Server::MariaDb).await.unwrap();
    conforms("driver-mysql", fixture, &["lifecycle::it_expires_by_itself", VERIFIERS[0], VERIFIERS[1]]).await;
}

#[tokio::test]
async fn the_ldap_driver_conforms_on_openldap() {
    let fixture = KitFixture::openldap().unwrap();
    let left_out =
        [&["lifecycle::it_may_do_what_its_role_may", "lifecycle::a_session_ends_with_it"], &HELD[..]].concat();
    conforms("driver-ldap", fixture, &left_out).await;
}

#[tokio::test]
async fn the_ldap_driver_conforms_on_active_directory() {
    let fixture = KitFixture::active_directory().unwrap();
    let left_out = [
        "lifecycle::it_may_do_what_its_role_may",
        "lifecycle::a_session_ends_with_it",
        HELD[0],
        HELD[1],
        VERIFIERS[0],
        VERIFIERS[1],
        "rotation::a_new_password_replaces_the_old",
        "rotation::each_step_can_be_repeated",
        "refusals::missing_permission_is_told",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    conforms("driver-ldap", fixture, &left_out).await;
}

/// What a backend that chooses the names leaves out.
const EXTERNAL: [&str; 2] = ["lifecycle::a_name_alone_is_enough", "names::a_taken_name_is_a_conflict"];

#[tokio::test]
async fn the_vault_driver_conforms_on_openbao() {
    let fixture = KitFixture::vault().await.unwrap();
    let rotation = [
        "rotation::a_new_password_replaces_the_old",
        "rotation::each_step_can_be_repeated",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    let mut left_out = vec!["lifecycle::a_session_ends_with_it", EXTERNAL[0], HELD[0], VERIFIERS[0], VERIFIERS[1]];
    left_out.extend([rotation[0], rotation[1], EXTERNAL[1], rotation[2]]);
    conforms("driver-vault", fixture, &left_out).await;
}

#[tokio::test]
async fn the_conjur_driver_conforms() {
    let stored = StoredAccount::store().await.unwrap();
    let fixture = KitFixture::conjur(&stored).unwrap();
    let left_out = [
        "lifecycle::it_is_seen",
        "lifecycle::a_session_ends_with_it",
        "lifecycle::it_expires_by_itself",
        EXTERNAL[0],
        "hostile::one_that_comes_back_stays_out",
        HELD[0],
        HELD[1],
        VERIFIERS[0],
        VERIFIERS[1],
        "rotation::a_new_password_replaces_the_old",
        "rotation::each_step_can_be_repeated",
        EXTERNAL[1],
        "names::hostile_names_reach_nothing",
        "names::listing_is_by_prefix",
        "crash::revoke_can_be_cut_off_anywhere",
        "crash::renew_can_be_cut_off_anywhere",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    conforms("driver-conjur", fixture, &left_out).await;
}

/// What a broken driver left is removed by the mended one, and nobody else's account.
#[tokio::test]
async fn what_a_broken_driver_left_is_cleaned() {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let fixture = KitFixture::postgres_in(&database, "mistake = \"revoke-does-nothing\"").await.unwrap();
    // Somebody's own, with the kit's prefix; the driver could remove it.
    let own = format!("jk-own-{}", database.name);
    let mut broker = database.login(&database.broker, &database.password).await.unwrap();
    broker.execute(AssertSqlSafe(format!("CREATE ROLE \"{own}\" LOGIN"))).await.unwrap();
    // The server has kits of other tests too: what is left here are members of this test's role.
    let left = format!(
        "SELECT count(*)::text FROM pg_roles WHERE rolname LIKE 'jk-%' AND pg_has_role(oid, '{}', 'MEMBER')",
        database.read_only
    );
    let (fixture, report) = spawn_blocking(move || {
        let report = fixture.run("driver-careless", &["lifecycle::it_ends"]);
        (fixture, report.unwrap())
    })
    .await
    .unwrap();
    assert_eq!((report.code, report.cases("failed")), (Some(3), vec!["lifecycle::it_ends"]), "{}", report.told);
    let made = database.value(&left).await.unwrap();
    assert_ne!(made, "0", "{}", report.told);

    let driver = Path::new(&surroundings("JIT_TEST_PLUGINS")).join("driver-careless.wasm");
    let clean = |fixture: &KitFixture| {
        let output = fixture.command(&driver, &["--clean"]).unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    // The broken one says that it removed them, and is not believed.
    let (code, told) = clean(&fixture);
    assert_eq!((code, told.matches("STILL THERE: jk-").count().to_string()), (Some(3), made.clone()), "{told}");
    assert_eq!(database.value(&left).await.unwrap(), made);
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    fixture.write(&text.replace("mistake = \"revoke-does-nothing\"", "")).unwrap();
    let (code, told) = clean(&fixture);
    assert_eq!((code, told.matches("removed jk-").count().to_string()), (Some(0), made), "{told}");
    assert_eq!(database.value(&left).await.unwrap(), "0", "{told}");
    assert!(!told.contains(&own), "{told}");
    let there = database.value(&format!("SELECT count(*)::text FROM pg_roles WHERE rolname = '{own}'")).await.unwrap();
    assert_eq!(there, "1");
    assert!(clean(&fixture).1.contains("nothing is left"));
}

/// The kit's own gate does not hide what the system says.
#[tokio::test]
async fn a_wrong_port_is_told_with_its_address() {
    let fixture = postgres("").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    let host_and_port = text.split("postgres://jit_broker").nth(1).unwrap().split(['@', '/']).nth(1).unwrap();
    fixture.write(&text.replace(host_and_port, &format!("127.0.0.1:{port}"))).unwrap();
    let driver = Path::new(&surroundings("JIT_TEST_PLUGINS")).join("driver-careless.wasm");
    let output = spawn_blocking(move || fixture.command(&driver, &[]).unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("127.0.0.1:{port}, which is the url of [connections.backend]")), "{told}");
    assert!(told.to_lowercase().contains("connection refused"), "{told}");
}

/// A mistake, and what the kit must find it by.
const MISTAKES: [(&str, &[&str]); 13] = [
    ("revoke-does-nothing", &["lifecycle::it_ends", "lifecycle::a_name_alone_is_enough"]),
    ("second-revoke-fails", &["lifecycle::a_second_revocation_succeeds"]),
    ("sessions-stay", &["lifecycle::a_session_ends_with_it", "hostile::one_that_comes_back_stays_out"]),
    ("sessions-first", &["hostile::one_that_comes_back_stays_out"]),
    ("stops-at-a-lock", &["hostile::one_that_holds_all_it_may_is_gone"]),
    ("no-expiry", &["lifecycle::it_is_seen"]),
    ("renew-does-nothing", &["lifecycle::it_is_renewed"]),
    ("takes-over", &["names::a_taken_name_is_a_conflict"]),
    ("one-page", &["names::listing_is_by_prefix"]),
    ("rotate-does-nothing", &["rotation::a_new_password_replaces_the_old"]),
    ("lost-is-refused", &["crash::create_can_be_cut_off_anywhere"]),
    ("validates-anything", &["refusals::a_role_that_is_missing_is_refused"]),
    ("finds-anything", &["names::hostile_names_reach_nothing"]),
];

#[tokio::test]
async fn a_small_driver_without_a_mistake_conforms() {
    let only = ["lifecycle::", "hostile::", "rotation::", "names::", "crash::", "refusals::"];
    let fixture = postgres("").await;
    let report = spawn_blocking(move || fixture.run("driver-careless", &only)).await.unwrap().unwrap();
    report.must_pass_without(&["refusals::a_strange_authority_is_not_trusted"]).unwrap();
}

#[tokio::test]
async fn each_mistake_is_found() {
    for (mistake, found_by) in MISTAKES {
        let fixture = postgres(&format!("mistake = \"{mistake}\"")).await;
        let report = spawn_blocking(move || fixture.run("driver-careless", found_by)).await.unwrap().unwrap();
        assert_eq!((report.cases("failed"), report.code), (found_by.to_vec(), Some(3)), "{mistake}: {}", report.told);
    }
}

/// What an HTTP driver's mistakes are found by, and nothing else but a login would find them.
const MISTAKES_OVER_HTTP: [(&str, &str); 4] = [
    ("no-password", "lifecycle::an_account_logs_in"),
    ("administrators", "lifecycle::it_may_do_what_its_role_may"),
    ("hides", "lifecycle::it_ends"),
    ("only-unchanged", "hostile::one_that_changes_its_password_is_gone"),
];

#[tokio::test]
async fn an_http_driver_without_a_mistake_conforms_and_its_accounts_log_in() {
    let people = People::start().unwrap();
    let fixture = people.fixture("none", BY_REQUESTS).unwrap();
    let report = spawn_blocking(move || fixture.run("driver-people", &[])).await.unwrap().unwrap();
    let left_out = [
        "lifecycle::a_session_ends_with_it",
        "hostile::one_that_holds_all_it_may_is_gone",
        VERIFIERS[0],
        VERIFIERS[1],
        "rotation::a_new_password_replaces_the_old",
        "rotation::each_step_can_be_repeated",
        "refusals::a_strange_authority_is_not_trusted",
        "refusals::missing_permission_is_told",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    report.must_pass_without(&left_out).unwrap();
    assert!(!report.told.contains("NOT TRIED"), "{}", report.told);
}

/// The driver of docs/drivers/recipes.md, against a backend that checks header and hash.
#[tokio::test]
async fn the_example_driver_of_an_awkward_api_conforms() {
    let queues = Queues::start().unwrap();
    let fixture = queues.fixture().unwrap();
    let report = spawn_blocking(move || fixture.run("driver-rabbitmq", &[])).await.unwrap().unwrap();
    let left_out = [
        "lifecycle::a_session_ends_with_it",
        "lifecycle::it_expires_by_itself",
        "hostile::one_that_holds_all_it_may_is_gone",
        "hostile::one_that_changes_its_password_is_gone",
        VERIFIERS[0],
        VERIFIERS[1],
        "rotation::a_new_password_replaces_the_old",
        "rotation::each_step_can_be_repeated",
        "refusals::a_strange_authority_is_not_trusted",
        "refusals::missing_permission_is_told",
        "crash::rotate_can_be_cut_off_anywhere",
    ];
    report.must_pass_without(&left_out).unwrap();
}

#[tokio::test]
async fn each_mistake_of_an_http_driver_is_found_by_logging_in() {
    let people = People::start().unwrap();
    for (mistake, found_by) in MISTAKES_OVER_HTTP {
        let fixture = people.fixture(mistake, BY_REQUESTS).unwrap();
        let report = spawn_blocking(move || fixture.run("driver-people", &[found_by])).await.unwrap().unwrap();
        assert_eq!((report.cases("failed"), report.code), (vec![found_by], Some(3)), "{mistake}: {}", report.told);
    }
}

#[tokio::test]
async fn what_was_not_tried_is_skipped_and_told_last() {
    let people = People::start().unwrap();
    // A driver with every mistake of these, and nobody looks.
    let fixture = people.fixture("no-password", "").unwrap();
    let report = spawn_blocking(move || fixture.run("driver-people", &["lifecycle::"])).await.unwrap().unwrap();
    assert_eq!((report.cases("failed"), report.code), (Vec::new(), Some(0)), "{}", report.told);
    let skipped = [
        "lifecycle::an_account_logs_in",
        "lifecycle::it_may_do_what_its_role_may",
        "lifecycle::a_session_ends_with_it",
        "lifecycle::it_expires_by_itself",
    ];
    assert_eq!(report.cases("skipped"), skipped);
    assert!(report.detail("lifecycle::it_ends").contains("was not tried"), "{:#}", report.json);
    let last = report.told.trim_end().lines().last().unwrap_or_default();
    assert!(last.starts_with("NOT TRIED: whether accounts can log in"), "{}", report.told);
}

#[tokio::test]
async fn a_command_can_log_in_too() {
    let people = People::start().unwrap();
    let login = r#"
[conformance.login]
kind = "command"
command = ["sh", "-c", "exit 1", "sh", "{name}"]
"#;
    let fixture = people.fixture("none", login).unwrap();
    let only = ["lifecycle::an_account_logs_in"];
    let report = spawn_blocking(move || fixture.run("driver-people", &only)).await.unwrap().unwrap();
    assert_eq!(report.cases("failed"), only, "the command says no: {}", report.told);
    assert!(report.detail(only[0]).contains("cannot log in"), "{:#}", report.json);
}

#[tokio::test]
async fn the_report_is_there_for_people_and_for_ci() {
    let fixture = postgres("").await;
    let component = std::path::Path::new(&surroundings("JIT_TEST_PLUGINS")).join("driver-careless.wasm");
    let run = |arguments: &[&str]| {
        let output = fixture.command(&component, arguments).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, table, told) = run(&["--only", "it_ends"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(table.contains("lifecycle::it_ends") && table.contains("passed") && told.contains("1 passed"), "{table}");
    let (_, junit, _) = run(&["--only", "it_ends", "--format", "junit"]);
    assert!(junit.contains("<testcase classname=\"driver-careless\" name=\"lifecycle::it_ends\""), "{junit}");
    let report = fixture.folder().join("report.json");
    let (_, nothing, _) = run(&["--only", "it_ends", "--format", "json", "--output", &report.display().to_string()]);
    assert!(nothing.is_empty() && std::fs::read_to_string(report).unwrap().contains("\"verdict\": \"passed\""));
    let (code, _, told) = run(&["--only", "no_such_case"]);
    assert!(code == Some(1) && told.contains("--list"), "{told}");
}
