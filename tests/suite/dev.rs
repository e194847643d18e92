//! `jit-broker dev` as docs/dev.md has it: each command of that page, starts that fail, and starts with other flags.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jit_tests::database::Database;
use jit_tests::page::commands;
use jit_tests::surroundings;
use serde_json::Value;
use tempfile::TempDir;
use xtask::dist;

/// Longer than any start: a test that fails ends after it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder to work in, with a database, as docs/start.md leaves it.
struct Place {
    folder: TempDir,
    database: Database,
    listen: String,
    issuer: String,
    /// The program under test.
    program: PathBuf,
}

impl Place {
    async fn new() -> Self {
        let folder = TempDir::with_prefix("jit-").unwrap();
        let database = Database::create(&surroundings("JIT_TEST_POSTGRES")).await.unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        let secret = folder.path().join("secrets/inventory");
        std::fs::write(&secret, &database.password).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::create_dir(folder.path().join("target")).unwrap();
        std::os::unix::fs::symlink(surroundings("JIT_TEST_PLUGINS"), folder.path().join("target/plugins")).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let program = PathBuf::from(surroundings("JIT_TEST_BROKER"));
        Self { folder, database, listen: free(), issuer: free(), program }
    }

    /// A block of the page with this place's addresses and names.
    fn block(&self, place: usize) -> String {
        let blocks = commands("docs/dev.md", "dev");
        assert_eq!(blocks.len(), 4);
        let Database { host, port, name, broker, read_only, owner, .. } = &self.database;
        blocks[place]
            .replace("jit_broker@127.0.0.1:5432/inventory", &format!("{broker}@{host}:{port}/{name}"))
            .replace("app_read_only", read_only)
            .replace("inventory_owner", owner)
            .replace("127.0.0.1:8701", &self.issuer)
    }

    /// A shell in which `jit-broker` is the broker under test.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        let script = format!("jit-broker() {{ exec {} \"$@\"; }}\n{script}", self.program.display());
        command.args(["-ec", &script]).current_dir(self.folder.path()).env_remove("JIT_CONFIG").stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    fn run(&self, script: &str) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.shell(script).output().unwrap();
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    /// Serves, at this place's addresses.
    fn serve(&self, script: &str, flags: &str) -> Serving {
        let script = format!("{} --issuer {} {flags}", script.trim_end(), self.issuer);
        let mut child = self.shell(&script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let told = send.clone();
        std::thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        std::thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).try_for_each(|l| told.send(l)));
        let mut text = String::new();
        // The last line that a start prints is the second line of the curl command.
        while !text.contains("-d '{\"target\"") {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => text.push_str(&(line + "\n")),
                Err(_) => {
                    let _ = child.kill();
                    panic!("it does not serve:\n{text}");
                }
            }
        }
        Serving { child, text }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("jit-dev/broker.toml")
    }
}

/// A broker that serves, and what it said.
struct Serving {
    child: Child,
    text: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

impl Serving {
    /// The commands that it printed, to get a token and an account.
    fn commands(&self) -> String {
        let lines = self.text.lines().skip_while(|line| !line.trim_start().starts_with("TOKEN="));
        lines.take(3).map(|line| line.to_owned() + "\n").collect()
    }
}

#[tokio::test]
async fn a_failed_start_decides_nothing_and_what_it_prints_gets_an_account() {
    let place = Place::new().await;
    let first = place.block(0);
    let listen = format!("--listen {}", place.listen);
    let (code, told) = place.run(&format!("{} --plugins nowhere", first.trim_end()));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("driver-postgres.wasm") && told.contains("cargo xtask plugins"), "{told}");
    assert!(!place.config().exists(), "{told}");
    // This one fails late: its port is taken.
    let taken = TcpListener::bind(&place.listen).unwrap();
    let (code, told) = place.run(&format!("{} --issuer {} {listen}", first.trim_end(), place.issuer));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains(&place.listen), "{told}");
    assert!(!place.config().exists(), "{told}");
    drop(taken);

    // This one serves, and its role is one that the database does not have: that is said, and nothing is kept.
    let wrong = first.replace(&place.database.read_only, "no_such_role");
    let serving = place.serve(&wrong, &listen);
    let said = "this start's flags are kept for the next one when the target is in order";
    assert!(serving.text.contains("no_such_role") && serving.text.contains(said), "{}", serving.text);
    drop(serving);
    assert!(!place.config().exists());

    let serving = place.serve(&first, &listen);
    assert!(!serving.text.contains(said), "{}", serving.text);
    for line in [format!("broker   http://{}", place.listen), format!("issuer   http://{}", place.issuer)] {
        assert!(serving.text.contains(&line), "{}", serving.text);
    }
    let (code, reply) = place.run(&serving.commands());
    assert_eq!(code, Some(0), "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let text = |pointer: &str| reply.pointer(pointer).unwrap().as_str().unwrap();
    place.database.login(text("/credential/username"), text("/credential/password")).await.unwrap();

    // Its tokens, as the page has them: two as text, one as JSON.
    let (code, tokens) = place.run(&place.block(2));
    assert_eq!((code, tokens.matches("eyJ0eXAiOiJKV1Qi").count()), (Some(0), 3), "{tokens}");
}

