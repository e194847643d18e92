//! The agent as pods and people use it, against a real broker and a real PostgreSQL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jit_tests::agent::{names, variable};
use jit_tests::world::eventually;
use jit_tests::{AgentProcess, Agents, Relay, Settings, World};
use serde_json::Value;

/// A world with a folder for credentials and agents that reach its broker through a relay.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) relay: Relay,
    pub(crate) agents: Agents,
    /// Where credentials go.
    pub(crate) folder: PathBuf,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let world = World::with(Settings::default()).await;
        let client = world.client();
        let token = world.folder.path().join("workload.token");
        std::fs::write(&token, client.token("payment-service").await.unwrap()).unwrap();
        let relay = Relay::before(&client.broker).await;
        let agents = Agents { broker: relay.url.clone(), token };
        let folder = world.folder.path().join("creds");
        std::fs::create_dir(&folder).unwrap();
        Self { world, relay, agents, folder }
    }

    /// A file in the folder, for a command line.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Whether the database takes what an env file holds.
    pub(crate) async fn is_good(&self, file: &str) -> bool {
        let file = Path::new(file);
        let (Some(user), Some(password)) = (variable(file, "DB_USERNAME"), variable(file, "DB_PASSWORD")) else {
            return false;
        };
        self.world.database.login(&user, &password).await.is_ok()
    }

    pub(crate) fn fetch(&self, out: &str, more: &[&str]) {
        let arguments = [&["fetch", "--target", "inventory_db", "--out", out], more].concat();
        let output = self.agents.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) async fn nothing_is_left(&self) {
        eventually("no account is left", async || self.world.accounts().await.is_empty()).await;
    }

    /// Waits until a file holds another account than this.
    pub(crate) async fn account_after(&self, file: &str, account: &str) -> String {
        let present = || variable(Path::new(file), "DB_USERNAME").unwrap_or_default();
        eventually("another account", async || !present().is_empty() && present() != account).await;
        present()
    }
}

fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_as_it_is_usually_written_has_one_account_that_is_renewed() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    // The two commands of the usual pod specification; the term is short so that a test sees it renewed.
    let init =
        stage.agents.command(&["fetch", "--target", "inventory_db", "--out", &out]).env("JIT_TTL", "6s").output();
    let init = init.unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    assert_eq!(
        (mode(&out), names(&stage.folder)),
        (0o600, vec![".db.env.jit-agent.json".to_owned(), "db.env".to_owned()])
    );
    let account = variable(Path::new(&out), "DB_USERNAME").unwrap();
    let password = variable(Path::new(&out), "DB_PASSWORD").unwrap();
    let state = std::fs::read_to_string(stage.path(".db.env.jit-agent.json")).unwrap();
    assert!(state.contains(&account) && !state.contains(&password), "{state}");
    let written = std::fs::metadata(&out).unwrap().modified().unwrap();

    let mut sidecar = stage.agents.start(&["renew", "--interval", "48m", "--out", &out]);
    eventually("it is renewed", async || stage.world.events("lease.renewed").len() >= 2).await;
    assert!(stage.is_good(&out).await);
    assert_eq!(stage.world.events("issue.granted").len(), 1, "one account for the pod");
    assert_eq!(stage.world.accounts().await, [account.as_str()]);
    assert_eq!(std::fs::metadata(&out).unwrap().modified().unwrap(), written, "the file changes with the account only");

    // A container that is started again goes on with the same lease.
    sidecar.kill();
    let mut sidecar = stage.agents.start(&["renew", "--interval", "48m", "--out", &out, "--revoke-on-exit"]);
    let renewed = stage.world.events("lease.renewed").len();
    eventually("it is renewed again", async || stage.world.events("lease.renewed").len() > renewed).await;
    assert_eq!(stage.world.accounts().await, [account]);
    assert!(sidecar.log().contains("took the lease over"), "{}", sidecar.log());
    assert!(sidecar.stop().success());
    stage.nothing_is_left().await;
    let log = sidecar.log();
    assert!(!log.contains(&password), "{log}");
    stage.world.assert_settled(&[]).await;
}

