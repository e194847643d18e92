//! The engine against a broker that answers as it is told, on a clock that the test moves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};
use jit_api::{Problem, Term};
use tokio::sync::oneshot;

use super::*;
use crate::clock::Sleep;
use crate::credential::Seen;
use crate::credential::tests::view;

/// Where the wall clock stands when a test begins.
const BEGIN: i64 = 1_800_000_000;

/// A clock whose time passes when a test says so, and whose wall can be set.
#[derive(Default)]
struct TestClock {
    now: Mutex<Duration>,
    sleepers: Mutex<Vec<(Duration, oneshot::Sender<()>)>>,
    set_by: AtomicI64,
}

impl TestClock {
    /// The broker's time, which nobody sets.
    fn broker(&self) -> Timestamp {
        Timestamp::from_second(BEGIN).unwrap() + SignedDuration::try_from(self.steady()).unwrap()
    }

    /// Lets time pass from one sleeper to the next, each of which does what it has to.
    async fn pass(&self, time: Duration) {
        let end = self.steady() + time;
        loop {
            settle().await;
            let due = {
                let mut sleepers = locked(&self.sleepers);
                sleepers.retain(|(_, wake)| !wake.is_closed());
                let next = sleepers.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(index, _)| index);
                next.filter(|index| sleepers[*index].0 <= end).map(|index| sleepers.swap_remove(index))
            };
            let Some((at, wake)) = due else { break };
            let mut now = locked(&self.now);
            *now = at.max(*now);
            let _ = wake.send(());
        }
        *locked(&self.now) = end;
        settle().await;
    }
}

/// Lets the tasks go on until they wait for the time: on one thread, without any other wait, they are done then.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        self.broker() + SignedDuration::from_secs(self.set_by.load(Ordering::Relaxed))
    }

    fn steady(&self) -> Duration {
        *locked(&self.now)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let (wake, woken) = oneshot::channel();
        locked(&self.sleepers).push((self.steady() + duration, wake));
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}

/// What a broker does with the next attempt.
#[derive(Clone)]
enum Act {
    Grant,
    /// A renewal that does not move the lease's end.
    Stuck,
    Refuse(u16, &'static str, Option<u64>),
    Vanish,
    /// It does what is asked, but the answer gets lost.
    LoseAnswer,
    Hang,
}

struct FakeBroker {
    clock: Arc<TestClock>,
    acts: Mutex<VecDeque<Act>>,
    /// What is done when no more is told.
    always: Mutex<Act>,
    asked: Mutex<Vec<(u64, String)>>,
    /// Accounts by key.
    made: Mutex<Vec<(String, Lease)>>,
    revoked: Mutex<Vec<String>>,
    /// How many leases each request gave back.
    given_back: Mutex<Vec<usize>>,
    term: u32,
    max: i64,
}

type Shared = Arc<FakeBroker>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn problem(status: u16, code: &str, retry_after: Option<u64>) -> Error {
    let json = serde_json::json!({"status": status, "code": code, "detail": "d", "retry_after_seconds": retry_after});
    Error::Refused(Box::new(serde_json::from_value::<Problem>(json).unwrap()))
}

fn gone() -> Error {
    Error::Unreachable { broker: "http://b/".into(), reason: "refused".into() }
}

impl FakeBroker {
    fn new(clock: &Arc<TestClock>, term: u32) -> Shared {
        Arc::new(Self {
            clock: Arc::clone(clock),
            acts: Mutex::default(),
            always: Mutex::new(Act::Grant),
            asked: Mutex::default(),
            made: Mutex::default(),
            revoked: Mutex::default(),
            given_back: Mutex::default(),
            term,
            max: i64::from(term) * 8,
        })
    }

