//! A driver from nothing to a green kit, as docs/drivers/conformance.md has it: `plugin new`, `build`, `check` and
//! `test` with the fixture that was written, against a real server, for each world.

use std::path::{Path, PathBuf};
use std::process::Command;

use jit_tests::database::Database;
use jit_tests::kit::VERIFIERS;
use jit_tests::kit::directory::Administered;
use jit_tests::kit::people::People;
use jit_tests::page::commands;
use jit_tests::{random_name, setup, surroundings};
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::spawn_blocking;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What a driver without the feature `rotate` leaves out.
const ROTATION: [&str; 3] = [
    "rotation::a_new_password_replaces_the_old",
    "rotation::each_step_can_be_repeated",
    "crash::rotate_can_be_cut_off_anywhere",
];

/// The blocks of the page that say that they are run here.
fn blocks() -> Vec<String> {
    let blocks = commands("docs/drivers/conformance.md", "new_drivers");
    assert_eq!(blocks.len(), 2);
    blocks
}

/// A new driver's project for a world, by the page's first block.
struct Project {
    folder: PathBuf,
    name: String,
}

impl Project {
    fn new(world: &str) -> Self {
        // In one place, run after run, with one target folder: what the SDK needs is compiled once.
        let folder = root().join("target/suite/new-drivers").join(world);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!("my-{world}-backend");
        let block = blocks()[0].replace("--world sql", &format!("--world {world}"));
        assert!(block.contains(&format!("--world {world}")), "{block}");
        let told = shell(&folder, &block.replace("my-backend", &name));
        assert!(told.contains("a broker can load it"), "{told}");
        Self { folder: folder.join(&name), name }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap()
    }

    /// Puts these texts in the place of those that the fixture has, each of which must be there.
    fn fixture(&self, replaced: &[(&str, &str)]) {
        let mut text = self.read("fixture.toml");
        for (from, to) in replaced {
            assert!(text.contains(from), "{from} is not in the fixture:\n{text}");
            text = text.replace(from, to);
        }
        std::fs::write(self.folder.join("fixture.toml"), text).unwrap();
    }

    fn secret(&self, name: &str, value: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(self.folder.join("secrets")).unwrap();
        let path = self.folder.join("secrets").join(name);
        std::fs::write(&path, value).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The page's second block: green, without these cases, and with the README's own line.
    async fn turns_green(self, left_out: &[&str]) {
        let block = blocks()[1].replace("my-backend", &self.name);
        assert!(self.read("README.md").contains(block.trim()), "the README says it differently:\n{block}");
        let told = spawn_blocking(move || shell(&self.folder, &block)).await.unwrap();
        let left_there = told.lines().filter(|line| line.contains(" n/a ") || line.contains(" skipped "));
        let left: Vec<&str> =
            left_there.filter_map(|line| line.split_whitespace().find(|word| word.contains("::"))).collect();
        assert!(told.contains(" 0 failed"), "{told}");
        assert_eq!(left, left_out, "{told}");
    }
}

/// Runs commands of the page, of which none may fail; returns what they printed. Wide, so that no row is broken.
fn shell(folder: &Path, script: &str) -> String {
    let target = root().join("target/suite/new-drivers/target");
    std::fs::create_dir_all(&target).unwrap();
    // What cargo makes of one project is there for the next.
    let script = format!(
        "jit-broker() {{\n{} \"$@\"\nif [ \"$2\" = new ]; then ln -s {} \"$4/target\"; fi\n}}\n{script}",
        surroundings("JIT_TEST_BROKER"),
        target.display()
    );
    let output = Command::new("bash")
        .args(["-ec", &script])
        .current_dir(folder)
        .env("COLUMNS", "400")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}\n{told}");
    told
}

