use proptest::prelude::*;

use super::*;

fn schedule(period: u32, overlap: u32) -> Schedule {
    let ttl = |seconds: u32| Ttl::from_seconds(i64::from(seconds)).unwrap();
    Schedule::new(ttl(period), ttl(overlap)).unwrap()
}

/// An overlap of so many hundredths of the period.
fn parted(period: u32, part: u32) -> Schedule {
    schedule(period, (period * part / 100).clamp(1, period - 1))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn readable<S>(_: &Held<S>) -> bool {
    true
}

#[test]
fn an_overlap_is_shorter_than_its_period() {
    let hour = Ttl::from_seconds(3_600).unwrap();
    assert_eq!(Schedule::new(hour, hour), Err(ScheduleError));
}

#[test]
fn an_account_of_which_nothing_is_known_gets_a_password_of_a_new_number() {
    let hour = schedule(3_600, 600);
    let forgotten = Rotation::<u32>::forgotten(Generation(7));
    assert_eq!((forgotten.word(), forgotten.due(at(0), readable)), ("unknown", Due::Now(Step::Begin)));
    let staging = forgotten.begin(1, hour, at(0)).unwrap();
    assert_eq!((staging.highest(), staging.next_generation()), (Generation(8), Generation(9)));
    let rotated = staging.staged(at(0), at(600)).unwrap();
    assert_eq!((rotated.highest(), rotated.forgotten), (Generation(8), Generation(0)));
}

#[test]
fn goes_round_and_keeps_the_password_that_works() {
    let hour = schedule(3_600, 600);
    let never = Rotation::<u32>::default();
    assert_eq!((never.word(), never.due(at(0), readable)), ("unknown", Due::Now(Step::Begin)));
    assert_eq!(never.usable_until(at(0)), None);

    let staging = never.begin(1, hour, at(0)).unwrap();
    assert_eq!(staging.due(at(9), readable), Due::Now(Step::Stage));
    assert!(staging.current.is_none(), "a password that may not work yet is not handed out");

    let overlapping = staging.staged(at(10), staging.overlap_end(at(10))).unwrap();
    assert_eq!(overlapping.due(at(10), readable), Due::At(at(610)));
    assert_eq!(overlapping.previous_valid_until(), Some(at(610)));
    assert_eq!(overlapping.due(at(610), readable), Due::Now(Step::Discard));
    assert!(overlapping.begin(2, hour, at(620)).is_err(), "nothing is staged while an overlap is in progress");

    let stable = overlapping.discarded().unwrap();
    assert_eq!(stable.due(at(611), readable), Due::At(at(3_610)));
    let again = stable.begin(2, hour, at(3_610)).unwrap();
    assert_eq!(again.current.as_ref().map(|held| held.secret), Some(1), "callers get the last good one");
    assert_eq!(again.next_generation(), Generation(3));
}

#[test]
fn says_how_long_a_password_works() {
    let hour = schedule(3_600, 600);
    let first = Rotation::default().begin(1, hour, at(0)).unwrap().staged(at(0), at(600)).unwrap();
    assert_eq!(first.usable_until(at(0)), Some(at(4_200)), "to the next rotation and its overlap");
    let stable = first.discarded().unwrap();
    assert_eq!(stable.usable_until(at(5_000)), Some(at(5_600)), "a late rotation has its overlap too");
    let asked = stable.ask();
    assert_eq!(asked.usable_until(at(1_000)), Some(at(1_600)), "it may begin at any moment");
    let second = asked.begin(2, hour, at(1_000)).unwrap();
    assert_eq!(second.usable_until(at(1_010)), Some(at(1_610)), "and while it is under way");
    let second = second.staged(at(1_020), at(1_620)).unwrap();
    assert_eq!(second.ends(Generation(1), at(1_100)), Some(at(1_620)));
    assert_eq!(second.ends(Generation(1), at(1_620)), None);
    assert_eq!(second.ends(Generation(2), at(1_100)), Some(at(1_020 + 4_200)));
    assert_eq!(second.discarded().unwrap().ends(Generation(1), at(1_100)), None);
}

#[test]
fn what_is_asked_during_an_overlap_waits_for_its_end() {
    let hour = schedule(3_600, 600);
    let first = Rotation::default().begin(1, hour, at(0)).unwrap().staged(at(0), at(600)).unwrap().ask();
    assert_eq!(first.due(at(100), readable), Due::At(at(600)));
    assert_eq!(first.usable_until(at(100)), Some(at(1_200)));
    assert_eq!(first.discarded().unwrap().due(at(600), readable), Due::Now(Step::Begin));
    let under_way = Rotation::default().begin(1, hour, at(0)).unwrap();
    assert!(!under_way.ask().asked, "it is being done already");
}

#[test]
fn a_password_that_cannot_be_read_is_replaced_when_nobody_loses_by_it() {
    let hour = schedule(3_600, 600);
    let lost = |_: &Held<u32>| false;
    let staging = Rotation::default().begin(1, hour, at(0)).unwrap();
    assert_eq!(staging.due(at(1), lost), Due::Now(Step::Begin));
    assert_eq!(staging.begin(2, hour, at(1)).unwrap().staged(at(2), at(602)).unwrap().next_generation(), Generation(3));
    let overlapping = staging.staged(at(1), at(601)).unwrap();
    assert_eq!(overlapping.due(at(2), lost), Due::At(at(601)), "who has the one before keeps it");
    assert_eq!(overlapping.discarded().unwrap().due(at(601), lost), Due::Now(Step::Begin));
}

#[test]
fn a_changed_schedule_holds_from_the_next_password_on() {
    let (long, short) = (schedule(3_600, 600), schedule(60, 5));
    let first = Rotation::default().begin(1, long, at(0)).unwrap().staged(at(0), at(600)).unwrap();
    let second = first.discarded().unwrap().begin(2, short, at(3_600)).unwrap();
    assert_eq!(second.overlap_end(at(3_600)), at(4_200), "as those who hold the first were told");
    let second = second.staged(at(3_600), at(4_200)).unwrap();
    assert_eq!(second.usable_until(at(3_600)), Some(at(3_665)));
}

#[test]
fn an_account_is_taken_back_from_wherever_it_stands() {
    let hour = schedule(3_600, 600);
    let first = Rotation::default().begin(1, hour, at(0)).unwrap();
    let overlapping = first.staged(at(1), at(601)).unwrap();
    let stable = overlapping.discarded().unwrap();
    for (from, generation) in [(first, 2), (overlapping, 2), (stable.ask(), 2), (Rotation::default(), 1)] {
        let taken = from.take_back(9, hour, at(10));
        assert_eq!(taken.due(at(10), readable), Due::Now(Step::Replace));
        assert_eq!(taken.usable_until(at(10)), None, "the current one works no longer");
        assert!(taken.staged(at(10), at(20)).is_err() && taken.begin(10, hour, at(11)).unwrap().is_being_replaced());
        let current = taken.replaced(at(12)).unwrap();
        assert_eq!((current.word(), current.asked), ("stable", false));
        assert_eq!(current.current.as_ref().unwrap().generation, Generation(generation));
        assert_eq!(current.previous_valid_until(), None);
        assert!(current.replaced(at(13)).is_err());
        let json = serde_json::to_string(&taken).unwrap();
        assert_eq!(serde_json::from_str::<Rotation<u32>>(&json).unwrap(), taken, "{json}");
    }
}

#[test]
fn what_is_stored_is_read_back() {
    let hour = schedule(3_600, 600);
    let staging = Rotation::default().begin("a".to_owned(), hour, at(0)).unwrap();
    let overlapping = staging.staged(at(1), at(61)).unwrap();
    for rotation in [Rotation::default(), staging, overlapping.clone(), overlapping.discarded().unwrap()] {
        let json = serde_json::to_string(&rotation).unwrap();
        assert_eq!(serde_json::from_str::<Rotation<String>>(&json).unwrap(), rotation, "{json}");
    }
}

/// How a step is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    None,
    /// The process dies, or the store fails, before the step's state is durable.
    BeforeDurable,
    /// The backend says no, or cannot be reached.
    BackendRefuses,
    /// The backend does it and the answer is lost, or the process dies before it is durable.
    AnswerLost,
}