#[tokio::test]
async fn later_starts_take_flags_until_the_file_is_edited_and_then_refuse_what_contradicts_it() {
    let place = Place::new().await;
    drop(place.serve(&place.block(0), &format!("--listen {}", place.listen)));
    let made = std::fs::read_to_string(place.config()).unwrap();

    // Without flags; and with one more attribute, which a policy reads from a claim.
    drop(place.serve(&place.block(1), ""));
    let edited =
        made.replace("rules = [{ workload = \"*\",", "rules = [{ workload = \"*\", attributes = { tier = \"batch\" },");
    assert_ne!(edited, made);
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let moved = place.serve(&place.block(1), &format!("--listen {other}"));
    assert!(moved.text.contains(&format!("broker   http://{other}")), "{}", moved.text);
    assert!(moved.text.contains("broker.toml again"), "{}", moved.text);
    drop(moved);

    std::fs::write(place.config(), &edited).unwrap();
    let (code, told) = place.run(&format!("jit-broker dev --listen {other} --role nobody"));
    assert_eq!(code, Some(1), "{told}");
    let line = edited.lines().position(|line| line.starts_with("listen")).unwrap() + 1;
    assert!(told.contains(&format!("jit-dev/broker.toml:{line}:")), "{told}");
    assert!(told.contains(&format!("--listen {other}")) && told.contains("--role nobody"), "{told}");

    let serving = place.serve(&place.block(3), "");
    let (code, denied) = place.run(&serving.commands());
    assert_eq!(code, Some(0), "{denied}");
    assert!(denied.contains("policy-denied"), "{denied}");
    let (code, granted) = place.run(&serving.commands().replace("?workload", "?claim.tier=batch&workload"));
    assert_eq!(code, Some(0), "{granted}");
    assert!(granted.contains("\"lease_id\""), "{granted}");
    assert_eq!(std::fs::read_to_string(place.config()).unwrap(), edited);
}

#[tokio::test]
async fn without_a_password_it_says_what_a_database_will_ask_for() {
    let place = Place::new().await;
    let first = place.block(0).replace("--password-file secrets/inventory", "");
    let serving = place.serve(&first, &format!("--listen {}", place.listen));
    assert!(serving.text.contains("--password-file"), "{}", serving.text);
}

/// What `cargo xtask dist` puts together, unpacked in another place: programs that know nothing of a source tree.
#[tokio::test]
async fn what_is_shipped_runs_without_the_source_tree() {
    let mut place = Place::new().await;
    std::fs::remove_file(place.folder.path().join("target/plugins")).unwrap();
    let built = |name: &String| Path::new(&surroundings("JIT_TEST_PLUGINS")).join(format!("{name}.wasm"));
    let plugins: Vec<PathBuf> = dist::shipped_plugins().unwrap().iter().map(built).collect();
    let programs = [place.program.clone(), PathBuf::from(surroundings("JIT_TEST_AGENT"))];
    let out = place.folder.path().join("out");
    let made = dist::assemble(&programs, &plugins, &out).unwrap();
    let elsewhere = place.folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (archive, name) = (made.archive.display().to_string(), made.folder.file_name().unwrap().to_owned());
    std::fs::remove_dir_all(&made.folder).unwrap();
    let unpack = format!("tar -xzf {archive} -C elsewhere && cd elsewhere/* && sha256sum --quiet --check SHA256SUMS");
    let (code, told) = place.run(&unpack);
    assert_eq!(code, Some(0), "{told}");
    let shipped = elsewhere.join(name);
    place.program = shipped.join("bin/jit-broker");

    // Its example names plugins that are there: what is missing is only what an operator makes.
    let (code, told) = place.run(&format!("cd {} && jit-broker config check --offline", shipped.display()));
    assert_eq!(code, Some(3), "{told}");
    assert!(!told.contains(".wasm"), "{told}");

    let serving = place.serve(&place.block(0), &format!("--listen {}", place.listen));
    let (code, reply) = place.run(&serving.commands());
    assert_eq!(code, Some(0), "{reply}");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    let text = |pointer: &str| reply.pointer(pointer).unwrap().as_str().unwrap();
    place.database.login(text("/credential/username"), text("/credential/password")).await.unwrap();
    let config = std::fs::read_to_string(place.config()).unwrap();
    assert!(config.contains(&shipped.join("plugins/driver-postgres.wasm").display().to_string()), "{config}");
}
