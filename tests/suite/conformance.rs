//! The conformance kit: each shipped driver passes it on its real server, and it finds each mistake
//! of a careless one.

use jit_tests::kit::KitFixture;
use jit_tests::{Database, surroundings};
use tokio::task::spawn_blocking;

/// A database of PostgreSQL, and a role of it that may make no roles.
async fn postgres(config: impl Fn(&Database) -> String) -> KitFixture {
    let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let weak = format!("weak_{}", database.name);
    let password = &database.password;
    database.execute(&format!("CREATE ROLE {weak} LOGIN PASSWORD '{password}'")).await.unwrap();
    KitFixture::postgres(&database, &weak, &config(&database)).unwrap()
}

#[tokio::test]
async fn the_postgres_driver_conforms() {
    let fixture = postgres(|database| format!("reassign_owned_to = \"{}\"", database.owner)).await;
    let report = spawn_blocking(move || fixture.run("driver-postgres", &[])).await.unwrap().unwrap();
    report.must_pass_without(&["refusals::a_strange_authority_is_not_trusted"]).unwrap();
}

/// A mistake, and what the kit must find it by.
const MISTAKES: [(&str, &[&str]); 11] = [
    ("revoke-does-nothing", &["lifecycle::it_ends", "lifecycle::a_name_alone_is_enough"]),
    ("second-revoke-fails", &["lifecycle::a_second_revocation_succeeds"]),
    ("sessions-stay", &["lifecycle::a_session_ends_with_it"]),
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
    let only = ["lifecycle::", "rotation::", "names::", "crash::", "refusals::"];
    let fixture = postgres(|_| String::new()).await;
    let report = spawn_blocking(move || fixture.run("driver-careless", &only)).await.unwrap().unwrap();
    report.must_pass_without(&["refusals::a_strange_authority_is_not_trusted"]).unwrap();
}

#[tokio::test]
async fn each_mistake_is_found() {
    for (mistake, found_by) in MISTAKES {
        let fixture = postgres(|_| format!("mistake = \"{mistake}\"")).await;
        let report = spawn_blocking(move || fixture.run("driver-careless", found_by)).await.unwrap().unwrap();
        assert_eq!((report.cases("failed"), report.code), (found_by.to_vec(), Some(3)), "{mistake}: {}", report.told);
    }
}

#[tokio::test]
async fn the_report_is_there_for_people_and_for_ci() {
    let fixture = postgres(|_| String::new()).await;
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
