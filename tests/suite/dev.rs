//! `jit-broker dev` as docs/dev.md has it: each command of that page, starts that fail, and starts with other flags.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jit_tests::database::Database;
use jit_tests::page::commands;
use jit_tests::surroundings;
use serde_json::Value;
use tempfile::TempDir;

/// Longer than any start: a test that fails ends after it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder to work in, with a database, as docs/start.md leaves it.
struct Place {
    folder: TempDir,
    database: Database,
    listen: String,
    issuer: String,
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
        Self { folder, database, listen: free(), issuer: free() }
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
        let script = format!("jit-broker() {{ exec {} \"$@\"; }}\n{script}", surroundings("JIT_TEST_BROKER"));
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

    let serving = place.serve(&first, &listen);
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
