//! `--agent`: a service whose account changes while its queries never stop. `jit-agent` runs beside
//! it as in a pod: first as the init container, then as the sidecar.

pub(crate) mod service;

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jit_tests::Client;
use serde_json::Value;
use sqlx::Row as _;
use tokio::process::{Child, Command};

use crate::backend::{Backend as _, Postgres, masked, shown};
use crate::config::Terms;
use crate::screen::{Screen, table};
use crate::stage::Stage;
use service::Service;

/// How many steps there are.
pub(crate) const STEPS: usize = 5;
/// How long an account of this story lives.
pub(crate) const TERMS: Terms = Terms { default_ttl: "6s", max_ttl: "6s" };
/// How often the account changes.
const CHANGES: usize = 3;
/// The bound of each wait: none takes as long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// What the steps share.
pub(crate) struct Story<'a> {
    pub(crate) stage: &'a mut Stage<Postgres>,
    agent: PathBuf,
    file: PathBuf,
    token: PathBuf,
    pub(crate) screen: &'a mut Screen,
}

/// Plays it all.
pub(crate) async fn play(stage: &mut Stage<Postgres>, agent: &Path, screen: &mut Screen) -> Result<()> {
    let token = Client::new(&stage.broker_url, &stage.issuer_url).token("payment-service").await?;
    let mut story = Story::prepare(stage, agent, &token, screen)?;
    story.fetch().await?;
    let sidecar = story.adopt().await?;
    let service = story.serve().await?;
    story.changes(&service).await?;
    story.end(service, sidecar).await
}

impl<'a> Story<'a> {
    /// Lays out what the pod has: the agent, a folder for the account, and its token.
    pub(crate) fn prepare(
        stage: &'a mut Stage<Postgres>,
        agent: &Path,
        token: &str,
        screen: &'a mut Screen,
    ) -> Result<Self> {
        let folder = stage.path("creds");
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let program = stage.path("jit-agent");
        fs::copy(agent, &program).context("cannot copy the agent")?;
        let token_file = stage.path("secrets/token");
        let mut file = fs::OpenOptions::new();
        let mut file = file.create(true).write(true).truncate(true).mode(0o600).open(&token_file)?;
        std::io::Write::write_all(&mut file, token.as_bytes())?;
        Ok(Self { stage, agent: program, file: folder.join("db.json"), token: token_file, screen })
    }

    pub(crate) async fn fetch(&mut self) -> Result<()> {
        self.screen.step(
            "Before the service starts, its pod gets an account",
            "An init container asks once and writes a file; if it cannot, the service does not start.",
        );
        self.screen.command(&format!(
            "export JIT_BROKER_URL={} JIT_TOKEN_FILE={}",
            self.stage.broker_url,
            shown(&self.token)
        ));
        let arguments = ["fetch", "--target", "inventory_db", "--out"];
        self.screen.command(&format!("{} {} {}", shown(&self.agent), arguments.join(" "), shown(&self.file)));
        let fetched = self.command(&arguments).output().await.context("cannot run jit-agent")?;
        ensure!(fetched.status.success(), "jit-agent fetch: {}", String::from_utf8_lossy(&fetched.stderr));
        let written = self.written()?;
        let mode = fs::metadata(&self.file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "others can read {} (mode {mode:o})", self.file.display());
        self.screen.command(&format!("cat {}", shown(&self.file)));
        let password = written["password"].as_str().unwrap_or_default();
        self.screen.json(&written.to_string().replace(password, &masked(password)));
        self.only_account(&written).await?;
        self.screen.holds("One account, in a file that nobody else can read (0600), replaced in one piece each time.");
        Ok(())
    }

    pub(crate) async fn adopt(&mut self) -> Result<Child> {
        self.screen.step(
            "The sidecar takes over",
            "It goes on with the lease that it finds, instead of making another account.",
        );
        let arguments = ["renew", "--revoke-on-exit", "--out"];
        self.screen.command(&format!(
            "{} {} {} & AGENT=$!",
            shown(&self.agent),
            arguments.join(" "),
            shown(&self.file)
        ));
        let sidecar = self.command(&arguments).spawn().context("cannot start jit-agent")?;
        self.stage.remember_agent(sidecar.id(), &self.agent)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.only_account(&self.written()?).await?;
        self.screen.holds("Still the one account.");
        let ttl = TERMS.default_ttl.trim_end_matches('s');
        self.screen.note(&format!(
            "Its lease is {ttl} seconds long here, an hour elsewhere; the next account comes at 80 % of it at the latest."
        ));
        Ok(sidecar)
    }

    pub(crate) async fn serve(&mut self) -> Result<Service> {
        self.screen.step(
            "The service starts, and queries all the time",
            "Two workers on a pool of connections. When the file changes, it exchanges the pool; that is all it knows.",
        );
        let service = Service::start(&self.file).await?;
        self.until("the first queries", || service.count().ok >= 20).await?;
        let count = service.count();
        ensure!(count.failed == 0, "a query failed: {:?}", count.failure);
        self.screen.holds(&format!("{} queries so far, as {}.", count.ok, count.account));
        Ok(service)
    }

