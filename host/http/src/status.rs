//! `GET /admin/status` and `GET /admin/tasks`: what a running broker says of itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use jit_api::status::{Alarm, BrokerRow, BrokerStatus, StoreStatus, TargetStatus, TaskResult, TaskRow, TaskState};
use jit_core::counted::counted;
use jit_core::lease::LeaseState;
use jit_core::name::TargetName;
use jit_ledger::{Counts, Peer, Store, configurations};
use jit_pipeline::broker::Broker;
use jit_pipeline::space::Room;
use jit_pipeline::tasks::removal;

use crate::admin::{Administered, reply};

/// How long the store may take to count the leases.
const STORE_DEADLINE: Duration = Duration::from_secs(2);
/// A removal that has been due for longer is something to look at. The first attempts need some seconds.
const LATE: u64 = 60;

/// What the handlers work with.
#[derive(Clone)]
struct Source {
    broker: Arc<Broker>,
    administered: Arc<dyn Administered>,
}

/// The routes.
pub fn router(broker: Arc<Broker>, administered: Arc<dyn Administered>) -> Router {
    let source = Source { broker, administered };
    Router::new()
        .route("/admin/status", get(status))
        .route("/admin/tasks", get(tasks))
        .route("/admin/metrics", get(metrics))
        .with_state(source)
}

async fn tasks(State(source): State<Source>) -> Response {
    reply(Ok(source.broker.board.rows()))
}

/// The same numbers as `GET /metrics`, as one JSON string: for `jit-broker top`, which knows only this socket.
async fn metrics(State(source): State<Source>) -> Response {
    reply(Ok(source.administered.metrics()))
}

async fn status(State(Source { broker, administered }): State<Source>) -> Response {
    let counted = tokio::time::timeout(STORE_DEADLINE, broker.store.counts(broker.clock.now())).await;
    let counted = counted.ok().and_then(Result::ok);
    let mut status = BrokerStatus {
        alarms: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        up_since: broker.board.began(),
        now: broker.clock.wall(),
        config: administered.config(),
        store: StoreStatus {
            kind: administered.store_kind().to_owned(),
            answers: counted.is_some(),
            records: *broker.store.log_size().borrow(),
            since: broker.birth.since,
            room: room(broker.ledger.room()).to_owned(),
        },
        brokers: brokers(&*broker.store),
        clock_jumped_seconds: broker.clock.jump().map(|jump| jump.by.as_secs()),
        held_accounts: broker.reconcile.held(),
        targets: targets(&broker, counted.unwrap_or_default()),
        tasks: broker.board.rows(),
    };
    status.alarms = alarms(&status, broker.board.down(removal::NAME).as_deref());
    reply(Ok(status))
}

fn brokers(store: &dyn Store) -> Vec<BrokerRow> {
    let Some(peers) = store.peers() else { return Vec::new() };
    let row = |peer: &Peer| BrokerRow {
        name: peer.name.clone(),
        since: peer.since,
        config: peer.config.clone(),
        this: peer.is_this,
    };
    peers.borrow().serving.iter().map(row).collect()
}

/// That brokers of the store have different configurations.
fn drift(brokers: &[BrokerRow]) -> Option<String> {
    let configs = configurations(brokers.iter().map(|row| row.config.as_deref()));
    (configs > 1).then(|| {
        let all = counted(brokers.len() as u64, "broker", "brokers");
        format!("the {all} of this store have {configs} different configurations; see \"brokers\" below")
    })
}

fn room(room: Room) -> &'static str {
    match room {
        Room::Ample => "ample",
        Room::Low => "low",
        Room::Stop => "stop",
    }
}

fn targets(broker: &Broker, counts: Counts) -> Vec<TargetStatus> {
    let mut targets: BTreeMap<String, TargetStatus> = BTreeMap::new();
    let of = |targets: &mut BTreeMap<String, TargetStatus>, target: &str, change: &dyn Fn(&mut TargetStatus)| {
        let new = || TargetStatus { target: target.to_owned(), ..TargetStatus::default() };
        change(targets.entry(target.to_owned()).or_insert_with(new));
    };
    for target in broker.serving.load().targets.keys() {
        of(&mut targets, target.as_str(), &|row| row.configured = true);
    }
    for ((target, state), count) in &counts.live {
        of(&mut targets, target, &|row| match state {
            LeaseState::Active => row.active = *count,
            LeaseState::Pending => row.pending = *count,
            LeaseState::Revoking => row.revoking = *count,
            LeaseState::Doubtful => row.doubtful = *count,
            LeaseState::Revoked => {}
        });
    }
    let now = broker.clock.now();
    for (target, (count, since)) in &counts.overdue {
        let late = u64::try_from(now.duration_since(*since).as_secs()).unwrap_or(0);
        of(&mut targets, target, &|row| (row.overdue, row.oldest_overdue_seconds) = (*count, late));
    }
    let serving = broker.serving.load();
    let mut targets: Vec<TargetStatus> = targets.into_values().collect();
    for row in &mut targets {
        let name = TargetName::new(row.target.clone());
        if let Some(away) = name.ok().and_then(|name| serving.reach.away(&name)) {
            (row.away_since, row.away_because) = (Some(away.since), Some(away.reason));
        }
    }
    targets
}