    fn lease(&self, number: usize, max: Timestamp, issued_at: Timestamp) -> Lease {
        let now = self.clock.broker();
        let term = SignedDuration::from_secs(self.term.into());
        let expires_at = (now + term).min(max);
        let ttl = expires_at.duration_since(now).as_secs();
        let term = Term {
            issued_at,
            expires_at,
            ttl_seconds: u32::try_from(ttl).unwrap(),
            renew_after: now + SignedDuration::from_millis(ttl * 800),
            max_expires_at: max,
            renewable: true,
        };
        let view = view(&format!("lease_{number}"), &format!("v-{number}"), term);
        Lease { view, seen: Some(Seen { steady: self.clock.steady(), broker: now }) }
    }

    fn make(&self, key: &str) -> Credential {
        let mut made = locked(&self.made);
        let lease = match made.iter().find(|(known, _)| known == key) {
            Some((_, lease)) => lease.clone(),
            None => {
                let now = self.clock.broker();
                let lease = self.lease(made.len(), now + SignedDuration::from_secs(self.max), now);
                made.push((key.to_owned(), lease.clone()));
                lease
            }
        };
        Credential {
            username: lease.ephemeral_id.clone(),
            password: "geheim".into(),
            connection: None,
            properties: Default::default(),
            revocable: true,
            previous_valid_until: None,
            lease: Lease { seen: Some(Seen { steady: self.clock.steady(), broker: self.clock.broker() }), ..lease },
        }
    }

    fn next(&self, what: String) -> Act {
        locked(&self.asked).push((self.clock.steady().as_millis().try_into().unwrap(), what));
        locked(&self.acts).pop_front().unwrap_or_else(|| locked(&self.always).clone())
    }

    fn tell(&self, acts: impl IntoIterator<Item = Act>) {
        locked(&self.acts).extend(acts);
    }

    /// What was asked, without keys.
    fn asked(&self) -> Vec<String> {
        locked(&self.asked).iter().map(|(_, what)| what.split(' ').next().unwrap().to_owned()).collect()
    }

    fn keys(&self) -> Vec<String> {
        let asked = locked(&self.asked);
        asked.iter().filter_map(|(_, what)| what.strip_prefix("issue ").map(str::to_owned)).collect()
    }

    fn times(&self) -> Vec<u64> {
        locked(&self.asked).iter().map(|(at, _)| *at).collect()
    }
}

impl Ask for Shared {
    async fn issue(&self, _: &Request, key: &IdempotencyKey) -> Result<Credential, Error> {
        match self.next(format!("issue {}", key.as_str())) {
            Act::Grant | Act::Stuck => Ok(self.make(key.as_str())),
            Act::LoseAnswer => {
                self.make(key.as_str());
                Err(gone())
            }
            Act::Refuse(status, code, after) => Err(problem(status, code, after)),
            Act::Vanish => Err(gone()),
            Act::Hang => std::future::pending().await,
        }
    }

    async fn renew(&self, lease_id: &str, _: Option<Length>) -> Result<Lease, Error> {
        let act = self.next("renew".to_owned());
        let known = locked(&self.made).iter().map(|(_, lease)| lease).find(|lease| lease.lease_id == lease_id).cloned();
        match (act, known) {
            (Act::Refuse(status, code, after), _) => Err(problem(status, code, after)),
            (Act::Vanish | Act::LoseAnswer, _) => Err(gone()),
            (Act::Hang, _) => std::future::pending().await,
            (Act::Stuck, Some(lease)) => Ok(lease),
            (Act::Grant, Some(lease)) => {
                let number = lease_id.trim_start_matches("lease_").parse().unwrap();
                Ok(self.lease(number, lease.term.max_expires_at, lease.term.issued_at))
            }
            (_, None) => Err(problem(404, "unknown-lease", None)),
        }
    }

