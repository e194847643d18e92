//! On paused time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;
use jit_api::status::{TaskRow, TaskState};
use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::ports::Clock;

const MINUTE: Duration = Duration::from_secs(60);

/// A wall clock that shows the paused time.
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn wall(&self) -> Timestamp {
        began() + self.0.elapsed()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

fn began() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What a pass of the test's task does.
enum Act {
    Done,
    Fails,
    Panics,
    /// Takes that long.
    Takes(Duration),
}

/// What test and task share.
#[derive(Default)]
struct Script {
    acts: Mutex<VecDeque<Act>>,
    wake: Notify,
    begun: Mutex<Vec<Instant>>,
    last: AtomicU32,
}

impl Script {
    fn passes(&self) -> usize {
        self.begun.lock().unwrap().len()
    }

    /// The time between the beginnings of one pass and the next.
    fn gaps(&self) -> Vec<Duration> {
        self.begun.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

struct Scripted(Arc<Script>, Next);

#[async_trait]
impl Task for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn pass(&mut self) -> Pass {
        self.0.begun.lock().unwrap().push(Instant::now());
        let act = self.0.acts.lock().unwrap().pop_front();
        match act {
            Some(Act::Fails) => return Pass::failed("the store is away"),
            Some(Act::Panics) => panic!("by the script"),
            Some(Act::Takes(time)) => sleep(time).await,
            Some(Act::Done) | None => {}
        }
        Pass::done([("things", 7)], self.1)
    }

    async fn woken(&mut self) {
        self.0.wake.notified().await;
    }

    async fn last(&mut self) {
        self.0.last.fetch_add(1, Ordering::SeqCst);
    }
}

struct Stage {
    script: Arc<Script>,
    board: Arc<Board>,
    stopping: CancellationToken,
    driver: Driver,
}

impl Stage {
    fn new(acts: impl IntoIterator<Item = Act>, next: Next) -> Self {
        let script = Arc::new(Script { acts: Mutex::new(acts.into_iter().collect()), ..Script::default() });
        let board = Arc::new(Board::new(Arc::new(PausedClock(Instant::now()))));
        let stopping = CancellationToken::new();
        let mut driver = Driver::new(Arc::clone(&board), stopping.clone());
        driver.start(Scripted(Arc::clone(&script), next));
        Self { script, board, stopping, driver }
    }

    fn row(&self) -> TaskRow {
        self.board.rows().into_iter().find(|row| row.name == "scripted").unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_during_a_pass_makes_one_more_pass_however_many_they_were() {
    let stage = Stage::new([Act::Takes(Duration::from_secs(1))], Next::WhenWoken);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.row().state, TaskState::Running);
    for _ in 0..3 {
        stage.script.wake.notify_one();
    }
    sleep(60 * MINUTE).await;
    assert_eq!(stage.script.passes(), 2);
    assert_eq!((stage.row().state, stage.row().next_run), (TaskState::Waiting, None));
}

#[tokio::test(start_paused = true)]
async fn the_board_shows_what_a_task_did_and_when_it_is_due() {
    let stage = Stage::new([], Next::In(MINUTE));
    sleep(Duration::from_secs(1)).await;
    let row = stage.row();
    assert_eq!((row.last_result, row.did.get("things")), (Some(TaskResult::Ok), Some(&7)));
    assert_eq!((row.last_success, row.next_run), (Some(began()), Some(began() + MINUTE)));
    sleep(MINUTE).await;
    assert_eq!((stage.row().runs.get(&TaskResult::Ok), stage.script.gaps()), (Some(&2), vec![MINUTE]));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_goes_on_and_counts_as_down_only_when_it_does_nothing_else() {
    let stage =
        Stage::new([Act::Panics, Act::Panics, Act::Done, Act::Panics, Act::Panics, Act::Panics], Next::In(MINUTE));
    sleep(Duration::from_millis(10)).await;
    let row = stage.row();
    assert_eq!((row.last_result, row.failures_in_a_row, row.last_success), (Some(TaskResult::Panicked), 1, None));
    assert!(row.error.unwrap().contains("panicked"));
    sleep(MINUTE).await;
    assert_eq!(stage.script.gaps(), [MIN_BACKOFF, 2 * MIN_BACKOFF]);
    assert_eq!((stage.row().last_result, stage.row().failures_in_a_row), (Some(TaskResult::Ok), 0));
    assert_eq!(stage.board.down("scripted"), None, "two panics are no end");
    // The third in a row comes three seconds after the first.
    sleep(Duration::from_secs(7)).await;
    assert_eq!(stage.row().runs.get(&TaskResult::Panicked), Some(&5));
    assert!(stage.board.down("scripted").unwrap().contains("panicked"));
    sleep(MINUTE).await;
    assert_eq!(stage.board.down("scripted"), None, "a good pass makes it well");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_backs_off_up_to_a_bound() {
    let stage = Stage::new((0..12).map(|_| Act::Fails), Next::In(MINUTE));
    sleep(10 * MINUTE).await;
    let pace = Pace::default();
    let gaps = &stage.script.gaps()[..12];
    assert!(gaps.is_sorted(), "{gaps:?}");
    assert_eq!((gaps[0], gaps[1], gaps[11]), (pace.first_backoff, 2 * pace.first_backoff, pace.last_backoff));
    assert_eq!(stage.board.down("scripted"), None, "failing is not being down");
}

#[tokio::test(start_paused = true)]
async fn a_wake_cuts_a_backoff_short_but_not_below_the_least() {
    let acts = (0..8).map(|_| Act::Fails);
    let stage = Stage::new(acts, Next::WhenWoken);
    // By now it waits for half a minute.
    sleep(Duration::from_secs(40)).await;
    let before = stage.script.passes();
    stage.script.wake.notify_one();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(stage.script.passes(), before + 1, "the wake was heard");
    for _ in 0..50 {
        stage.script.wake.notify_one();
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stage.script.passes(), before + 1, "wakes do not make it fail faster than once a second");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.script.passes(), before + 2, "the wakes in between were one");
}

#[tokio::test(start_paused = true)]
async fn a_pass_beyond_its_deadline_is_shown_as_stuck_and_not_ended() {
    let deadline = Pace::default().deadline;
    let stage = Stage::new([Act::Takes(deadline + MINUTE)], Next::In(MINUTE));
    sleep(deadline - Duration::from_secs(1)).await;
    assert_eq!((stage.row().state, stage.board.down("scripted")), (TaskState::Running, None));
    sleep(Duration::from_secs(2)).await;
    let row = stage.row();
    assert_eq!((row.state, row.running_since), (TaskState::Stuck, Some(began())));
    assert!(stage.board.down("scripted").unwrap().contains("longer than"));
    sleep(MINUTE).await;
    assert_eq!((stage.row().last_result, stage.script.passes()), (Some(TaskResult::Ok), 1), "it was let finish");
    assert_eq!(stage.board.down("scripted"), None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_pass_finish_and_begins_no_other() {
    let mut stage = Stage::new([Act::Takes(Duration::from_secs(3))], Next::In(Duration::ZERO));
    sleep(Duration::from_secs(1)).await;
    stage.script.wake.notify_one();
    stage.stopping.cancel();
    assert!(stage.driver.ended(Duration::from_secs(5)).await);
    assert_eq!((stage.script.passes(), stage.script.last.load(Ordering::SeqCst)), (1, 1));
    assert!(stage.board.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_wait_at_once_and_a_pass_that_hangs_after_a_while() {
    let mut waiting = Stage::new([], Next::WhenWoken);
    sleep(Duration::from_secs(1)).await;
    waiting.stopping.cancel();
    assert!(waiting.driver.ended(Duration::from_secs(5)).await);
    let mut hanging = Stage::new([Act::Takes(60 * MINUTE)], Next::WhenWoken);
    sleep(Duration::from_secs(1)).await;
    hanging.stopping.cancel();
    assert!(!hanging.driver.ended(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn work_beside_a_task_is_shown_and_its_panic_is_caught_and_named_until_it_succeeds() {
    let stage = Stage::new([], Next::WhenWoken);
    let board = Arc::clone(&stage.board);
    let slow = tokio::spawn(async move { board.beside("scripted", "shop", sleep(MINUTE)).await });
    sleep(Duration::from_secs(1)).await;
    assert_eq!((stage.row().beside, stage.row().beside_since), (1, Some(began())));
    slow.await.unwrap().unwrap();
    assert_eq!((stage.row().beside, stage.row().beside_since), (0, None));
    for _ in 0..2 {
        let panicking = async { panic!("by the test") };
        assert!(stage.board.beside::<()>("scripted", "shop", panicking).await.is_none());
    }
    assert_eq!((stage.row().beside, stage.row().beside_panicked), (0, vec!["shop".to_owned()]));
    assert_eq!(stage.board.beside("scripted", "shop", async { 7 }).await, Some(7));
    assert!(stage.row().beside_panicked.is_empty());
}

proptest! {
    #[test]
    fn chance_adds_at_most_a_tenth_to_a_period_and_takes_nothing(seconds in 0_u64..1_000_000, chance in 0.0_f64..1.0) {
        let period = Duration::from_secs(seconds);
        let wait = Next::Every(period).wait(chance).unwrap();
        prop_assert!(period <= wait && wait <= period + period.mul_f64(JITTER), "{wait:?}");
        prop_assert_eq!(Next::In(period).wait(chance), Some(period));
        prop_assert_eq!(Next::WhenWoken.wait(chance), None);
    }
}

#[tokio::test(start_paused = true)]
async fn periods_differ_by_chance_within_the_bounds() {
    let stage = Stage::new([], Next::Every(MINUTE));
    sleep(40 * MINUTE).await;
    let gaps = stage.script.gaps();
    assert!(
        gaps.len() >= 30 && gaps.iter().all(|gap| (MINUTE..=MINUTE.mul_f64(1.0 + JITTER)).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "{gaps:?}");
}