/// That removals are late although the target is there.
fn late(target: &TargetStatus) -> Option<String> {
    let (count, age) = (counted(target.overdue, "removal", "removals"), target.oldest_overdue_seconds);
    let is_late = target.overdue > 0 && age >= LATE;
    let name = &target.target;
    is_late.then(|| format!("{count} overdue, the oldest by {age} s; `jit-broker lease list --target {name}`"))
}

/// That a target is away, and what waits for it.
fn away(target: &TargetStatus) -> Option<String> {
    let since = target.away_since?;
    let since = Timestamp::from_second(since.as_second()).unwrap_or(since);
    let mut waits = match target.waiting().max(target.overdue) {
        0 => "no removal waits".to_owned(),
        1 => "1 removal waits".to_owned(),
        more => format!("{more} removals wait"),
    };
    if target.overdue > 0 {
        let _ = write!(waits, ", the oldest for {} s", target.oldest_overdue_seconds);
    }
    let why = target.away_because.as_deref().unwrap_or("nobody answers");
    Some(format!("away since {since}; nothing is created there; {waits}; {why}"))
}

/// What is wrong, the worst first: what keeps accounts alive that must go, then what keeps the broker from serving,
/// then the rest.
fn alarms(status: &BrokerStatus, removal_down: Option<&str>) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    let mut alarm = |about: String, what: String| alarms.push(Alarm { about, what });
    if let Some(why) = removal_down {
        let what = format!("no account is removed, and nothing new is handed out: {why}");
        alarm(format!("task {}", removal::NAME), what);
    }
    for target in &status.targets {
        if let Some(what) = away(target).or_else(|| late(target)) {
            alarm(format!("target {}", target.target), what);
        }
    }
    if !status.store.answers {
        alarm(
            "store".to_owned(),
            "it does not answer: nothing is handed out, and removals are not recorded".to_owned(),
        );
    }
    match status.store.room.as_str() {
        "stop" => alarm("store".to_owned(), "the disk is nearly full: nothing new is handed out".to_owned()),
        "low" => alarm("store".to_owned(), "the disk has little room".to_owned()),
        _ => {}
    }
    if let Some(seconds) = status.clock_jumped_seconds {
        let what =
            format!("the wall clock jumped by {seconds} s, and leases do not go by it; `jit-broker clock confirm`");
        alarm("clock".to_owned(), what);
    }
    if status.held_accounts > 0 {
        let what = format!(
            "{} held; `jit-broker reconcile --dry-run` lists them",
            counted(status.held_accounts, "removal", "removals")
        );
        alarm("reconcile".to_owned(), what);
    }
    if let Some(why) = &status.config.refused {
        alarm("config".to_owned(), format!("what the file says now is refused, and the former serves on: {why}"));
    }
    if let Some(what) = drift(&status.brokers) {
        alarm("brokers".to_owned(), what);
    }
    for task in &status.tasks {
        let known = removal_down.is_some() && task.name == removal::NAME;
        if let Some(what) = trouble(task).filter(|_| !known) {
            alarm(format!("task {}", task.name), what);
        }
    }
    alarms
}

