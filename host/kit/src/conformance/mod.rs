//! The conformance kit: puts any driver component through an account's whole life on a real
//! backend, with faults, and reports whether it keeps the contract (`wit/driver.wit`).
//!
//! In scope: what every driver promises, whatever its backend. Out of scope: what is particular to
//! one backend; that is in the driver's own tests.
//!
//! The kit calls the driver as the broker does, through the same facade, limits and connections. A
//! [`fixture`] says where the backend is and how an account logs in; a [`gate`] before a backend on
//! this machine plays outages and lost answers; [`stand`] holds both and remembers what was made.
//! A case is one function below [`cases`] and one row there.

pub mod cases;
pub mod clean;
pub mod fixture;
pub mod gate;
pub mod login;
pub mod report;
mod set_up;
pub mod stand;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jit_runtime::CompileWatch;

use cases::{CASES, Case};
use fixture::Fixture;
use report::{CaseResult, Report, Subject, Tested, Verdict};
use stand::{NotApplicable, NotTried, Stand};

/// How long one case may take; a case that hangs has failed.
const CASE_DEADLINE: Duration = Duration::from_secs(180);

/// A certificate of an authority that signed nothing and whose key is gone.
pub(crate) const STRANGE_AUTHORITY: &str = include_str!("strange_authority.pem");

/// What happens meanwhile, for whoever waits.
pub trait Progress {
    /// A case begins.
    fn begins(&self, place: usize, of: usize, case: &str);
    /// It has ended.
    fn ended(&self, result: &CaseResult);
}

/// Runs the cases whose names contain one of `only` (all of them when it is empty). `watch` hears whether the component
/// is compiled.
///
/// # Errors
/// When the component, the fixture or the backend is not fit to begin with. A case that fails is
/// no error: it is in the report.
pub async fn run(
    component: &Path,
    fixture: &Path,
    only: &[String],
    progress: &dyn Progress,
    watch: Arc<dyn CompileWatch>,
) -> Result<Report> {
    let chosen: Vec<&Case> =
        CASES.iter().filter(|case| only.is_empty() || only.iter().any(|part| case.name.contains(part))).collect();
    ensure!(!chosen.is_empty(), "no case has that in its name; `--list` shows them");
    let fixture = Fixture::load(fixture)?;
    let scratch = Scratch::new()?;
    let stand = Stand::set_up(component, &fixture, &scratch.0, watch).await?;
    // Before the first of many cases waits for it.
    stand.must_reach_the_backend().await?;
    let description = stand.driver.description();
    let mut report = Report {
        tested: Tested::Driver(Subject {
            name: description.name.clone(),
            version: description.version.clone(),
            sha256: stand.driver.sha256().to_owned(),
            features: description.features.iter().map(|feature| feature.to_string()).collect(),
        }),
        cases: Vec::new(),
        not_tried: not_tried(&stand),
    };
    for (place, case) in chosen.iter().enumerate() {
        progress.begins(place + 1, chosen.len(), case.name);
        let result = one(case, &stand).await;
        progress.ended(&result);
        report.cases.push(result);
    }
    Ok(report)
}

/// What the fixture does not let the kit see: the last line of the report.
fn not_tried(stand: &Stand) -> Vec<String> {
    let mut all = Vec::new();
    match &stand.login {
        None => {
            all.push("whether accounts can log in, with which rights, and whether they no longer can afterwards ([conformance.login])");
        }
        Some(login) => {
            if !login.knows_allowed() {
                all.push("whether accounts may do what they should ([conformance.login] allowed)");
            }
            if !login.knows_refused() {
                all.push("whether accounts may do more than they should ([conformance.login] refused)");
            }
            if login.keeps_sessions() && login.holds().is_empty() {
                all.push("whether what an account holds keeps it from being removed ([conformance.login] holds)");
            }
            if login.acts() && !login.knows_change_of_password() {
                all.push("accounts that change their own password ([conformance.login] change_password)");
            }
        }
    }
    if stand.gate.is_none() {
        all.push("outages and lost answers (the backend is not on this machine)");
    }
    all.into_iter().map(str::to_owned).collect()
}

async fn one(case: &Case, stand: &Stand) -> CaseResult {
    let began = Instant::now();
    let ran = match tokio::time::timeout(CASE_DEADLINE, (case.run)(stand)).await {
        Ok(ran) => ran,
        Err(_) => Err(anyhow::anyhow!("no end within {} s", CASE_DEADLINE.as_secs())),
    };
    // What a failed case left must not fail the next one, and what cannot be removed is a failure.
    let cleared = match tokio::time::timeout(CASE_DEADLINE, stand.clear()).await {
        Ok(cleared) => cleared.context("left behind"),
        Err(_) => Err(anyhow::anyhow!("what was made cannot be removed within {} s", CASE_DEADLINE.as_secs())),
    };
    let (verdict, detail) = match ran.and_then(|seen| cleared.map(|()| seen)) {
        Ok(seen) if stand.took_untried_login() => {
            let but = "whether accounts can log in was not tried";
            (Verdict::Passed, if seen.is_empty() { but.to_owned() } else { format!("{seen}; {but}") })
        }
        Ok(seen) => (Verdict::Passed, seen),
        Err(error) => match (error.downcast_ref::<NotApplicable>(), error.downcast_ref::<NotTried>()) {
            (Some(why), _) => (Verdict::NotApplicable, why.to_string()),
            (_, Some(why)) => (Verdict::Skipped, why.to_string()),
            (None, None) => (Verdict::Failed, format!("{error:#}")),
        },
    };
    stand.took_untried_login();
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    CaseResult { name: case.name.into(), promise: case.promise.into(), verdict, detail, millis }
}

/// A folder of the run's own, removed at its end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("jit-conformance-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