    async fn changes(&mut self, service: &Service) -> Result<()> {
        self.screen.step(
            "Its account changes three times",
            "New name, new password, new connections; then the old account goes. Watch the counter.",
        );
        println!();
        let first = service.count().account;
        let mut accounts = vec![first];
        for change in 1..=CHANGES {
            let before = service.count();
            let screen = &*self.screen;
            let begun = Instant::now();
            while service.count().account == before.account {
                ensure!(begun.elapsed() < PATIENCE, "the account did not change");
                screen.counter(&counted(&service.count()));
                tokio::time::sleep(POLL).await;
            }
            let after = service.count();
            ensure!(after.failed == 0, "a query failed: {:?}", after.failure);
            ensure!(after.ok > before.ok && !accounts.contains(&after.account), "{before:?}, then {after:?}");
            self.screen.counter_stays(&counted(&after));
            self.screen.holds(&format!("Change {change}: {} → {}", before.account, after.account));
            accounts.push(after.account);
        }
        // While both are there: who is connected.
        let sessions = self.sessions().await?;
        self.screen.say("The database in this moment: the new account is at work, the one before is about to go.");
        self.screen.output(&table(&["account", "valid until", "connections"], &sessions));
        let last = service.count().account;
        self.until_gone(service, &last).await?;
        let count = service.count();
        ensure!(count.failed == 0, "a query failed: {:?}", count.failure);
        self.screen.holds(&format!(
            "Then the accounts before are gone, and the service is at {} queries, none of them failed.",
            count.ok
        ));
        Ok(())
    }

    pub(crate) async fn end(&mut self, service: Service, mut sidecar: Child) -> Result<()> {
        self.screen.step("The pod ends", "First the service, then the sidecar, which gives the lease back.");
        let count = service.stop().await;
        let pid = sidecar.id().context("jit-agent ended by itself")?;
        self.screen.command("kill -TERM $AGENT");
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        let ended = tokio::time::timeout(PATIENCE, sidecar.wait()).await.context("jit-agent does not end")??;
        ensure!(ended.success(), "jit-agent ended with {ended}");
        let begun = Instant::now();
        while !self.stage.backend()?.accounts().await?.is_empty() {
            ensure!(begun.elapsed() < PATIENCE, "accounts are left: {:?}", self.stage.backend()?.accounts().await?);
            tokio::time::sleep(POLL).await;
        }
        self.screen.holds("No account is left in the database.");
        ensure!(count.failed == 0, "a query failed: {:?}", count.failure);
        let output = self.stage.run(&["audit", "show", "--event", "issue.granted"], &self.stage.config())?;
        let granted = String::from_utf8_lossy(&output.stdout).into_owned();
        self.screen.command(&format!(
            "{} audit show --event issue.granted --config {}",
            shown(&self.stage.binary()),
            shown(&self.stage.config())
        ));
        self.screen.wide(&granted);
        let grants = granted.matches("v-payment-service").count();
        ensure!(grants > CHANGES, "only {grants} grants are on record:\n{granted}");
        self.screen.holds(&format!("Each account is on record. {} queries, {} failed.", count.ok, count.failed));
        Ok(())
    }

    /// `jit-agent`, followed by the file's name.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.agent);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.stage.path("agent.log"));
        command
            .args(arguments)
            .arg(&self.file)
            .env("JIT_BROKER_URL", &self.stage.broker_url)
            .env("JIT_TOKEN_FILE", &self.token)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from))
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn written(&self) -> Result<Value> {
        let text = fs::read(&self.file).with_context(|| format!("jit-agent wrote no {}", self.file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    async fn only_account(&self, written: &Value) -> Result<()> {
        let accounts = self.stage.backend()?.accounts().await?;
        let name = written["username"].as_str().unwrap_or_default();
        ensure!(accounts == [name], "the file names {name}, the database has {accounts:?}");
        Ok(())
    }

    /// The accounts with their ends and the number of their connections.
    async fn sessions(&self) -> Result<Vec<Vec<String>>> {
        let rows = sqlx::query(
            "SELECT rolname::text, to_char(rolvaliduntil, 'HH24:MI:SS'), count(pid)::text FROM pg_roles \
             LEFT JOIN pg_stat_activity ON usename = rolname \
             WHERE starts_with(rolname, 'v-') GROUP BY 1, rolvaliduntil ORDER BY rolvaliduntil",
        );
        let rows = rows.fetch_all(&mut self.stage.backend()?.superuser().await?).await?;
        Ok(rows.iter().map(|row| (0..3).map(|column| row.get::<String, _>(column)).collect()).collect())
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds() {
            ensure!(begun.elapsed() < PATIENCE, "never came true: {what}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until no account is left that is older than this one.
    async fn until_gone(&self, service: &Service, account: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let sessions = self.sessions().await?;
            if sessions.first().is_none_or(|oldest| oldest[0] == account || oldest[0] == service.count().account) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "accounts outlive their leases: {sessions:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

pub(crate) fn counted(count: &service::Count) -> String {
    format!("queries {:>6}   failed {}   as {}", count.ok, count.failed, count.account)
}
