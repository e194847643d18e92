//! sdk/examples: five services that query all the time while their account changes, all at once
//! against one broker and one PostgreSQL; and docs/clients.md, which shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jit_tests::world::{eventually, read};
use jit_tests::{World, ingredients, surroundings};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How often each account has to change while queries run.
const CHANGES: usize = 5;
/// The life of an account; a new one is made at 80 % of it, at the latest.
const TTL: &str = "8s";
/// The fewest queries that count as "all the time": a shell starts `psql` for each.
const LEAST_QUERIES: u64 = 40;
/// The bound for a service that fails; none waits for it otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn example(name: &str) -> PathBuf {
    root().join("sdk/examples").join(name)
}

/// What a service is told of its surroundings.
struct Place {
    broker: String,
    folder: PathBuf,
    token: PathBuf,
}

impl Place {
    /// A folder of a service's own, with its workload's token.
    async fn new(world: &World, name: &str) -> Self {
        let client = world.client();
        let folder = world.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let token = folder.join("token");
        fs::write(&token, client.token(&format!("payment-{name}")).await.unwrap()).unwrap();
        Self { broker: client.broker, folder, token }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("JIT_BROKER_URL", &self.broker)
            .env("JIT_TOKEN_FILE", &self.token)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// As a pod starts: the init container's command to its end, then the sidecar. The file's ending says
    /// which form it has.
    async fn sidecar(&self, ending: &str) -> (Child, PathBuf) {
        let file = self.folder.join(format!("db.{ending}"));
        let agent = surroundings("JIT_TEST_AGENT");
        let log = fs::File::create(self.log("agent.log")).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = self.command(&agent);
            command.args(arguments).arg("--out").arg(&file);
            command.stdout(Stdio::null()).stderr(log.try_clone().unwrap());
            command
        };
        let fetched = run(&["fetch", "--target", "inventory_db"]).status().await.unwrap();
        assert!(fetched.success(), "{fetched}: {}", read(&self.log("agent.log")).unwrap());
        (run(&["renew", "--revoke-on-exit"]).spawn().unwrap(), file)
    }
}

/// A running service.
struct Service {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    sidecar: Option<Child>,
}

impl Service {
    fn start(name: &'static str, place: &Place, mut command: Command, sidecar: Option<Child>) -> Self {
        let log = place.log("service.log");
        let mut child = command.stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { name, child, lines, log, sidecar }
    }

    /// The next line that it says, until its end.
    async fn says(&mut self) -> Option<Value> {
        match tokio::time::timeout(PATIENCE, self.lines.next_line()).await {
            Ok(Ok(line)) => {
                line.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
            }
            other => panic!("{}: {other:?}: {}", self.name, self.log()),
        }
    }

    fn log(&self) -> String {
        read(&self.log).unwrap_or_default()
    }

    /// Lets it run until its account has changed often enough, stops it as a platform does, and looks
    /// at what it counted. Gives the accounts.
    async fn run(mut self) -> Vec<String> {
        let mut accounts = Vec::new();
        while accounts.len() <= CHANGES {
            let said = self.says().await.unwrap_or_else(|| panic!("{} ended: {}", self.name, self.log()));
            // A script that is started again with each account counts its lives together.
            accounts.extend(said["account"].as_str().map(str::to_owned));
        }
        terminate(&self.child);
        let mut counted = Value::Null;
        while let Some(said) = self.says().await {
            if said["queries"].is_u64() {
                counted = said;
            }
        }
        let log = self.log();
        assert_eq!(counted["failed"], 0, "{}: {counted}\n{log}", self.name);
        assert!(counted["queries"].as_u64().unwrap() >= LEAST_QUERIES, "{}: {counted}", self.name);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        // A JVM that was terminated says so by its code, although its hooks have run.
        assert!(ended.success() || ended.code() == Some(143), "{}: {ended}\n{log}", self.name);
        if let Some(mut sidecar) = self.sidecar {
            terminate(&sidecar);
            let ended = tokio::time::timeout(PATIENCE, sidecar.wait()).await.unwrap().unwrap();
            assert!(ended.success(), "{}: the agent: {ended}", self.name);
        }
        eprintln!("{}: {counted}", self.name);
        accounts
    }
}

fn terminate(child: &Child) {
    let pid = child.id().unwrap();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
}

async fn rust(world: &World) -> Service {
    let place = Place::new(world, "rust").await;
    let command = place.command(&surroundings("JIT_TEST_EXAMPLE_RUST"));
    Service::start("rust", &place, command, None)
}

