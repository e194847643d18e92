//! How long the broker takes to put several policies' answers together. The policies are functions, so what they
//! cost themselves is left out. Run with `cargo bench -p jit-pipeline --bench chain`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]
#![allow(dead_code, reason = "the doubles of the tests have more than this needs")]

#[path = "../tests/world/backend.rs"]
mod backend;
#[path = "../tests/world/doubles.rs"]
mod doubles;

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::Bencher;
use jit_core::name::RoleName;
use jit_core::policy::{Mode, Operation, PolicyRequest};
use jit_core::ttl::Ttl;
use jit_pipeline::chain;
use jit_pipeline::target::ChainLink;

use backend::Backend;
use doubles::{APP, SHOP, at_most, policy, target, yes};

fn main() {
    divan::main();
}

/// A request with so many attributes.
fn request(attributes: usize) -> PolicyRequest {
    PolicyRequest {
        operation: Operation::Issue,
        time: 1_800_000_000,
        workload: "shop/payment".to_owned(),
        issuer: "cluster".to_owned(),
        attributes: (0..attributes).map(|number| (format!("name-{number}"), "value".to_owned())).collect(),
        target: SHOP.to_owned(),
        role: APP.to_owned(),
        ttl_seconds: 600,
        reason: Some("nightly export".to_owned()),
        ticket: None,
        metadata: BTreeMap::new(),
        facts: BTreeMap::new(),
        caller_address: None,
        resource: BTreeMap::new(),
    }
}

fn ask(bencher: Bencher<'_, '_>, chain: Vec<ChainLink>) {
    let target = target(Arc::new(Backend::default()), chain, Vec::new());
    let (role, ttl, request) = (RoleName::new(APP).unwrap(), Ttl::from_seconds(600).unwrap(), request(8));
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
