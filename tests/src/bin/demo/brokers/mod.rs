//! `--brokers`: a service that never notices that brokers are killed. They serve from one store in PostgreSQL, behind a
//! balancer, and finish each other's work.

mod balancer;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use jit_tests::{BrokerProcess, Issuer, Key, StoreDatabase};
use serde_json::Value;

use crate::backend::{Backend as _, Postgres, shown};
use crate::config::{self, Terms};
use crate::rotation::service::Service;
use crate::rotation::{POLL, Story, counted};
use crate::screen::Screen;
use crate::stage::Stage;
use balancer::Balancer;

/// How many steps there are.
pub(crate) const STEPS: usize = 7;
/// How long an account of this story lives.
pub(crate) const TERMS: Terms = Terms { default_ttl: "6s", max_ttl: "6s" };
/// Until a killed broker is fenced and its accounts are gone: some 10 seconds, and more on a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(60);
/// How long queries are watched after a kill: longer than an account lives, so that another one has to be issued.
const WATCHED: Duration = Duration::from_secs(8);

/// The brokers, and what is in front of them.
struct Brokers {
    running: Vec<Option<BrokerProcess>>,
    balancer: Balancer,
}

/// Plays it all.
pub(crate) async fn play(stage: &mut Stage<Postgres>, agent: &Path, brokers: usize, screen: &mut Screen) -> Result<()> {
    let (key, issuer) = platform().await?;
    let mut claims = issuer.claims("payment-service");
    claims["namespace"] = Value::from("shop");
    let token = key.token(&claims)?;
    let mut brokers = start(stage, &issuer, brokers, screen).await?;
    stage.broker_url.clone_from(&brokers.balancer.url);
    let mut story = Story::prepare(stage, agent, &token, screen)?;
    story.fetch().await?;
    let sidecar = story.adopt().await?;
    let service = story.serve().await?;
    kill(&mut story, &mut brokers, &service).await?;
    taken_over(&mut story, &mut brokers, &service).await?;
    story.end(service, sidecar).await?;
    verify(&story)?;
    for broker in brokers.running.iter_mut().flatten() {
        let ended = broker.stop()?;
        ensure!(ended.success(), "a broker ended with {ended}");
    }
    Ok(())
}

/// The platform whose tokens every broker takes.
async fn platform() -> Result<(Key, Issuer)> {
    let key = Key::generate("platform")?;
    let issuer = Issuer::start(&[&key]).await?;
    Ok((key, issuer))
}

async fn start(stage: &mut Stage<Postgres>, issuer: &Issuer, count: usize, screen: &mut Screen) -> Result<Brokers> {
    screen.step(
        &format!("{count} brokers, one store"),
        "The store is a database of PostgreSQL. There is no leader: each broker issues, renews and removes.",
    );
    let store = StoreDatabase::create(&stage.backend()?.superuser_url()).await?;
    let password = stage.path("store.password");
    fs::write(&password, &store.password)?;
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let text = config::text(stage.backend()?, TERMS).replace("url = \"sqlite:broker.db\"", &store.section());
    let text = format!(
        "{text}\n# The platform's tokens, good at every broker.\n[[identity.jwt]]\nname = \"platform\"\nissuer = \"{}\"\n\
         audiences = [\"jit-broker\"]\nworkload = \"{{sub}}\"\nattributes = {{ k8s_namespace = \"namespace\" }}\n",
        issuer.url
    );
    let mut running = Vec::new();
    for number in 0..count {
        let (socket, log) = if number == 0 {
            ("admin.sock".to_owned(), "audit.jsonl".to_owned())
        } else {
            (format!("admin-{number}.sock"), format!("audit-{number}.jsonl"))
        };
        let text = text.replace("\"admin.sock\"", &format!("\"{socket}\""));
        fs::write(config_of(stage, number), text.replace("\"audit.jsonl\"", &format!("\"{log}\"")))?;
        running.push(Some(broker(stage, number)?));
    }
    let addresses = running.iter().flatten().map(|broker| address(broker).to_owned()).collect();
    let balancer = Balancer::start(addresses).await?;
    // Each has looked at the others.
    let begun = Instant::now();
    let mut shown_brokers: Vec<String> = Vec::new();
    while shown_brokers.len() < count || shown_brokers.iter().any(|line| line.contains("not shown")) {
        ensure!(begun.elapsed() < TAKEN_OVER, "the brokers do not see each other: {shown_brokers:?}");
        tokio::time::sleep(POLL).await;
        shown_brokers = status(stage)?;
    }
    screen.command(&format!("{} status --config {}", shown(&stage.binary()), shown(&stage.config())));
    screen.output(&shown_brokers.join("\n"));
    Ok(Brokers { running, balancer })
}