    async fn revoke(&self, leases: &[String]) -> Result<(), Error> {
        if matches!(*locked(&self.always), Act::Hang) {
            std::future::pending().await
        }
        locked(&self.revoked).extend(leases.iter().cloned());
        locked(&self.given_back).push(leases.len());
        Ok(())
    }
}

/// A watch over a fake broker, with what it told.
struct Stage {
    clock: Arc<TestClock>,
    broker: Shared,
    snapshots: watch::Receiver<Snapshot>,
    commands: mpsc::Sender<Command>,
    task: tokio::task::JoinHandle<Result<(), Error>>,
    alerts: Arc<Mutex<Vec<&'static str>>>,
}

fn stage(term: u32, change: impl FnOnce(&mut Settings)) -> Stage {
    let clock = Arc::new(TestClock::default());
    let broker = FakeBroker::new(&clock, term);
    let alerts: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let told = Arc::clone(&alerts);
    let mut settings = Settings {
        request: Request::new("t"),
        rotation: Rotation::RenewLease,
        retire: Retire::AtItsEnd,
        schedule: None,
        most_wait: None,
        alert: Some(Arc::new(move |alert: &Alert| locked(&told).push(alert.kind.as_str()))),
        revoke: true,
        close_deadline: Duration::from_secs(5),
    };
    change(&mut settings);
    let credential = broker.make("first");
    let snapshot = Snapshot {
        lease: credential.lease.clone(),
        credential: Some(Arc::new(credential)),
        state: State::Fresh,
        generation: 0,
        renewals: 0,
        failures: 0,
        last_error: None,
    };
    let (sender, snapshots) = watch::channel(snapshot);
    let (commands, received) = mpsc::channel(4);
    let engine = Engine::new(Arc::clone(&broker), clock.clone() as Arc<dyn Clock>, settings, sender, received);
    Stage { clock, broker, snapshots, commands, task: tokio::spawn(engine.run()), alerts }
}

impl Stage {
    async fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds)).await;
    }

    fn now(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    fn alerts(&self) -> Vec<&'static str> {
        locked(&self.alerts).clone()
    }

    async fn close(self) -> Result<(), Error> {
        let _ = self.commands.send(Command::Close).await;
        self.task.await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_is_renewed_until_its_cap_and_then_replaced() {
    let stage = stage(3_600, |_| {});
    stage.pass(3_600 * 8).await;
    let asked = stage.broker.asked();
    let renewals = asked.iter().take_while(|what| *what == "renew").count();
    assert!(renewals >= 7, "{asked:?}");
    assert_eq!(asked[renewals], "issue", "{asked:?}");
    assert_eq!(stage.now().generation, 1);
    assert_eq!(stage.now().credential.unwrap().username, "v-1");
    assert_eq!((stage.now().state, stage.alerts()), (State::Fresh, vec![]));
    // The first within its window: 70 % to 80 %.
    let first = stage.broker.times()[0];
    assert!((2_520_000..=2_881_000).contains(&first), "{first}");
}

#[tokio::test]
async fn new_accounts_each_time_where_that_is_wanted() {
    let stage = stage(4, |settings| settings.rotation = Rotation::NewAccount);
    stage.pass(20).await;
    let asked = stage.broker.asked();
    assert!((5..=8).contains(&asked.len()) && asked.iter().all(|what| what == "issue"), "{asked:?}");
    let mut keys = stage.broker.keys();
    keys.dedup();
    assert_eq!(keys.len(), asked.len(), "each its own key");
    assert_eq!(stage.now().generation, asked.len() as u64);
    assert_eq!(*locked(&stage.broker.revoked), [] as [&str; 0], "the old ones end by themselves");
    let last = stage.now().lease.lease_id.clone();
    let broker = Arc::clone(&stage.broker);
    stage.close().await.unwrap();
    assert!(locked(&broker.revoked).contains(&last));
    let given_back = locked(&broker.given_back).clone();
    assert!(given_back.len() == 1 && given_back[0] >= 2, "all of them in one request: {given_back:?}");
}

#[tokio::test]
async fn an_outage_across_the_renewal_harms_nobody() {
    let stage = stage(3_600, |_| {});
    *locked(&stage.broker.always) = Act::Vanish;
    stage.pass(2_880 + 100).await;
    assert_eq!(stage.alerts(), ["jit-broker-unreachable"], "once, though it goes on");
    *locked(&stage.broker.always) = Act::Grant;
    stage.pass(31).await;
    assert_eq!(stage.alerts(), ["jit-broker-unreachable", "jit-broker-recovered"]);
    assert_eq!((stage.now().state, stage.now().generation, stage.now().renewals), (State::Fresh, 0, 1));
    // Bursts of five, within their bounds.
    let times = stage.broker.times();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.len() >= 6, "{gaps:?}");
    for (gap, most) in gaps.iter().zip([2_000, 4_000, 8_000, 16_000, 30_000, 2_000]) {
        assert!(*gap <= most + 10, "{gaps:?}");
    }
    assert!(gaps[4] >= 15_000, "a pause between bursts: {gaps:?}");
}