/// A backend with two password places, as MySQL has them.
#[derive(Debug)]
struct Backend {
    primary: u32,
    secondary: Option<u32>,
}

impl Backend {
    fn takes(&self, password: u32) -> bool {
        self.primary == password || self.secondary == Some(password)
    }

    /// Idempotent, because the driver looks first.
    fn stage(&mut self, next: u32) {
        if self.primary != next {
            self.secondary = Some(self.primary);
            self.primary = next;
        }
    }
}

/// The broker's one task and its callers, on a durable state and nothing else.
struct Model {
    schedule: Schedule,
    now: Timestamp,
    durable: Rotation<u32>,
    backend: Backend,
    made: u32,
    /// Password, and until when its caller was told that it works.
    promises: Vec<(u32, Timestamp)>,
}

impl Model {
    fn new(schedule: Schedule) -> Self {
        let backend = Backend { primary: 0, secondary: None };
        Self { schedule, now: at(0), durable: Rotation::default(), backend, made: 0, promises: Vec::new() }
    }

    fn task(&mut self, loss: Loss) {
        let Due::Now(step) = self.durable.due(self.now, readable) else { return };
        match (step, loss) {
            (_, Loss::BeforeDurable) => {}
            (Step::Begin, _) => {
                self.made += 1;
                self.durable = self.durable.begin(self.made, self.schedule, self.now).unwrap();
            }
            (_, Loss::BackendRefuses) => {}
            (Step::Stage, _) => {
                let Phase::Staging { next, .. } = &self.durable.phase else { unreachable!() };
                self.backend.stage(next.secret);
                if !matches!(loss, Loss::AnswerLost) {
                    let until = self.durable.overlap_end(self.now);
                    self.durable = self.durable.staged(self.now, until).unwrap();
                }
            }
            (Step::Replace, _) => unreachable!("nobody takes the account back"),
            (Step::Discard, _) => {
                self.backend.secondary = None;
                if !matches!(loss, Loss::AnswerLost) {
                    self.durable = self.durable.discarded().unwrap();
                }
            }
        }
    }