/// The lines of `status` about the brokers.
fn status(stage: &Stage<Postgres>) -> Result<Vec<String>> {
    let output = stage.run(&["status"], &stage.config())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| line.contains(", configuration ")).map(ToOwned::to_owned).collect())
}

fn config_of(stage: &Stage<Postgres>, number: usize) -> std::path::PathBuf {
    if number == 0 { stage.config() } else { stage.path(&format!("broker-{number}.toml")) }
}

fn broker(stage: &mut Stage<Postgres>, number: usize) -> Result<BrokerProcess> {
    let log = stage.path(&format!("broker-{number}.log"));
    let environment = [("NO_COLOR", "1")];
    let broker = BrokerProcess::start(&stage.binary(), &config_of(stage, number), "127.0.0.1:0", &environment, &log)?;
    stage.watch(broker.pid())?;
    Ok(broker)
}

fn address(broker: &BrokerProcess) -> &str {
    broker.broker.trim_start_matches("http://")
}

/// Kills one broker after the other, but for the last, while the service queries.
async fn kill(story: &mut Story<'_>, brokers: &mut Brokers, service: &Service) -> Result<()> {
    story
        .screen
        .step("Brokers are killed, one after the other", "kill -9, in the middle of what they do. Watch the counter.");
    let last = brokers.running.len() - 1;
    for number in 0..last {
        let Some(mut broker) = brokers.running[number].take() else { continue };
        story.screen.command(&format!("kill -9 {}", broker.pid()));
        broker.kill()?;
        story.stage.unwatch(broker.pid())?;
        let (before, begun) = (service.count(), Instant::now());
        while begun.elapsed() < WATCHED || service.count().account == before.account {
            ensure!(begun.elapsed() < TAKEN_OVER, "the account did not change any more");
            story.screen.counter(&counted(&service.count()));
            tokio::time::sleep(POLL).await;
        }
        let after = service.count();
        story.screen.counter_stays(&counted(&after));
        ensure!(after.failed == 0, "a query failed: {:?}", after.failure);
        let left = last - number;
        let serve = if left == 1 { "one broker serves".to_owned() } else { format!("{left} brokers serve") };
        story.screen.holds(&format!("No query failed, and the account was changed meanwhile: {serve}."));
    }
    Ok(())
}

/// What the killed ones left is finished, and they come back.
async fn taken_over(story: &mut Story<'_>, brokers: &mut Brokers, service: &Service) -> Result<()> {
    story.screen.step(
        "What they left is finished by the others",
        "A broker that nobody hears of for ten seconds is fenced: it could write nothing more, and its leases are taken over.",
    );
    let killed = brokers.running.iter().filter(|broker| broker.is_none()).count();
    let begun = Instant::now();
    let mut fenced = Vec::new();
    while fenced.len() < killed {
        ensure!(begun.elapsed() < TAKEN_OVER, "{} of {killed} are fenced", fenced.len());
        story.screen.counter(&counted(&service.count()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        fenced = events(story.stage, "broker.fenced")?;
    }
    story.screen.counter_stays(&counted(&service.count()));
    for number in 0..brokers.running.len() {
        if brokers.running[number].is_none() {
            let again = broker(story.stage, number)?;
            brokers.balancer.replace(number, address(&again).to_owned()).await;
            brokers.running[number] = Some(again);
        }
    }
    let command = format!("{} audit show --event broker.fenced --format json", shown(&story.stage.binary()));
    story.screen.command(&command);
    story.screen.output(&fenced.join("\n"));
    // Two at most: the one in use, and the one before it or after it.
    loop {
        let accounts = story.stage.backend()?.accounts().await?;
        if accounts.len() <= 2 {
            break;
        }
        ensure!(begun.elapsed() < TAKEN_OVER, "accounts of killed brokers are left: {accounts:?}");
        tokio::time::sleep(POLL).await;
    }
    let count = service.count();
    ensure!(count.failed == 0, "a query failed: {:?}", count.failure);
    story.screen.holds("Their accounts are gone, and they serve again. The service never noticed.");
    Ok(())
}

/// Records of one kind, a line each.
fn events(stage: &Stage<Postgres>, event: &str) -> Result<Vec<String>> {
    let output = stage.run(&["audit", "show", "--event", event, "--format", "json"], &stage.config())?;
    ensure!(output.status.success(), "audit show: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

fn verify(story: &Story<'_>) -> Result<()> {
    story.screen.say("One log of all brokers, under one key:");
    story.screen.command(&format!("{} audit verify", shown(&story.stage.binary())));
    let verified = story.stage.run(&["audit", "verify"], &story.stage.config())?;
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    ensure!(verified.status.success(), "{said}{}", String::from_utf8_lossy(&verified.stderr));
    story.screen.output(said.trim_end());
    Ok(())
}