fn is_in_memory(folder: &Path) -> bool {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim() == "tmpfs"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_warned_of_and_memory_is_not() {
    let stage = Stage::new().await;
    for folder in [stage.folder.clone(), PathBuf::from("/dev/shm")] {
        if !folder.is_dir() {
            continue;
        }
        let inside = tempfile::tempdir_in(&folder).unwrap();
        let out = inside.path().join("db.env").display().to_string();
        let output = stage.agents.run(&["fetch", "--target", "inventory_db", "--out", &out]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(log.contains("memory-backed volume"), !is_in_memory(inside.path()), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_new_accounts_are_written_whole_and_told() {
    let stage = Stage::new().await;
    let (out, told) = (stage.path("db.env"), stage.path("told"));
    let on_rotate = format!("exec:cat $JIT_OUT >>{told}");
    let mut agent = stage.agents.start(&[
        "renew",
        "--target",
        "inventory_db",
        "--ttl",
        "5s",
        "--new-account",
        "--out",
        &out,
        "--mode",
        "0640",
        "--on-rotate",
        &on_rotate,
        "--revoke-on-exit",
    ]);
    eventually("the first", async || stage.is_good(&out).await).await;
    let mut accounts = vec![variable(Path::new(&out), "DB_USERNAME").unwrap()];
    while accounts.len() < 6 {
        // A reader at any moment sees a whole file whose credential works.
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.starts_with("DB_USERNAME=") && text.lines().count() == 6 && text.ends_with('\n'), "{text}");
        assert!(stage.is_good(&out).await || variable(Path::new(&out), "DB_USERNAME").as_ref() != accounts.last());
        let now = variable(Path::new(&out), "DB_USERNAME").unwrap();
        if accounts.last() != Some(&now) {
            accounts.push(now);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(mode(&out), 0o640);
    eventually("they are told", async || {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        accounts[1..5].iter().all(|account| told.contains(account))
    })
    .await;
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
    assert_eq!(names(&stage.folder), [".db.env.jit-agent.json", "db.env", "told"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_told_by_a_signal() {
    let stage = Stage::new().await;
    let (out, pid) = (stage.path("db.env"), stage.path("app.pid"));
    stage.fetch(&out, &[]);
    // The application: ends with 7 when it is told.
    let mut application =
        Command::new("sh").args(["-c", "trap 'exit 7' USR1; while :; do sleep 0.05; done"]).spawn().unwrap();
    std::fs::write(&pid, application.id().to_string()).unwrap();
    let on_rotate = format!("signal:USR1:pidfile={pid}");
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--on-rotate", &on_rotate, "--revoke-on-exit"]);
    eventually("it is at work", async || agent.log().contains("took the lease over")).await;
    let before = variable(Path::new(&out), "DB_USERNAME").unwrap();
    // What an operator does who wants new accounts now.
    agent.signal("USR1");
    let status = tokio::task::spawn_blocking(move || application.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
    assert_ne!(variable(Path::new(&out), "DB_USERNAME").unwrap(), before);
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_has_its_credential_in_its_environment_until_it_ends() {
    let stage = Stage::new().await;
    let run = |arguments: &[&str], script: &str| {
        let arguments = [&["exec", "--target", "inventory_db"], arguments, &["--", "sh", "-c", script]].concat();
        let output = stage.agents.command(&arguments).env("JIT_TOKEN", "not for the command").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, printed) = run(&[], "echo $DB_USERNAME $DB_PORT $DB_NAME; echo ${JIT_TOKEN-none}; exit 7");
    let database = &stage.world.database;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(code, Some(7));
    assert!(lines[0].starts_with(&stage.world.prefix), "{printed}");
    assert!(lines[0].ends_with(&format!("{} {}", database.port, database.name)), "{printed}");
    assert_eq!(lines[1], "none");
    stage.nothing_is_left().await;

    let (code, printed) = run(&["--env", "pgenv"], "echo $PGUSER; echo ${DB_USERNAME-none}; kill -9 $$");
    assert_eq!(code, Some(128 + 9));
    assert!(printed.starts_with(&stage.world.prefix) && printed.ends_with("none\n"), "{printed}");
    stage.nothing_is_left().await;

    let missing = stage.agents.run(&["exec", "--target", "inventory_db", "--", "/no/such/command"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot run /no/such/command"));
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_command_and_its_end_gives_back() {
    let stage = Stage::new().await;
    let ready = stage.path("ready");
    let script =
        format!("trap 'exit 9' TERM; trap 'echo hup >>{ready}' HUP; echo >{ready}; while :; do sleep 0.05; done");
    let mut agent = stage.agents.start(&["exec", "--target", "inventory_db", "--", "sh", "-c", &script]);
    let text = || std::fs::read_to_string(&ready).unwrap_or_default();
    eventually("the command runs", async || !text().is_empty()).await;
    assert_eq!(stage.world.accounts().await.len(), 1);
    agent.signal("HUP");
    eventually("it got the signal", async || text().contains("hup")).await;
    assert_eq!(agent.stop().code(), Some(9));
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_started_again_with_each_new_account() {
    let stage = Stage::new().await;
    let seen = stage.path("seen");
    let script = format!("echo $DB_USERNAME >>{seen}; trap 'exit 0' TERM; while :; do sleep 0.05; done");
    let mut agent = stage.agents.start(&[
        "exec",
        "--target",
        "inventory_db",
        "--ttl",
        "3s",
        "--new-account",
        "--on-rotate",
        "restart",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let accounts =
        || -> Vec<String> { std::fs::read_to_string(&seen).unwrap_or_default().lines().map(str::to_owned).collect() };
    eventually("three runs", async || accounts().len() >= 3).await;
    let mut distinct = accounts();
    distinct.dedup();
    assert!(distinct.len() >= 3, "each with another account: {distinct:?}");
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_credentials_in_several_forms_from_one_file() {
    let stage = Stage::new().await;
    let template = stage.path("app.tmpl");
    std::fs::write(&template, "url = {{uri | json}}\nuser = '{{username}}' # {{role}}\n").unwrap();
    let config = stage.path("agent.toml");
    let sections: Vec<String> = ["db.env", "db.json", "db.properties", ".pgpass", "db.uri", "my.cnf", "app.conf"]
        .into_iter()
        .map(|name| {
            let more = if name == "app.conf" { format!("template = \"{template}\"\n") } else { String::new() };
            let role = if name == "db.json" { "role = \"app_read_write\"\n" } else { "" };
            format!("[[credentials]]\ntarget = \"inventory_db\"\nout = \"{}\"\n{role}{more}", stage.path(name))
        })
        .collect();
    std::fs::write(&config, sections.join("\n")).unwrap();
    let fetched = stage.agents.run(&["fetch", "--config", &config]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    assert_eq!(stage.world.accounts().await.len(), 7);
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap();
    let json: Value = serde_json::from_str(&read("db.json")).unwrap();
    assert_eq!(json["role"], "app_read_write");
    let login = stage.world.database.login(json["username"].as_str().unwrap(), json["password"].as_str().unwrap());
    assert!(login.await.is_ok());
    assert!(stage.is_good(&stage.path("db.env")).await);
    assert!(read("db.uri").starts_with("postgres://") && !read("db.uri").ends_with('\n'));
    assert!(read("my.cnf").starts_with("[client]\nuser=\""));
    assert!(read("app.conf").contains("# app_read_only\n"));
    // What the shell makes of the env file is what was meant.
    let sourced =
        Command::new("sh").args(["-c", &format!(". {} && printf %s \"$DB_URL\"", stage.path("db.env"))]).output();
    let url = String::from_utf8(sourced.unwrap().stdout).unwrap();
    assert!(sqlx::postgres::PgPool::connect(&url).await.is_ok());

    let mut agent = stage.agents.start(&["renew", "--config", &config, "--revoke-on-exit"]);
    eventually("all are taken over", async || agent.log().matches("took the lease over").count() == 7).await;
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

/// libpq reads what the agent writes, where a `psql` is at hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq_reads_the_password_file() {
    let stage = Stage::new().await;
    let binaries = xtask::servers::postgres::binaries(17, &xtask::steps::Steps::new()).unwrap();
    let psql = binaries.bin().join("psql");
    if !psql.is_file() {
        return;
    }
    let out = stage.path("db.pgpass");
    let config = stage.path("agent.toml");
    std::fs::write(&config, format!("[[credentials]]\ntarget = \"inventory_db\"\nout = \"{out}\"\n")).unwrap();
    let fetched = stage.agents.run(&["fetch", "--config", &config]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let user = stage.world.accounts().await.remove(0);
    let database = &stage.world.database;
    let url = format!("postgres://{user}@{}:{}/{}", database.host, database.port, database.name);
    let asked =
        Command::new(psql).args([&url, "-Atc", "SELECT current_user"]).env("PGPASSFILE", &out).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), user, "{}", String::from_utf8_lossy(&asked.stderr));
}

/// `/path` of an agent's health port, found in its log.
pub(crate) async fn health(agent: &AgentProcess, path: &str) -> (u16, String) {
    let url = || agent.log().split("health at ").nth(1).and_then(|rest| rest.lines().next()).map(str::to_owned);
    eventually("it serves health", async || url().is_some()).await;
    let reply = reqwest::get(format!("{}{path}", url().unwrap())).await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_tell_how_it_is() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &["--ttl", "3s"]);
    let agent = stage.agents.start(&["renew", "--out", &out, "--health", "127.0.0.1:0", "--revoke-on-exit"]);
    eventually("it is ready", async || health(&agent, "/readyz").await.0 == 200).await;
    assert_eq!(health(&agent, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(health(&agent, "/").await.0, 404);
    let labels = format!("{{target=\"inventory_db\",out=\"{out}\"}}");
    eventually("it counts", async || {
        let metrics = health(&agent, "/metrics").await.1;
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{labels}")))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        value("jit_agent_renewals_total") >= Some(2.0)
            && value("jit_agent_credential_good") == Some(1.0)
            && value("jit_agent_written") == Some(1.0)
            && value("jit_agent_expires_in_seconds").is_some_and(|left| left > 0.0)
    })
    .await;
    // Whoever sends something else, or nothing, is no trouble.
    let reply = reqwest::Client::new();
    let url = agent.log().split("health at ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
    assert_eq!(reply.post(format!("{url}/livez")).send().await.unwrap().status(), 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn help_shows_examples_and_exit_codes() {
    let stage = Agents { broker: String::new(), token: PathBuf::new() };
    let help = stage.run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(
        text.contains("jit-agent renew --interval 48m --out /creds/db.env") && text.contains("Exit codes:"),
        "{text}"
    );
    let completions = stage.run(&["completions", "bash"]);
    assert!(completions.status.success() && completions.stdout.len() > 1_000);
}
