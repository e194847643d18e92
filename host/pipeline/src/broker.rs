//! The one place that puts the flows together, for the process that serves them. No flow knows it: each gets what
//! stands in its own type, and a test of one makes only that.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jit_core::brake::Bound;
use jit_identity::Identity;
use jit_ledger::Store;
use jit_ledger::audit::archive::Exported;

use crate::birth::Birth;
use crate::clock::LeaseClock;
use crate::denials::{DenialBudget, Denials};
use crate::end::EndFlow;
use crate::gate::Gate;
use crate::issue::IssueFlow;
use crate::ledger::Ledger;
use crate::leftover::Leftovers;
use crate::limits::RateLimits;
use crate::permit::DecideFlow;
use crate::places::Places;
use crate::ports::Clock;
use crate::ready::Ready;
use crate::removal::RemovalFlow;
use crate::renew::RenewFlow;
use crate::replay::{Abandoned, Handovers, ReplayFlow, Turns};
use crate::revoke::RevokeFlow;
use crate::rotation::RotationFlow;
use crate::rotation::issue::HandOutFlow;
use crate::rotation::operate::OperateFlow;
use crate::sealing::Sealer;
use crate::space::Space;
use crate::target::Serving;
use crate::tasks::archive::{ArchiveFlow, Archiving};
use crate::tasks::board::Board;
use crate::tasks::housekeeping::HousekeepingFlow;
use crate::tasks::maintain::UpkeepFlow;
use crate::tasks::peers::PeersFlow;
use crate::tasks::reconcile::{Brake, Listings, ReconcileFlow};
use crate::tasks::removal::SweepFlow;
use crate::tasks::rotation::Beside;
use crate::undo::UndoFlow;
use crate::verifying::Verifying;
use crate::work::{Wake, Work};

/// The flows of one process, and the state that they share with what is around them.
pub struct Broker {
    /// Deciding without effect.
    pub decide: DecideFlow,
    /// `POST /issue`.
    pub issue: Arc<IssueFlow>,
    /// A later expiry.
    pub renew: Arc<RenewFlow>,
    /// Ending leases on request.
    pub revoke: Arc<RevokeFlow>,
    /// Taking back what was not fetched.
    pub undo: Arc<UndoFlow>,
    /// Recovery after a crash.
    pub end: EndFlow,
    /// The task of removals.
    pub sweep: Arc<SweepFlow>,
    /// Comparing store and targets.
    pub reconcile: Arc<ReconcileFlow>,
    /// Until when a rotating account's password works.
    pub rotation: Arc<RotationFlow>,
    /// What operators ask of rotations; its task.
    pub operate: OperateFlow,
    /// Sweeping.
    pub housekeeping: Arc<HousekeepingFlow>,
    /// Archiving the log.
    pub archive: Arc<ArchiveFlow>,

    /// Leases and audit log, for what only reads or follows them.
    pub store: Arc<dyn Store>,
    /// The same, for records of the process itself.
    pub ledger: Ledger,
    /// What is served now; swapped whole at a reload.
    pub serving: Arc<ArcSwap<Serving>>,
    /// Who may ask; swapped whole at a reload.
    pub identity: ArcSwap<Identity>,
    /// How much one workload may ask.
    pub limits: Arc<RateLimits>,
    /// Accounts that only a person can remove; read from the store at a start.
    pub leftovers: Arc<Leftovers>,
    /// Where the accounts are; asked at a reload.
    pub places: Arc<Places>,
    /// The time that leases go by.
    pub clock: Arc<LeaseClock>,
    /// The mark on its accounts, and how old its store is.
    pub birth: Arc<Birth>,
    /// How far each export is.
    pub exported: Vec<Arc<Exported>>,
    /// Passwords that are made ahead.
    pub ready: Arc<Ready>,
    /// What wakes the background tasks.
    pub wake: Arc<Wake>,
    /// What the background tasks do and did.
    pub board: Arc<Board>,
    /// What must end before the process does.
    pub work: Work,
}

/// What [`Broker::new`] needs.
pub struct Parts {
    /// Leases and audit log.
    pub store: Arc<dyn Store>,
    /// Room on the disk.
    pub space: Space,
    /// How many exports there are.
    pub exports: usize,
    /// Where the log is archived.
    pub archive: Option<Archiving>,
    /// What is served.
    pub serving: Arc<Serving>,
    /// Who may ask.
    pub identity: Identity,
    /// How much one workload may ask.
    pub limits: RateLimits,
    /// How many denials of one workload are recorded in full.
    pub denials: DenialBudget,
    /// From how many accounts that only a person can remove an owner gets no new one in the same target.
    pub most_leftovers: usize,
    /// Seals what the store may hold of passwords.
    pub sealer: Option<Arc<Sealer>>,
    /// The mark on its accounts, and how old its store is.
    pub birth: Birth,
    /// How many accounts without a lease are removed without asking.
    pub bound: Bound,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
}

