//! The story, step by step. Each step shows something and then makes sure that it is so: a demo
//! that claims what it did not see would be worse than none.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jit_tests::{Client, Database, Reply};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::screen::{Screen, cut, table};
use crate::stage::Stage;

/// How many steps there are.
pub(crate) const STEPS: usize = 7;
/// How long the account of the story lives.
const TTL: Duration = Duration::from_secs(20);
/// How long the account may outlive its lease before the demo says that this is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many characters of a password are shown.
const SHOWN: usize = 3;
/// Exit code of `audit verify` when the log was changed.
const FOUND_WRONG: i32 = 3;

/// What the steps hand on.
struct Story<'a> {
    stage: &'a Stage,
    database: &'a Database,
    client: Client,
    screen: &'a mut Screen,
}

/// Plays it all.
pub(crate) async fn play(stage: &Stage, screen: &mut Screen) -> Result<()> {
    let database = stage.database.as_ref().context("no database")?;
    let client = Client::new(&stage.broker_url, &stage.issuer_url);
    let mut story = Story { stage, database, client, screen };
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

impl Story<'_> {
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
            "A policy decides, a driver makes the account, both sandboxed; neither sees the password.",
        );
        let before = self.database.roles("v-").await?;
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
        let after = self.database.roles("v-").await?;
        ensure!(after == [reply.username()], "the account is not the only one: {after:?}");
        self.screen.holds(&format!("PostgreSQL has the account {} now; it had none before.", reply.username()));
        Ok(reply)
    }

    async fn use_account(&mut self, issued: &Reply) -> Result<PgConnection> {
        self.screen.step(
            "It works with the account",
            "An ordinary login, for ordinary drivers: nothing in the application knows of the broker.",
        );
        let uri = issued.text_at("/connection/uri");
        self.screen.command(&format!(
            "psql '{}' -c 'SELECT * FROM items'",
            uri.replace(issued.password(), &masked(issued.password()))
        ));
        let options: sqlx::postgres::PgConnectOptions = uri.parse().context("the reply's connection URI")?;
        let mut session = options.disable_statement_logging().connect().await.context("the new account's login")?;
        let rows = sqlx::query("SELECT id, name FROM items ORDER BY id").fetch_all(&mut session).await?;
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| vec![row.get::<i32, _>(0).to_string(), row.get::<String, _>(1)]).collect();
        ensure!(cells.len() == 3, "the table has {} rows", cells.len());
        self.screen.output(&table(&["id", "name"], &cells));
        let refused = session.execute("DELETE FROM items").await;
        let refused = refused.err().context("the account may delete, although its role only reads")?;
        self.screen.command("… -c 'DELETE FROM items'");
        self.screen.output(&format!("ERROR: {}", server_said(&refused)));
        self.screen.say("What the server knows about it:");
        let query = format!(
            "SELECT rolname, rolcanlogin, rolsuper, rolvaliduntil::text, \
             array_to_string(ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid \
             WHERE m.member = r.oid), ', ') FROM pg_roles r WHERE rolname = '{}'",
            issued.username()
        );
        let row = sqlx::query(AssertSqlSafe(query)).fetch_one(&mut self.database.superuser().await?).await?;
        let yes = |column: usize| if row.get::<bool, _>(column) { "yes" } else { "no" }.to_owned();
        let until: String = row.get(3);
        let member_of: String = row.get(4);
        ensure!(member_of == self.database.read_only, "the account is a member of {member_of}");
        self.screen.output(&table(
            &["role", "login", "superuser", "valid until", "member of"],
            &[vec![row.get(0), yes(1), yes(2), until, member_of]],
        ));
        self.screen.holds("It reads and no more, and the server itself ends its login with the lease (VALID UNTIL).");
        Ok(session)
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
        let (body, reply) = self.ask(token, "postgres", "role-not-allowed").await?;
        self.in_short(&body, &reply);

        self.screen.say("A forged token: the good one with one character changed:");
        let (body, reply) = self.ask(&forged(token), "app_read_only", "unauthenticated").await?;
        self.in_short(&body, &reply);

        let accounts = self.database.roles("v-").await?;
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
        self.screen.step(
            "The lease ends",
            "Nobody has to remember to clean up. The broker does, and PostgreSQL ends the login even without it.",
        );
        self.screen.countdown("time left", expires.saturating_duration_since(Instant::now())).await;
    }

    async fn gone(&mut self, issued: &Reply, token: &str, mut session: PgConnection) -> Result<()> {
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

        self.screen.command("psql … -c 'SELECT 1'     # with the same user name and password");
        let login = self.database.login(issued.username(), issued.password()).await;
        let refused = login.err().context("the account can still log in")?;
        self.screen.output(&format!("FATAL: {}", server_said(&refused)));
        self.screen.holds("The login is refused.");

        let ended = session.execute("SELECT 1").await;
        ensure!(ended.is_err(), "the session that was open goes on");
        self.screen.holds("The session that step 3 left open was ended too.");

        let roles = self.database.roles("v-").await?;
        ensure!(roles.is_empty(), "roles are left: {roles:?}");
        self.screen.holds("The role is gone from pg_roles.");

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

/// The first characters of a password.
fn masked(password: &str) -> String {
    format!("{}…", password.get(..SHOWN).unwrap_or(""))
}

/// What the payload of a JWT says, as the text that was signed.
fn claims(token: &str) -> Result<String> {
    let payload = token.split('.').nth(1).context("the token is no JWT")?;
    Ok(String::from_utf8(URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// What PostgreSQL said, without what the client adds.
fn server_said(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(server) => server.message().to_owned(),
        None => cut(&error.to_string(), 120),
    }
}

/// A path as it is typed: relative where it is below the current folder.
pub(crate) fn shown(path: &std::path::Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
