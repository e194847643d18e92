//! A storm: several brokers on one store, with everything failing at random, under load; and afterwards every promise
//! held against the target, the store and the log.
//!
//! In scope: faults, load, checks. `cargo xtask storm` and the suite's module `storm` run it. The faults and what the
//! clients ask are drawn from a seed; how they fall together in time is the machine's.

pub mod check;
pub mod client;
pub mod diary;
pub mod fleet;
pub mod link;
pub mod load;
pub mod log;
pub mod plan;
pub mod report;
pub mod strike;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use xtask::servers::postgres::{self, PostgresServer, PostgresSettings};
use xtask::steps::Steps;

use crate::issuer::{Issuer, Key};
use crate::store_database::StoreDatabase;
use crate::world::{Settings, World};
use client::{Asker, FEW, MOST};
use diary::Diary;
use fleet::Fleet;
use load::Load;
pub use report::Report;
use strike::Struck;

/// The version of PostgreSQL; an installed one of another version serves as well.
const POSTGRES: u32 = 17;
/// How long all brokers may take to serve again after the last fault.
const ALL_BACK: Duration = Duration::from_secs(180);

/// What storm is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many brokers serve from the store.
    pub brokers: usize,
    /// How long it lasts, without what is checked afterwards.
    pub length: Duration,
    /// What faults and requests are drawn from.
    pub seed: u64,
}

/// Lets it storm, and says what was found. Where something is broken, the folder with the brokers' logs stays.
///
/// # Errors
/// When a server or a broker cannot be started, or does not come back.
pub async fn run(options: Options) -> Result<Report> {
    let diary = Arc::new(Diary::new(options.seed));
    let (store, target) = (server().await?, server().await?);
    let store_database = StoreDatabase::create(&store.url("postgres")).await?;
    let key = Key::generate("storm")?;
    let issuer = Issuer::start(&[&key]).await?;
    let settings = settings(&store_database, &target, &issuer);
    let mut world = World::prepared(settings).await;
    world.write_secret("store.password", &store_database.password)?;
    let (address, port) = (store_database.address.as_str(), store.port());
    let fleet = Fleet::start(&world, (address, port), options.brokers, &diary).await?;
    let asker = Arc::new(Asker::new(world.database.clone(), issuer, key, Arc::clone(&diary))?);
    let struck = Struck {
        fleet,
        store: Arc::new(Mutex::new(store)),
        target: Arc::new(Mutex::new(target)),
        diary: Arc::clone(&diary),
    };
    let result = storm(options, &world, &struck, &asker, &diary).await;
    struck.fleet.end().await;
    if !result.as_ref().is_ok_and(Report::holds) {
        world.folder.disable_cleanup(true);
        diary.say(&format!("the logs are in {}", world.folder.path().display()));
    }
    result
}

async fn storm(
    options: Options,
    world: &World,
    struck: &Struck,
    asker: &Arc<Asker>,
    diary: &Arc<Diary>,
) -> Result<Report> {
    let urls: Vec<String> = struck.fleet.members.iter().map(|member| member.url.clone()).collect();
    let faults = plan::draw(&mut StdRng::seed_from_u64(options.seed), options.brokers, options.length);
    diary.say(&format!("{} brokers serve; {} faults in {} s", options.brokers, faults.len(), options.length.as_secs()));
    let (load, ends) = (Load::begin(asker, &urls, options.seed), tokio::time::Instant::now() + options.length);
    let struck_all = struck.strike(&faults).await;
    tokio::time::sleep_until(ends).await;
    load.end().await?;
    struck_all?;
    struck.fleet.all_up(ALL_BACK).await?;
    diary.say("the storm is over; what is due is removed");
    let calm = Instant::now();
    let leases = check::settle(world, &struck.fleet, diary).await?;
    let settled = calm.elapsed();
    diary.say("nothing is due; every promise is checked");
    check::ask_everywhere(asker, &struck.fleet).await?;
    // The commands that read the store alone: they need no broker.
    let (verified, records) = (world.cli(&["audit", "verify"]), world.audit());
    if !verified.status.success() {
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        diary.broken("faults of the log", said + &String::from_utf8_lossy(&verified.stderr));
    }
    for member in &struck.fleet.members {
        let logged = member.log();
        for line in logged.lines().filter(|line| line.contains("panicked at")) {
            diary.broken("endings without a reason", format!("broker {}: {line}", member.number));
        }
    }
    let outcome = log::read_the_log(&records, &leases, &asker.known(), diary);
    Ok(Report { options, counts: diary.snapshot(), outcome, settled })
}

async fn server() -> Result<PostgresServer> {
    let start = || {
        let binaries = postgres::any(POSTGRES, &Steps::on_standard_error())?;
        let parameters = vec![("max_connections".to_owned(), "300".to_owned())];
        PostgresServer::start(binaries.bin(), &PostgresSettings { parameters, ..PostgresSettings::default() })
    };
    tokio::task::spawn_blocking(start).await?.context("no PostgreSQL")
}

/// A target with a quota for one workload; comparisons come often, so that they fall into every fault.
fn settings(store: &StoreDatabase, target: &PostgresServer, issuer: &Issuer) -> Settings {
    let plugins = crate::surroundings("JIT_TEST_PLUGINS");
    let issuer = &issuer.url;
    let more = format!(
        r#"
[[identity.jwt]]
name = "own"
issuer = "{issuer}"
audiences = ["jit-broker"]
workload = "{{sub}}"
[plugins.quota]
path = "{plugins}/policy-quota.wasm"
[policies.few]
plugin = "quota"
config = {{ limits = [{{ workloads = ["{FEW}"], per = "workload", leases = {MOST} }}] }}
[reconcile]
interval = "15s"
"#
    );
    Settings {
        policies: vec!["allow".to_owned(), "few".to_owned()],
        store: store.section(),
        superuser: Some(target.url("postgres")),
        more,
        ..Settings::default()
    }
}
