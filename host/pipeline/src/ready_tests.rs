use std::collections::HashSet;
use std::sync::mpsc;

use secrecy::ExposeSecret as _;

use super::*;

const SCRAM: Form = Form::ScramSha256 { iterations: 2 };

fn scram(iterations: u32) -> Form {
    Form::ScramSha256 { iterations }
}

fn pair(form: Form) -> NewPassword {
    NewPassword::generate_in(form).unwrap()
}

/// Makes all that is lacking at that time.
fn fill(shelves: &mut Shelves, now: Instant) -> usize {
    let mut made = 0;
    while let Step::Make(form) = shelves.step(now) {
        shelves.put(form, pair(form), now);
        made += 1;
        assert!(made <= MOST_FORMS * MOST_PAIRS, "it must come to an end");
    }
    made
}

/// The place of one request, as the issue makes it: returns the password, and whether its hash was ready.
fn issue(ready: &Ready, form: Form) -> (String, bool) {
    let _busy = ready.busy();
    let password = ready.take(Some(form));
    let was_ready = password.place_in(form).is_some();
    assert_eq!(ready.placed(&password), Some(form));
    (password.text().expose_secret().to_owned(), was_ready)
}

#[test]
fn there_are_never_more_than_were_asked_for() {
    let now = Instant::now();
    let mut shelves = Shelves::default();
    assert_eq!(shelves.step(now), Step::WaitUntil(None), "nobody asked");
    assert!(shelves.take(SCRAM, now).is_none());
    shelves.asked_for(SCRAM, now);
    assert_eq!(fill(&mut shelves, now), 1);
    assert!(shelves.take(SCRAM, now).is_some_and(|password| password.computed() == Some(SCRAM)));
    assert!(shelves.take(SCRAM, now).is_none());
    shelves.asked_for(SCRAM, now);
    assert_eq!(fill(&mut shelves, now), 2);
    for _ in 0..1_000 {
        shelves.asked_for(SCRAM, now);
    }
    assert_eq!(fill(&mut shelves, now), MOST_PAIRS - 2);
    assert_eq!(shelves.len(), MOST_PAIRS);
}

#[test]
fn forms_are_bounded_and_the_one_asked_for_longest_ago_makes_room() {
    let start = Instant::now();
    let mut shelves = Shelves::default();
    for number in 0..u32::try_from(MOST_FORMS).unwrap() + 3 {
        let now = start + Duration::from_secs(u64::from(number));
        for _ in 0..MOST_PAIRS {
            shelves.asked_for(scram(1 + number), now);
        }
        fill(&mut shelves, now);
        assert!(shelves.len() <= MOST_FORMS * MOST_PAIRS);
    }
    assert_eq!((shelves.of.len(), shelves.len()), (MOST_FORMS, MOST_FORMS * MOST_PAIRS));
    assert!(!shelves.of.contains_key(&scram(1)) && !shelves.of.contains_key(&scram(3)));
    assert!(shelves.of.contains_key(&scram(4)));
}

#[test]
fn what_grows_old_is_wiped_and_a_form_that_nobody_asks_for_goes() {
    let start = Instant::now();
    let mut shelves = Shelves::default();
    (0..5).for_each(|_| shelves.asked_for(SCRAM, start));
    assert_eq!(fill(&mut shelves, start), 5);
    assert_eq!(shelves.step(start), Step::WaitUntil(Some(start + LIFETIME)));
    let before = start + LIFETIME - Duration::from_millis(1);
    shelves.grow_older(before);
    assert_eq!(shelves.len(), 5);
    let old = start + LIFETIME;
    assert!(shelves.take(SCRAM, old).is_none(), "a password that is too old is not handed out");
    assert_eq!(fill(&mut shelves, old), 5, "they were asked for in the period before");
    let later = old + LIFETIME;
    assert_eq!(shelves.step(later), Step::WaitUntil(None));
    assert_eq!((shelves.of.len(), shelves.len()), (0, 0));
    shelves.asked_for(SCRAM, later);
    assert_eq!(fill(&mut shelves, later), 1, "it begins again from nothing");
    shelves.grow_older(later + 3 * LIFETIME);
    assert!(shelves.of.is_empty(), "also when nobody looked for long");
}

#[test]
fn a_request_under_way_holds_the_next_password_back() {
    let now = Instant::now();
    let ready = Ready::default();
    ready.shelves.lock().asked_for(SCRAM, now);
    let (first, second) = (ready.busy(), ready.busy());
    assert!(matches!(ready.shelves.lock().step(now), Step::WaitUntil(Some(_))));
    drop(first);
    assert!(matches!(ready.shelves.lock().step(now), Step::WaitUntil(Some(_))));
    drop(second);
    assert_eq!(ready.shelves.lock().step(now), Step::Make(SCRAM));
}

