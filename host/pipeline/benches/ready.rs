//! What a request saves when its password is ready: the hash during the call, beside taking one from the shelf. Run
//! with `cargo bench -p jit-pipeline --bench ready`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::sync::Arc;
use std::thread;

use divan::Bencher;
use jit_core::secret::{Form, NewPassword};
use jit_pipeline::ready::Ready;

const FORMS: [Form; 3] =
    [Form::ScramSha256 { iterations: 1 }, Form::ScramSha256 { iterations: 4_096 }, Form::CachingSha2];

fn main() {
    divan::main();
}

/// As without the shelf: a password, and its hash when the driver places it.
#[divan::bench(args = FORMS, sample_count = 100, sample_size = 1)]
fn computed_during_the_call(form: Form) -> usize {
    let password = NewPassword::generate();
    password.place_in(form).map_or_else(|| form.of(password.text()).unwrap().len(), |stored| stored.len())
}

/// One is ready.
#[divan::bench(args = FORMS, sample_count = 100, sample_size = 1)]
fn taken_from_the_shelf(bencher: Bencher<'_, '_>, form: Form) {
    let ready = Arc::new(Ready::default());
    ready.start();
    let one_is_ready = || {
        let asked = NewPassword::generate();
        drop(asked.place_in(form));
        ready.placed(&asked);
        drop(ready.busy());
        while ready.how_many() == 0 {
            thread::yield_now();
        }
    };
    bencher.with_inputs(one_is_ready).bench_values(|()| {
        let password = ready.take(Some(form));
        password.place_in(form).unwrap().len()
    });
    ready.close();
}
