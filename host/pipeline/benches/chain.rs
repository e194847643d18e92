//! How long the broker takes to put several policies' answers together. The policies are functions, so what they
//! cost themselves is left out. Run with `cargo bench -p jit-pipeline --bench chain`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]
#![allow(dead_code, reason = "the doubles of the tests have more than this needs")]

#[path = "../tests/world/backend.rs"]
mod backend;
#[path = "../tests/world/doubles.rs"]
mod doubles;

use std::sync::Arc;

use divan::Bencher;
use jit_core::name::RoleName;
use jit_core::policy::{Mode, PolicyRequest};
use jit_core::ttl::Ttl;
use jit_pipeline::chain;
use jit_pipeline::target::ChainLink;

use backend::Backend;
use doubles::{APP, at_most, input, policy, target, yes};

fn main() {
    divan::main();
}

fn ask(bencher: Bencher<'_, '_>, chain: Vec<ChainLink>) {
    let target = target(Arc::new(Backend::default()), chain, Vec::new());
    let attributes = (0..8).map(|number| (format!("name-{number}"), "value".to_owned())).collect();
    let request = PolicyRequest { attributes, ..input() };
    let (role, ttl) = (RoleName::new(APP).unwrap(), Ttl::from_seconds(600).unwrap());
    bencher.bench(|| chain::ask(&target, role.clone(), ttl, divan::black_box(&request)).is_ok());
}

#[divan::bench(args = [1, 4, 16])]
fn all_are_in_force(bencher: Bencher<'_, '_>, policies: i64) {
    ask(bencher, (0..policies).map(|number| policy("p", Mode::Enforce, at_most(60 + number))).collect());
}

/// Each shadow is judged beside the others, so this grows with the square.
#[divan::bench(args = [1, 4, 16])]
fn half_are_shadows(bencher: Bencher<'_, '_>, policies: i64) {
    let mode = |number| if number % 2 == 0 { Mode::Shadow } else { Mode::Enforce };
    ask(bencher, (0..policies).map(|number| policy("p", mode(number), yes)).collect());
}