#[test]
fn what_is_made_when_it_is_no_longer_wanted_is_not_kept() {
    let now = Instant::now();
    let ready = Ready::default();
    ready.shelves.lock().put(SCRAM, pair(SCRAM), now);
    assert_eq!(ready.shelves.lock().len(), 0, "nobody asked");
    ready.shelves.lock().asked_for(SCRAM, now);
    fill(&mut ready.shelves.lock(), now);
    ready.shelves.lock().put(SCRAM, pair(SCRAM), now);
    assert_eq!(ready.shelves.lock().len(), 1, "the shelf is full");
    ready.forget();
    ready.shelves.lock().put(SCRAM, pair(SCRAM), now);
    assert_eq!(ready.shelves.lock().len(), 0, "another configuration serves");
    ready.close();
    ready.shelves.lock().asked_for(SCRAM, now);
    ready.shelves.lock().put(SCRAM, pair(SCRAM), now);
    assert_eq!(ready.shelves.lock().len(), 0, "the process ends");
}

#[test]
fn another_form_than_expected_is_computed_and_remembered() {
    let ready = Ready::default();
    let role = LastForm::default();
    ready.shelves.lock().asked_for(SCRAM, Instant::now());
    fill(&mut ready.shelves.lock(), Instant::now());
    role.note(Some(SCRAM));
    let password = ready.take(role.last());
    assert_eq!(password.computed(), Some(SCRAM));
    assert!(password.place_in(Form::CachingSha2).is_none());
    role.note(ready.placed(&password));
    assert_eq!(role.last(), Some(Form::CachingSha2));
    // A driver that placed nothing, since the target was away, says nothing.
    role.note(ready.placed(&ready.take(None)));
    assert_eq!(role.last(), Some(Form::CachingSha2));
    assert_eq!(ready.shelves.lock().len(), 0, "what was taken does not come back");
}

#[test]
fn no_password_is_handed_out_twice() {
    const THREADS: usize = 8;
    const EACH: usize = 400;
    let ready = Arc::new(Ready::default());
    ready.start();
    let (send, all) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (ready, send) = (&ready, send.clone());
            scope.spawn(move || {
                let form = scram(1 + u32::try_from(number % 2).unwrap());
                for round in 0..EACH {
                    send.send(issue(ready, form)).unwrap();
                    if round % 100 == 50 && number == 0 {
                        ready.forget();
                    }
                }
            });
        }
    });
    // All at once with the shelves full: the thread fills them as soon as nothing is under way.
    while ready.shelves.lock().lacking().is_some() {
        thread::yield_now();
    }
    let full = ready.shelves.lock().len();
    assert!(full > 0);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (ready, send) = (&ready, send.clone());
            scope.spawn(move || {
                (0..EACH).for_each(|_| send.send(issue(ready, scram(1 + u32::try_from(number % 2).unwrap()))).unwrap());
            });
        }
    });
    ready.close();
    drop(send);
    let handed_out: Vec<(String, bool)> = all.iter().collect();
    assert_eq!(handed_out.len(), 2 * THREADS * EACH);
    let were_ready = handed_out.iter().filter(|(_, was_ready)| *was_ready).count();
    assert!(were_ready >= full, "{were_ready} of them were ready");
    let different: HashSet<&String> = handed_out.iter().map(|(password, _)| password).collect();
    assert_eq!(different.len(), handed_out.len());
}

#[test]
fn a_panic_ends_the_making_and_nothing_else() {
    let ready = Arc::new(Ready::made_by(|_| panic!("planted")));
    ready.shelves.lock().asked_for(SCRAM, Instant::now());
    ready.work();
    let (password, was_ready) = issue(&ready, SCRAM);
    assert!(!password.is_empty() && !was_ready);
    assert_eq!(ready.shelves.lock().len(), 0);
    // So does a form that cannot be made: it is not tried for ever.
    let ready = Arc::new(Ready::made_by(|_| None));
    ready.shelves.lock().asked_for(SCRAM, Instant::now());
    ready.work();
    assert!(!issue(&ready, SCRAM).1);
}

#[test]
fn nothing_of_a_password_is_shown() {
    let ready = Ready::default();
    ready.shelves.lock().asked_for(SCRAM, Instant::now());
    fill(&mut ready.shelves.lock(), Instant::now());
    assert_eq!(format!("{ready:?}"), "Ready { ready: 1, .. }");
}
