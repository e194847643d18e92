//! The cells of the table, and what is done in each.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use jit_core::lease::LeaseState;
use jit_ledger_memory::{Fault, Faults};
use jit_pipeline::broker::Broker;

use crate::world::{Answer, World};

/// The commits of a flow are fewer than this; where the flow ends before it, the cell is one without a fault.
const MOST_COMMITS: u64 = 4;
/// Longer than every backoff of a removal that fails a few times.
pub(crate) const LONG: Duration = Duration::from_secs(300);

/// How a commit is lost, if it is.
const LOST: [Option<Fault>; 4] = [None, Some(Fault::Failed), Some(Fault::FailedButPersisted), Some(Fault::Stalled)];

/// What happens after the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// The process lives on.
    Lives,
    /// It dies, and another one starts.
    Dies,
}

/// One cell of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) commit: u64,
    pub(crate) lost: Option<Fault>,
    pub(crate) answer: Answer,
    pub(crate) after: After,
}

/// Every cell, each in a runtime of its own. All of them run, so that a fault shows in how many it does.
pub(crate) fn every_cell(flow: impl AsyncFn(Cell)) {
    let (mut cells, mut failed) = (0, Vec::new());
    for commit in 1..=MOST_COMMITS {
        for lost in LOST {
            // Without a fault the commit's number says nothing.
            if lost.is_none() && commit > 1 {
                continue;
            }
            for answer in Answer::ALL {
                for after in [After::Lives, After::Dies] {
                    let cell = Cell { commit, lost, answer, after };
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
                    let held = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(flow(cell))));
                    cells += 1;
                    if held.is_err() {
                        failed.push(cell);
                    }
                }
            }
        }
    }
    assert!(cells >= 100, "the table has {cells} cells");
    assert!(failed.is_empty(), "{} of {cells} cells failed, the first at {:?}", failed.len(), failed.first());
}

pub(crate) fn lose(world: &World, cell: Cell) {
    if let Some(fault) = cell.lost {
        world.ledger.plan(Faults::none().at(cell.commit, fault));
    }
}

/// The flow is over, and nothing fails any more: the same process goes on, or another one. Then time passes.
pub(crate) async fn go_on(world: &World, broker: Arc<Broker>, cell: Cell, time: Duration) -> Arc<Broker> {
    let broker = match cell.after {
        After::Lives => broker,
        After::Dies => {
            // What the old process had spawned stops where it next waits.
            broker.work.stopping.cancel();
            broker.work.tasks.close();
            world.restart().await
        }
    };
    world.mend();
    world.pass(&broker, time).await;
    broker
}

/// Nothing is left: no account, and no lease that is not over.
pub(crate) async fn nothing_is_left(world: &World, cell: Cell) {
    assert_eq!(world.backend.accounts().len(), 0, "{cell:?}: an account is left; {:?}", world.events().await);
    for lease in world.leases().await {
        assert_eq!(lease.state, LeaseState::Revoked, "{cell:?}: a lease is open; {:?}", world.events().await);
    }
}
