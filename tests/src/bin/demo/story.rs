//! The story, step by step. Each step shows something and then makes sure that it is so: a demo
//! that claims what it did not see would be worse than none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jit_tests::{Client, Reply};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Executor as _};

use crate::backend::{Backend, masked, shown};
use crate::screen::Screen;
use crate::stage::Stage;

/// How many steps there are.
pub(crate) const STEPS: usize = 7;
/// How long the account of the story lives.
const TTL: Duration = Duration::from_secs(20);
/// How long the account may outlive its lease before the demo says that this is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// Exit code of `audit verify` when the log was changed.
const FOUND_WRONG: i32 = 3;

/// What the steps hand on.
struct Story<'a, B: Backend> {
    stage: &'a Stage<B>,
    backend: &'a B,
    client: Client,
    screen: &'a mut Screen,
}

/// Plays it all.
pub(crate) async fn play<B: Backend>(stage: &Stage<B>, screen: &mut Screen) -> Result<()> {
    let client = Client::new(&stage.broker_url, &stage.issuer_url);
    let mut story = Story { stage, backend: stage.backend()?, client, screen };
    let token = story.prove_identity().await?;
    let issued = story.issue(&token).await?;
    let expires = Instant::now() + TTL;
    let session = story.use_account(&issued).await?;
    story.denials(&token).await?;
    story.audit(&issued).await?;
    story.forge().await?;
    story.wait_for_expiry(expires).await;
    story.gone(&issued, &token, session).await
}