/// What is wrong with a task.
fn trouble(task: &TaskRow) -> Option<String> {
    let since = |at: Option<Timestamp>| at.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string());
    match (task.state, task.last_result) {
        (TaskState::Ended, _) => Some("it has ended; restart the broker".to_owned()),
        (TaskState::Stuck, _) => Some(format!("a pass is stuck since {}", since(task.running_since))),
        (_, Some(TaskResult::Failed | TaskResult::Panicked)) => {
            let why = task.error.as_deref().unwrap_or("it does not say why");
            let passes = counted(task.failures_in_a_row.into(), "pass", "passes");
            Some(format!("{passes} in a row did not succeed: {why}"))
        }
        _ if !task.beside_panicked.is_empty() => {
            Some(format!("the code panicked over {}", task.beside_panicked.join(", ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jit_api::status::ConfigStatus;

    use super::*;

    fn task(name: &str) -> TaskRow {
        TaskRow {
            name: name.to_owned(),
            state: TaskState::Waiting,
            running_since: None,
            last_result: Some(TaskResult::Ok),
            last_ended: None,
            last_took_ms: None,
            did: BTreeMap::new(),
            error: None,
            last_success: None,
            next_run: None,
            runs: BTreeMap::new(),
            failures_in_a_row: 0,
            beside: 0,
            beside_since: None,
            beside_panicked: Vec::new(),
        }
    }

    fn well() -> BrokerStatus {
        let at = Timestamp::UNIX_EPOCH;
        BrokerStatus {
            alarms: Vec::new(),
            version: "1".to_owned(),
            up_since: at,
            now: at,
            config: ConfigStatus {
                path: None,
                loaded_at: at,
                trigger: "start".to_owned(),
                sha256: None,
                shared_sha256: None,
                refused: None,
            },
            store: StoreStatus {
                kind: "sqlite".to_owned(),
                answers: true,
                records: 0,
                since: at,
                room: "ample".to_owned(),
            },
            brokers: Vec::new(),
            clock_jumped_seconds: None,
            held_accounts: 0,
            targets: vec![TargetStatus {
                target: "shop".to_owned(),
                overdue: 2,
                oldest_overdue_seconds: LATE - 1,
                ..TargetStatus::default()
            }],
            tasks: vec![task("removal"), task("reconcile")],
        }
    }

    fn about(status: &BrokerStatus, down: Option<&str>) -> Vec<String> {
        alarms(status, down).into_iter().map(|alarm| alarm.about).collect()
    }

    #[test]
    fn a_broker_that_is_well_alarms_nobody() {
        assert!(about(&well(), None).is_empty());
    }

    #[test]
    fn each_trouble_is_one_alarm_and_the_worst_comes_first() {
        let mut status = well();
        status.targets[0].oldest_overdue_seconds = LATE;
        status.store.answers = false;
        status.store.room = "stop".to_owned();
        status.clock_jumped_seconds = Some(-3_600);
        status.held_accounts = 7;
        status.config.refused = Some("line 3".to_owned());
        status.tasks[0].state = TaskState::Stuck;
        status.tasks[1].last_result = Some(TaskResult::Failed);
        let expected =
            ["task removal", "target shop", "store", "store", "clock", "reconcile", "config", "task reconcile"];
        assert_eq!(about(&status, Some("it has ended")), expected);
    }

    #[test]
    fn a_target_that_is_away_says_since_when_and_what_waits() {
        let mut status = well();
        let shop = &mut status.targets[0];
        (shop.away_since, shop.away_because) = (Some(Timestamp::UNIX_EPOCH), Some("connection refused".to_owned()));
        (shop.revoking, shop.doubtful, shop.overdue, shop.oldest_overdue_seconds) = (2, 1, 3, LATE + 9);
        let alarms = alarms(&status, None);
        let expected = "away since 1970-01-01T00:00:00Z; nothing is created there; 3 removals wait, \
                        the oldest for 69 s; connection refused";
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        assert_eq!((alarms[0].about.as_str(), alarms[0].what.as_str()), ("target shop", expected));
        (status.targets[0].revoking, status.targets[0].doubtful, status.targets[0].overdue) = (0, 0, 0);
        assert!(super::alarms(&status, None)[0].what.contains("no removal waits"));
    }

    #[test]
    fn every_way_in_which_a_task_is_unwell_is_seen() {
        let sick = |change: fn(&mut TaskRow)| {
            let mut task = task("reconcile");
            change(&mut task);
            trouble(&task)
        };
        assert_eq!(sick(|_| ()), None);
        assert!(sick(|task| task.state = TaskState::Ended).is_some());
        assert!(sick(|task| task.state = TaskState::Stuck).is_some());
        assert!(sick(|task| task.last_result = Some(TaskResult::Failed)).is_some());
        assert!(sick(|task| task.last_result = Some(TaskResult::Panicked)).is_some());
        assert!(sick(|task| task.beside_panicked.push("lease_1".to_owned())).is_some());
        assert_eq!(sick(|task| task.last_result = None), None, "before its first pass has ended");
    }
}