#[tokio::test]
async fn an_outage_past_the_expiry_is_told_and_ends_by_itself() {
    let stage = stage(600, |_| {});
    *locked(&stage.broker.always) = Act::Vanish;
    stage.pass(520).await;
    assert_eq!(stage.now().state, State::AtRisk);
    stage.pass(100).await;
    assert_eq!(stage.now().state, State::Expired);
    assert_eq!(stage.alerts(), ["jit-broker-unreachable", "jit-credential-expired"]);
    assert!(stage.now().last_error.unwrap().contains("does not answer"));
    stage.pass(3_600).await;
    let before = stage.broker.times().len();
    assert!(before < 4_000 / 3, "it does not spin: {before}");
    *locked(&stage.broker.always) = Act::Grant;
    stage.pass(31).await;
    assert_eq!((stage.now().state, stage.now().generation), (State::Fresh, 1));
    assert_eq!(stage.alerts().last(), Some(&"jit-broker-recovered"));
    assert_eq!(stage.broker.asked().last().unwrap(), "issue", "an expired lease is not renewed");
}

#[tokio::test]
async fn a_lost_answer_never_makes_two_accounts() {
    let stage = stage(600, |settings| settings.rotation = Rotation::NewAccount);
    stage.broker.tell([Act::LoseAnswer, Act::Refuse(503, "overloaded", Some(1)), Act::LoseAnswer, Act::Grant]);
    stage.pass(520).await;
    let keys = stage.broker.keys();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]), "one key for one intent: {keys:?}");
    assert_eq!(locked(&stage.broker.made).len(), 2, "the first and one more");
    stage.pass(600).await;
    assert_ne!(stage.broker.keys()[4], keys[0], "a new intent has a new one");
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let stage = stage(3_600, |_| {});
    stage.broker.tell([Act::Refuse(429, "rate-limited", Some(60)), Act::Refuse(503, "overloaded", Some(90))]);
    stage.pass(3_200).await;
    let times = stage.broker.times();
    assert!((60_000..=62_100).contains(&(times[1] - times[0])), "{times:?}");
    assert!((90_000..=92_100).contains(&(times[2] - times[1])), "{times:?}");
    assert_eq!(stage.now().renewals, 1);
    assert_eq!(stage.alerts(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_lease_that_is_gone_is_replaced_at_once() {
    for (status, code) in [(404, "unknown-lease"), (409, "lease-not-active"), (403, "policy-denied")] {
        let stage = stage(3_600, |_| {});
        stage.broker.tell([Act::Refuse(status, code, None)]);
        stage.pass(2_900).await;
        assert_eq!(stage.broker.asked(), ["renew", "issue"], "{code}");
        let times = stage.broker.times();
        assert!(times[1] - times[0] < 100, "{times:?}");
        assert_eq!((stage.now().state, stage.now().generation), (State::Fresh, 1));
    }
}

#[tokio::test]
async fn a_refusal_is_told_as_one_and_asked_again_slowly() {
    let stage = stage(3_600, |settings| settings.rotation = Rotation::NewAccount);
    *locked(&stage.broker.always) = Act::Refuse(403, "policy-denied", None);
    stage.pass(2_880 + 600).await;
    assert_eq!(stage.alerts(), ["jit-broker-refuses"]);
    assert_eq!(stage.now().state, State::AtRisk);
    let asked = stage.broker.asked().len();
    assert!((20..=70).contains(&asked), "twice a minute to four times: {asked}");
    *locked(&stage.broker.always) = Act::Grant;
    stage.pass(31).await;
    assert_eq!((stage.now().state, stage.alerts().last()), (State::Fresh, Some(&"jit-broker-recovered")));
}

#[tokio::test]
async fn a_wall_clock_that_is_set_changes_nothing() {
    for hour in [3_600, -3_600] {
        let stage = stage(1_200, |_| {});
        for _ in 0..10 {
            stage.pass(300).await;
            stage.clock.set_by.fetch_add(hour, Ordering::Relaxed);
        }
        stage.pass(600).await;
        let asked = stage.broker.asked();
        assert!((3..=5).contains(&asked.len()), "neither a spin nor a sleep: {asked:?}");
        assert_eq!((stage.now().state, stage.now().generation, stage.alerts()), (State::Fresh, 0, vec![]));
    }
}

#[tokio::test]
async fn a_renewal_that_gains_nothing_does_not_spin() {
    let stage = stage(3_600, |_| {});
    stage.broker.tell(vec![Act::Stuck; 50]);
    stage.pass(3_590).await;
    let asked = stage.broker.asked();
    assert_eq!(asked[..2], ["renew", "issue"], "{asked:?}");
    assert!(asked.len() <= 3, "{asked:?}");
}

#[tokio::test]
async fn a_former_lease_is_given_back_after_its_grace() {
    let stage = stage(600, |settings| {
        settings.rotation = Rotation::NewAccount;
        settings.retire = Retire::After(Duration::from_secs(30));
    });
    stage.pass(485).await;
    assert_eq!(stage.now().generation, 1);
    stage.pass(30).await;
    assert_eq!(*locked(&stage.broker.revoked), ["lease_0"]);
}

#[tokio::test]
async fn an_interval_shorter_than_the_term_is_kept() {
    let stage = stage(3_600, |settings| settings.most_wait = Some(Duration::from_secs(60)));
    stage.pass(600).await;
    assert!((9..=10).contains(&stage.broker.asked().len()), "{:?}", stage.broker.times());
}

#[tokio::test]
async fn a_new_account_on_request() {
    let stage = stage(3_600, |_| {});
    stage.commands.send(Command::Rotate).await.unwrap();
    stage.pass(1).await;
    assert_eq!((stage.broker.asked(), stage.now().generation), (vec!["issue".to_owned()], 1));
}

#[tokio::test]
async fn the_end_gives_back_what_is_held_also_when_the_handle_is_only_dropped() {
    let held = stage(3_600, |_| {});
    let broker = Arc::clone(&held.broker);
    let mut snapshots = held.snapshots.clone();
    drop(held.commands);
    held.task.await.unwrap().unwrap();
    assert_eq!(*locked(&broker.revoked), ["lease_0"]);
    assert_eq!(snapshots.borrow_and_update().state, State::Closed);

    let keeps = stage(3_600, |settings| settings.revoke = false);
    let broker = Arc::clone(&keeps.broker);
    keeps.close().await.unwrap();
    assert_eq!(*locked(&broker.revoked), [] as [&str; 0]);
}

#[tokio::test]
async fn the_end_is_bounded_whatever_the_broker_does() {
    // In the middle of an attempt that hangs, and giving back hangs as well.
    let stage = stage(600, |_| {});
    *locked(&stage.broker.always) = Act::Hang;
    stage.pass(490).await;
    assert_eq!(stage.broker.asked(), ["renew"]);
    let _ = stage.commands.send(Command::Close).await;
    // A quarter of the deadline for the attempt, all of it for giving back.
    stage.pass(7).await;
    let error = stage.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("gave up"), "{error}");
}
