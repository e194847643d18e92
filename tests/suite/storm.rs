//! A short storm: brokers of one store, faults and requests from a seed, and every promise afterwards. The long one is
//! `cargo xtask storm`.

use std::time::Duration;

use jit_tests::storm::{self, Options};

/// The storm of the suite is the same each time; `cargo xtask storm` draws another one.
const SEED: u64 = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_after_a_short_storm() {
    let options = Options { brokers: 2, length: Duration::from_secs(40), seed: SEED };
    let report = storm::run(options).await.unwrap();
    assert!(report.holds(), "{report}");
    assert!(report.counts.faults.values().sum::<u64>() >= 3, "{report}");
    assert!(report.outcome.made > 20 && report.outcome.removed > 20 && report.counts.logins > 20, "{report}");
}