impl Broker {
    /// Puts the parts together, from the store up: first what ends leases, since all else may have to.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let store = parts.store;
        let ledger = Ledger::new(Arc::clone(&store), Arc::new(parts.space), Arc::new(Denials::new(parts.denials)));
        let board = Arc::new(Board::new(Arc::clone(&parts.clock)));
        let clock = Arc::new(LeaseClock::new(parts.clock));
        let serving = Arc::new(ArcSwap::new(parts.serving));
        let birth = Arc::new(parts.birth);
        let (places, listings) = (Arc::new(Places::default()), Arc::new(Listings::default()));
        let leftovers = Arc::new(Leftovers::new(parts.most_leftovers));
        let (handovers, abandoned) = (Arc::new(Handovers::default()), Arc::new(Abandoned::default()));
        let limits = Arc::new(parts.limits);
        let exported: Vec<Arc<Exported>> = (0..parts.exports).map(|_| Arc::default()).collect();
        let ready = Arc::new(Ready::default());
        let (wake, work) = (Arc::new(Wake::default()), Work::default());

        let end = EndFlow { ledger: ledger.clone(), clock: Arc::clone(&clock), handovers: Arc::clone(&handovers) };
        let removal = Arc::new(RemovalFlow::new(
            end.clone(),
            Arc::clone(&serving),
            Arc::clone(&places),
            Arc::clone(&birth),
            Arc::clone(&leftovers),
            Arc::clone(&listings),
            Arc::clone(&wake),
        ));
        let undo = Arc::new(UndoFlow {
            removal: Arc::clone(&removal),
            abandoned: Arc::clone(&abandoned),
            board: Arc::clone(&board),
            wake: Arc::clone(&wake),
            work: work.clone(),
        });
        let revoke = RevokeFlow {
            ledger: ledger.clone(),
            removal: Arc::clone(&removal),
            wake: Arc::clone(&wake),
            work: work.clone(),
        };
        let sweep = SweepFlow { removal, board: Arc::clone(&board), work: work.clone() };
        let reconcile = ReconcileFlow {
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            serving: Arc::clone(&serving),
            places: Arc::clone(&places),
            birth: Arc::clone(&birth),
            brake: Brake::new(parts.bound),
            listings,
            end: end.clone(),
            wake: Arc::clone(&wake),
        };
        let rotation =
            Arc::new(RotationFlow::new(ledger.clone(), Arc::clone(&clock), Arc::clone(&places), parts.sealer));
        let operate =
            OperateFlow { rotation: Arc::clone(&rotation), serving: Arc::clone(&serving), wake: Arc::clone(&wake) };
        let hand_out = Arc::new(HandOutFlow {
            ledger: ledger.clone(),
            rotation: Arc::clone(&rotation),
            serving: Arc::clone(&serving),
            wake: Arc::clone(&wake),
            undo: Arc::clone(&undo),
        });
        let decide = DecideFlow { ledger: ledger.clone(), serving: Arc::clone(&serving), clock: Arc::clone(&clock) };
        let replay = ReplayFlow {
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            decide: decide.clone(),
            serving: Arc::clone(&serving),
            places: Arc::clone(&places),
            handovers: Arc::clone(&handovers),
            abandoned,
            hand_out: Arc::clone(&hand_out),
        };
        let gate = || Gate { board: Arc::clone(&board), ledger: ledger.clone() };
        let issue = IssueFlow {
            gate: gate(),
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            decide: decide.clone(),
            verifying: Verifying::default(),
            ready: Arc::clone(&ready),
            turns: Turns::default(),
            replay,
            hand_out,
            leftovers: Arc::clone(&leftovers),
            places: Arc::clone(&places),
            birth: Arc::clone(&birth),
            handovers: Arc::clone(&handovers),
            wake: Arc::clone(&wake),
            undo: Arc::clone(&undo),
        };
        let renew = RenewFlow {
            gate: gate(),
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            decide: decide.clone(),
            places: Arc::clone(&places),
            end: end.clone(),
            wake: Arc::clone(&wake),
        };
        let housekeeping = HousekeepingFlow {
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            serving: Arc::clone(&serving),
            handovers,
            limits: Arc::clone(&limits),
            undo: Arc::clone(&undo),
            wake: Arc::clone(&wake),
        };
        let archive = ArchiveFlow {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            plan: parts.archive,
            exported: exported.clone(),
            running: tokio::sync::Mutex::default(),
        };
        Self {
            decide,
            issue: Arc::new(issue),
            renew: Arc::new(renew),
            revoke: Arc::new(revoke),
            undo,
            end,
            sweep: Arc::new(sweep),
            reconcile: Arc::new(reconcile),
            rotation,
            operate,
            housekeeping: Arc::new(housekeeping),
            archive: Arc::new(archive),
            store,
            ledger,
            serving,
            identity: ArcSwap::from_pointee(parts.identity),
            limits,
            leftovers,
            places,
            clock,
            birth,
            exported,
            ready,
            wake,
            board,
            work,
        }
    }

    /// For the task that calls drivers between requests.
    #[must_use]
    pub fn upkeep(&self) -> UpkeepFlow {
        UpkeepFlow {
            store: Arc::clone(&self.store),
            serving: Arc::clone(&self.serving),
            wake: Arc::clone(&self.wake),
            board: Arc::clone(&self.board),
        }
    }

    /// For the task that takes over what other brokers of the store left.
    #[must_use]
    pub fn peers(&self) -> PeersFlow {
        PeersFlow {
            end: self.end.clone(),
            leftovers: Arc::clone(&self.leftovers),
            exported: self.exported.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// Where the rotations run.
    #[must_use]
    pub fn beside(&self) -> Beside {
        Beside { board: Arc::clone(&self.board), work: self.work.clone() }
    }
}