async fn python(world: &World) -> Service {
    let place = Place::new(world, "python").await;
    let mut command = place.command(&surroundings("JIT_TEST_PYTHON"));
    command
        .arg(example("python-psycopg/service.py"))
        .env("PYTHONPATH", surroundings("JIT_TEST_PYTHON_PATH"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Service::start("python", &place, command, None)
}

async fn node(world: &World) -> Service {
    let place = Place::new(world, "node").await;
    let (sidecar, file) = place.sidecar("json").await;
    let mut command = place.command(&surroundings("JIT_TEST_NODE"));
    command
        .arg(example("node-pg/service.js"))
        .env("NODE_PATH", surroundings("JIT_TEST_NODE_PATH"))
        .env("JIT_CREDENTIALS", file);
    Service::start("node", &place, command, Some(sidecar))
}

async fn java(world: &World) -> Service {
    let place = Place::new(world, "java").await;
    let (jars, classes) = (surroundings("JIT_TEST_CLASSPATH"), place.folder.join("classes"));
    let mut javac = place.command(&surroundings("JIT_TEST_JAVAC"));
    javac.args(["-Xlint:all", "-Werror", "-cp", &jars, "-d"]).arg(&classes);
    let compiled =
        javac.args(["RotatingDataSource.java", "Service.java"].map(|file| example("java-hikari").join(file)));
    let compiled = compiled.output().await.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    // After the compiler: it may take longer than an account lives.
    let (sidecar, file) = place.sidecar("properties").await;
    let mut command = place.command(&surroundings("JIT_TEST_JAVA"));
    command
        .args(["-Xshare:auto", "-Xmx128m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(format!("{}:{jars}", classes.display()))
        .arg("Service")
        .env("JIT_CREDENTIALS", file);
    Service::start("java", &place, command, Some(sidecar))
}

async fn shell(world: &World) -> Service {
    let place = Place::new(world, "shell").await;
    let mut command = place.command("sh");
    let psql = surroundings("JIT_TEST_PSQL");
    command.arg(example("shell-agent/run.sh")).env("JIT_AGENT", surroundings("JIT_TEST_AGENT")).env("PSQL", psql);
    Service::start("shell", &place, command, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_fails_while_accounts_change_in_five_languages() {
    let mut world = World::prepared(jit_tests::Settings::default()).await;
    let config = read(&world.config()).unwrap();
    let brief = config.replace("default_ttl = \"1h\"\nmax_ttl = \"8h\"", &format!("default_ttl = \"{TTL}\""));
    assert_ne!(brief, config);
    fs::write(world.config(), brief).unwrap();
    world.start(&[]).await;

    let (rust, python, node, java, shell) = tokio::join!(
        async { Some(rust(&world).await.run().await) },
        async {
            if ingredients::is_here("python", "the Python example") {
                Some(python(&world).await.run().await)
            } else {
                None
            }
        },
        async {
            if ingredients::is_here("node", "the Node example") { Some(node(&world).await.run().await) } else { None }
        },
        async {
            if ingredients::is_here("java", "the Java example") { Some(java(&world).await.run().await) } else { None }
        },
        async {
            if ingredients::is_here("psql", "the shell example") { Some(shell(&world).await.run().await) } else { None }
        },
    );
    let granted = world.events("issue.granted");
    for (name, accounts) in [("rust", rust), ("python", python), ("node", node), ("java", java), ("shell", shell)] {
        let Some(accounts) = accounts else { continue };
        // They are the accounts that were made for this workload, each another one.
        let workload = format!("payment-{name}");
        for account in &accounts {
            let mine =
                granted.iter().filter(|event| event["workload"] == *workload && event["ephemeral_id"] == **account);
            assert_eq!(mine.count(), 1, "{name}: {account}");
        }
    }
    eventually("no account is left", async || world.accounts().await.is_empty()).await;
    world.assert_settled(&[]).await;
}

/// What a reader copies from the page is what the suite runs.
#[test]
fn each_snippet_of_the_page_is_in_the_file_that_it_names() {
    let page = read(&root().join("docs/clients.md")).unwrap();
    let seen = snippets("docs/clients.md", &page);
    for folder in fs::read_dir(example("")).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let name = folder.file_name().into_string().unwrap();
        // A driver is shown on the page of recipes.
        let is_service = !name.starts_with("driver-");
        assert!(!is_service || seen.iter().any(|file| file.contains(&name)), "docs/clients.md shows nothing of {name}");
        assert!(folder.path().join("README.md").is_file(), "{name} has no README.md");
    }
    // Every block of code on it is checked, or is a command.
    for block in page.split("\n```").skip(1).step_by(2) {
        let language = block.lines().next().unwrap();
        let before = &page[..page.find(&format!("\n```{block}")).unwrap()];
        assert!(before.lines().last().unwrap().starts_with("<!-- from ") || language == "text", "{language}: {block}");
    }
}

#[test]
fn each_snippet_of_the_recipes_is_in_the_driver_that_the_suite_runs() {
    let page = read(&root().join("docs/drivers/recipes.md")).unwrap();
    let seen = snippets("docs/drivers/recipes.md", &page);
    assert!(seen.len() >= 8 && page.matches("```rust").count() == seen.len(), "{seen:?}");
}

/// The files whose lines a page shows, after each snippet was found in its file.
fn snippets(name: &str, page: &str) -> Vec<String> {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    for part in page.split("<!-- from ").skip(1) {
        let (file, rest) = part.split_once(" -->\n```").unwrap();
        let (_, snippet) = rest.split_once('\n').unwrap();
        let snippet = lines(snippet.split("\n```").next().unwrap());
        let text = lines(&read(&root().join(file)).unwrap());
        let found = text.windows(snippet.len()).any(|window| window == snippet);
        assert!(!snippet.is_empty() && found, "{file} has not what {name} shows of it:\n{}", snippet.join("\n"));
        seen.push(file.to_owned());
    }
    seen
}
