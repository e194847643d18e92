//! How long the tamper-evident log takes to take in a record and to sign its checkpoint. Run with
//! `cargo bench -p jit-tlog --bench tree`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use divan::Bencher;
use divan::counter::ItemsCount;
use jit_tlog::checkpoint::{Checkpoint, LogKey, Origin};
use jit_tlog::merkle::{CompactRange, Hash, root};

fn main() {
    divan::main();
}

/// A tree of so many records.
fn tree(size: u64) -> CompactRange {
    let mut range = CompactRange::new();
    for record in 0..size {
        range.push(Hash::of_leaf(&record.to_be_bytes()));
    }
    range
}

/// One record more, and the new root: what each commit does.
#[divan::bench(args = [1, 1_023, 100_000])]
fn append_and_root(bencher: Bencher<'_, '_>, size: u64) {
    let range = tree(size);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| {
        let mut range = range.clone();
        range.push(Hash::of_leaf(divan::black_box(b"a record of the audit log")));
        range.root()
    });
}

/// The whole tree from its records: what `audit verify` does.
#[divan::bench(args = [1_000, 100_000])]
fn root_of_all(bencher: Bencher<'_, '_>, size: u64) {
    let leaves: Vec<Hash> = (0..size).map(|record| Hash::of_leaf(&record.to_be_bytes())).collect();
    bencher.counter(ItemsCount::new(size)).bench(|| root(divan::black_box(&leaves)));
}

/// A signature for each commit.
#[divan::bench]
fn sign_a_checkpoint(bencher: Bencher<'_, '_>) {
    let key = LogKey::from_seed(&[7; 32]);
    let checkpoint = Checkpoint { origin: Origin::new("log.example").unwrap(), size: 1_000, root: tree(1_000).root() };
    bencher.bench(|| key.sign(divan::black_box(&checkpoint)));
}