impl<B: Backend> Story<'_, B> {
    async fn prove_identity(&mut self) -> Result<String> {
        self.screen.step(
            "A workload proves who it is",
            "No password to begin with: it shows the token that its platform gives it anyway.",
        );
        self.screen.command(&format!("curl -s '{}/token?workload=payment-service&namespace=shop'", self.client.issuer));
        let token = self.client.token("payment-service").await?;
        self.screen.output(&format!("{}…   (a signed JWT; this is what it says)", token.get(..12).unwrap_or("")));
        let claims = claims(&token)?;
        self.screen.json(&claims);
        let value: Value = serde_json::from_str(&claims)?;
        ensure!(value["kubernetes.io"]["serviceaccount"]["name"] == "payment-service", "the token is another's");
        self.screen.note("The broker believes it because of the issuer's signature, whose keys it fetches from `iss`.");
        Ok(token)
    }

    async fn issue(&mut self, token: &str) -> Result<Reply> {
        self.screen.step(
            "It asks for an account, and gets one that did not exist a moment ago",
            &format!("A policy decides, a driver {}, both sandboxed; neither sees the password.", B::TEXTS.makes),
        );
        let before = self.backend.accounts().await?;
        ensure!(before.is_empty(), "there are accounts already: {before:?}");
        let body = json!({"target": "inventory_db", "role": "app_read_only", "ttl": format!("{}s", TTL.as_secs()), "reason": "nightly export"});
        let text = r#"{"target": "inventory_db", "role": "app_read_only", "ttl": "20s", "reason": "nightly export"}"#;
        self.screen.command(&format!(
            "curl -s {}/issue -H \"authorization: Bearer $TOKEN\" \\\n    -H 'content-type: application/json' \\\n    -d '{text}'",
            self.client.broker
        ));
        let reply = self.client.issue(token, &body).await?;
        self.exchange("/issue", token, text, &reply);
        ensure!(reply.status == 201, "the broker did not issue: {}", reply.text);
        ensure!(reply.password().len() >= 16, "the password is short");
        let after = self.backend.accounts().await?;
        ensure!(after == [reply.username()], "the account is not the only one: {after:?}");
        let (holder, account) = (B::TEXTS.holder, reply.username());
        self.screen.holds(&format!("{holder} has the account {account} now; it had none before."));
        Ok(reply)
    }

    async fn use_account(&mut self, issued: &Reply) -> Result<B::Session> {
        self.screen.step("It works with the account", B::TEXTS.ordinary);
        self.backend.use_account(issued, self.screen).await
    }

    async fn denials(&mut self, token: &str) -> Result<()> {
        self.screen.step(
            "Others get nothing, and are told why",
            "A policy is asked each time; its no is on record before the caller hears it.",
        );
        self.screen.say("Another workload, which no rule names:");
        let other = self.client.token("report-service").await?;
        let (body, reply) = self.ask(&other, "app_read_only", "policy-denied").await?;
        self.exchange("/issue", &other, &body, &reply);

        self.screen.say("The right workload, but a role that its rule does not give:");
        let (body, reply) = self.ask(token, "app_read_write", "policy-denied").await?;
        self.in_short(&body, &reply);

        self.screen.say("A role that the target offers to nobody:");
        let (body, reply) = self.ask(token, "administrator", "role-not-allowed").await?;
        self.in_short(&body, &reply);

        self.screen.say("A forged token: the good one with one character changed:");
        let (body, reply) = self.ask(&forged(token), "app_read_only", "unauthenticated").await?;
        self.in_short(&body, &reply);

        let accounts = self.backend.accounts().await?;
        ensure!(accounts.len() <= 1, "a refused request made an account: {accounts:?}");
        self.screen.holds("Four refusals, no account made.");
        Ok(())
    }

    /// Asks for what is refused with that code.
    async fn ask(&self, token: &str, role: &str, code: &str) -> Result<(String, Reply)> {
        let reply = self.client.issue(token, &json!({"target": "inventory_db", "role": role})).await?;
        ensure!(reply.code() == code, "expected {code}, got {}: {}", reply.status, reply.text);
        Ok((format!(r#"{{"target": "inventory_db", "role": "{role}"}}"#), reply))
    }

    /// A refusal without the lines that were seen before.
    fn in_short(&self, body: &str, reply: &Reply) {
        self.screen.output(&format!("> {body}"));
        self.screen.output(&format!("< {} {}: {}", reply.status, reply.code(), reply.text_at("/detail")));
    }

    async fn audit(&mut self, issued: &Reply) -> Result<()> {
        self.screen.step(
            "Every step is on record, in a log that cannot be quietly changed",
            "Each record is a leaf of a signed Merkle tree, written in the same transaction as the lease.",
        );
        let (program, config) = (shown(&self.stage.binary()), shown(&self.stage.config()));
        self.screen.command(&format!("{program} audit show --config {config}"));
        let listed = self.broker(&["audit", "show"], 0)?;
        self.screen.wide(&listed);
        let lease = issued.lease();
        self.screen.command(&format!("{program} audit show --lease {lease} --format json --config {config}"));
        let record = self.broker(&["audit", "show", "--lease", lease, "--format", "json"], 0)?;
        let granted = record.lines().find(|line| line.contains("\"issue.granted\""));
        let granted = granted.context("issue.granted is not on record")?;
        self.screen.json(granted);
        let all = self.broker(&["audit", "show", "--format", "json"], 0)?;
        ensure!(!all.contains(issued.password()), "the log holds a password");
        let denied = all.lines().filter(|line| line.contains("\"issue.denied\""));
        ensure!(denied.count() == 3, "not every denial is on record:\n{all}");
        self.screen.holds("The grant, every denial, and what the trial policy would have done; no password anywhere.");
        self.screen.command(&format!("{program} audit verify --config {config}"));
        let intact = self.broker(&["audit", "verify"], 0)?;
        self.screen.output(&intact);
        ensure!(intact.starts_with("intact"), "the log is not intact");
        Ok(())
    }

    /// Changes a record in a copy of the store, as somebody with access to the database could.
    async fn forge(&mut self) -> Result<()> {
        self.screen.say("Now somebody with access to the database blames another workload, in a copy of the store:");
        let copy = self.stage.path("forged.db");
        let config = self.stage.path("forged.toml");
        let statements = "DROP TRIGGER audit_changes_nothing;\n\
             UPDATE audit SET record = replace(record, 'report-service', 'backup-service');";
        self.screen.command(&format!(
            "sqlite3 {} \"VACUUM INTO '{}'\"",
            shown(&self.stage.path("broker.db")),
            shown(&copy)
        ));
        self.screen.command(&format!("sqlite3 {} \"{}\"", shown(&copy), statements.replace('\n', "\n    ")));
        let sqlite = |path: &std::path::Path| sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        let mut store = sqlite(&self.stage.path("broker.db")).read_only(true).connect().await?;
        sqlx::query("VACUUM INTO ?").bind(copy.to_string_lossy()).execute(&mut store).await?;
        let mut forged = sqlite(&copy).connect().await?;
        forged.execute(sqlx::raw_sql(statements)).await?;
        sqlx::Connection::close(forged).await?;
        let text = std::fs::read_to_string(self.stage.config())?;
        std::fs::write(&config, text.replace("sqlite:broker.db", "sqlite:forged.db"))?;
        self.screen.command(&format!(
            "sed 's/broker.db/forged.db/' {} > {}\n{} audit verify --config {}; echo \"exit code $?\"",
            shown(&self.stage.config()),
            shown(&config),
            shown(&self.stage.binary()),
            shown(&config)
        ));
        let output = self.stage.run(&["audit", "verify"], &config)?;
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        self.screen.output(&found);
        self.screen.output(&format!("exit code {}", output.status.code().unwrap_or(-1)));
        ensure!(output.status.code() == Some(FOUND_WRONG), "the forged log passes: {output:?}");
        ensure!(found.starts_with("NOT INTACT"), "the forgery is not told: {found}");
        self.screen.holds("The true log is intact, the forged one is found out, with the record that was changed.");
        Ok(())
    }

    async fn wait_for_expiry(&mut self, expires: Instant) {
        self.screen.step("The lease ends", B::TEXTS.ends);
        self.screen.countdown("time left", expires.saturating_duration_since(Instant::now())).await;
    }

    async fn gone(&mut self, issued: &Reply, token: &str, session: B::Session) -> Result<()> {
        self.screen.step(
            "The account is gone",
            "A credential that leaks now, from a log or a laptop or a backup, opens nothing.",
        );
        let lease = format!("/v1/leases/{}", issued.lease());
        let begun = Instant::now();
        let state = loop {
            let reply = self.client.get(&lease, token).await?;
            if reply.text_at("/state") == "revoked" || begun.elapsed() > PATIENCE {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        ensure!(state.text_at("/state") == "revoked", "the lease did not end: {}", state.text);

        self.backend.gone(issued, session, self.screen).await?;

        self.screen.command(&format!("curl -s {}{lease} -H \"authorization: Bearer $TOKEN\"", self.client.broker));
        self.screen.json(&state.text);
        let expired = self.broker(&["audit", "show", "--lease", issued.lease(), "--event", "lease.expired"], 0)?;
        ensure!(expired.contains(issued.username()), "the expiry is not on record: {expired}");
        self.screen.command(&format!(
            "{} audit show --event lease.expired --config {}",
            shown(&self.stage.binary()),
            shown(&self.stage.config())
        ));
        self.screen.wide(&expired);
        let intact = self.broker(&["audit", "verify"], 0)?;
        ensure!(intact.starts_with("intact"), "{intact}");
        self.screen.holds("The expiry is an event like any other, and the log is intact.");
        Ok(())
    }

    /// Runs a command of the broker's binary, which must end with that exit code.
    fn broker(&self, args: &[&str], code: i32) -> Result<String> {
        let output = self.stage.run(args, &self.stage.config())?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(code), "`jit-broker {}`: {}\n{out}{err}", args.join(" "), output.status);
        Ok(out.into_owned())
    }

    fn exchange(&self, path: &str, token: &str, body: &str, reply: &Reply) {
        let request = [
            format!("POST {path} HTTP/1.1"),
            format!("authorization: Bearer {}…", token.get(..12).unwrap_or("")),
            body.to_owned(),
        ];
        let header = |name: &'static str| Some((name, reply.headers.get(name)?.to_str().ok()?));
        let names = ["content-type", "location", "www-authenticate", "cache-control", "x-request-id"];
        let headers: Vec<(&str, &str)> = names.into_iter().filter_map(header).collect();
        let mut text = reply.text.clone();
        if !reply.password().is_empty() {
            text = text.replace(reply.password(), &masked(reply.password()));
        }
        self.screen.exchange(&request, reply.status, &headers, &text);
    }
}

/// A token with one character of its signature changed.
fn forged(token: &str) -> String {
    let mut forged = token.to_owned();
    // The last but one: the last has bits that mean nothing.
    let place = forged.len().saturating_sub(2);
    let other = if forged.get(place..=place) == Some("A") { "B" } else { "A" };
    forged.replace_range(place..=place, other);
    forged
}

/// What the payload of a JWT says, as the text that was signed.
fn claims(token: &str) -> Result<String> {
    let payload = token.split('.').nth(1).context("the token is no JWT")?;
    Ok(String::from_utf8(URL_SAFE_NO_PAD.decode(payload)?)?)
}