/// `setup.sql` of the project, in a database of its own and with names of its own: roles are the server's.
async fn set_up(project: &Project) -> [(&'static str, String); 4] {
    let server = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
    let own = |name: &str| format!("{name}_{}", random_name());
    let names =
        ["inventory", "readers", "jit_broker", "nobody_special"].map(|documented| (documented, own(documented)));
    server.execute(&format!("CREATE DATABASE {}", names[0].1)).await.unwrap();
    let password = random_name() + &random_name();
    let replaced: Vec<(&str, &str)> = names.iter().map(|(name, own)| (*name, own.as_str())).collect();
    let text = setup::with_names(&project.read("setup.sql"), &replaced).replace('…', &password);
    let mut inside = server.superuser_of(&names[0].1).await.unwrap();
    for statement in setup::statements(&text) {
        inside.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    project.secret("broker", &password);
    project.secret("nobody", &password);
    project.fixture(&[("127.0.0.1:5432", &format!("{}:{}", server.host, server.port))]);
    names
}

#[tokio::test]
async fn a_driver_of_a_database_from_nothing_to_a_green_kit() {
    let project = spawn_blocking(|| Project::new("sql")).await.unwrap();
    let [(_, database), (_, readers), (_, broker), (_, nobody)] = set_up(&project).await;
    project.fixture(&[
        ("jit_broker@", &format!("{broker}@")),
        ("nobody_special@", &format!("{nobody}@")),
        ("/inventory\"", &format!("/{database}\"")),
        ("group = \"readers\"", &format!("group = \"{readers}\"")),
    ]);
    let strange = "refusals::a_strange_authority_is_not_trusted";
    project.turns_green(&[VERIFIERS[0], VERIFIERS[1], ROTATION[0], ROTATION[1], strange, ROTATION[2]]).await;
}

#[tokio::test]
async fn a_driver_of_a_directory_from_nothing_to_a_green_kit() {
    let project = spawn_blocking(|| Project::new("ldap")).await.unwrap();
    let Administered { url, ca, broker: (broker, password), .. } = Administered::openldap();
    let weak = format!("cn=weak-{},ou=services,dc=example,dc=test", random_name());
    let weak_password = format!("weak-{}{}", random_name(), random_name());
    let mut admin = Administered::openldap().connect().unwrap();
    let classes: &[&[u8]] = &[b"applicationProcess", b"simpleSecurityObject"];
    let attributes = [("objectClass", classes), ("userPassword", &[weak_password.as_bytes()])];
    assert_eq!(admin.add(&weak, &attributes).unwrap(), 0);
    project.secret("broker", &password);
    project.secret("nobody", &weak_password);
    project.fixture(&[
        ("ldaps://localhost:636", &url),
        ("\"ca.pem\"", &format!("\"{ca}\"")),
        ("cn=jit-broker,ou=services,dc=example,dc=test", &broker),
        ("cn=nobody-special,ou=services,dc=example,dc=test", &weak),
    ]);
    let left_out = [
        "lifecycle::it_may_do_what_its_role_may",
        "lifecycle::it_is_renewed",
        "lifecycle::a_session_ends_with_it",
        "lifecycle::it_expires_by_itself",
        "hostile::one_that_holds_all_it_may_is_gone",
        "hostile::one_that_changes_its_password_is_gone",
        VERIFIERS[0],
        VERIFIERS[1],
        ROTATION[0],
        ROTATION[1],
        "crash::renew_can_be_cut_off_anywhere",
        ROTATION[2],
    ];
    project.turns_green(&left_out).await;
}

#[tokio::test]
async fn a_driver_of_an_api_from_nothing_to_a_green_kit() {
    let project = spawn_blocking(|| Project::new("http")).await.unwrap();
    let people = People::start().unwrap();
    project.secret("token", people.token());
    project.fixture(&[("127.0.0.1:8080", &people.address().to_string())]);
    let left_out = [
        "lifecycle::a_session_ends_with_it",
        "hostile::one_that_holds_all_it_may_is_gone",
        VERIFIERS[0],
        VERIFIERS[1],
        ROTATION[0],
        ROTATION[1],
        "refusals::a_strange_authority_is_not_trusted",
        "refusals::missing_permission_is_told",
        ROTATION[2],
    ];
    project.turns_green(&left_out).await;
}