    fn issue(&mut self) -> Option<(u32, Timestamp)> {
        let current = self.durable.current.as_ref()?;
        let promise = (current.secret, self.durable.usable_until(self.now)?);
        self.promises.push(promise);
        Some(promise)
    }

    fn assert_nobody_is_locked_out(&self) {
        for (password, until) in self.promises.iter().filter(|(_, until)| self.now < *until) {
            assert!(
                self.backend.takes(*password),
                "{password} was to work until {until}, now {}: {:?} {:?}",
                self.now,
                self.backend,
                self.durable
            );
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Task(Loss),
    Issue,
    Wait(u16),
    /// Another schedule is configured.
    Reload(u32, u32),
}

fn act() -> impl Strategy<Value = Act> {
    let loss = prop_oneof![
        3 => Just(Loss::None),
        1 => Just(Loss::BeforeDurable),
        1 => Just(Loss::BackendRefuses),
        1 => Just(Loss::AnswerLost),
    ];
    prop_oneof![
        8 => loss.prop_map(Act::Task),
        4 => Just(Act::Issue),
        4 => (0_u16..900).prop_map(Act::Wait),
        1 => (2_u32..900, 1_u32..100).prop_map(|(period, part)| Act::Reload(period, part)),
    ]
}

proptest! {
    #[test]
    fn a_loss_at_any_step_locks_nobody_out(
        period in 2_u32..900, part in 1_u32..100, acts in prop::collection::vec(act(), 1..120)
    ) {
        let mut model = Model::new(parted(period, part));
        for act in acts {
            match act {
                Act::Task(loss) => model.task(loss),
                Act::Issue => drop(model.issue()),
                Act::Reload(period, part) => model.schedule = parted(period, part),
                Act::Wait(seconds) => model.now += Duration::from_millis(u64::from(seconds) * 333),
            }
            model.assert_nobody_is_locked_out();
        }
        // Left alone with a backend that answers, it ends a rotation.
        for _ in 0..4 {
            model.task(Loss::None);
            model.now += Duration::from_secs(900);
        }
        model.task(Loss::None);
        prop_assert!(model.durable.current.is_some());
    }

    #[test]
    fn a_caller_that_comes_back_at_four_fifths_always_holds_one_that_works(
        period in 5_u32..900, part in 1_u32..100, losses in prop::collection::vec(0_u8..10, 1..60)
    ) {
        let mut model = Model::new(parted(period, part));
        (0..3).for_each(|_| model.task(Loss::None));
        let mut losses = losses.into_iter();
        for _ in 0..40 {
            let (held, until) = model.issue().unwrap();
            let ttl = until.as_millisecond() - model.now.as_millisecond();
            prop_assert!(ttl > 0);
            let back = model.now + Duration::from_millis(u64::try_from(ttl * 4 / 5).unwrap());
            while model.now < back {
                model.now = back.min(model.now + Duration::from_millis(u64::from(model.schedule.overlap().seconds()) * 250));
                model.task(if losses.next().is_some_and(|loss| loss > 3) { Loss::AnswerLost } else { Loss::None });
                prop_assert!(model.backend.takes(held));
            }
        }
    }
}
