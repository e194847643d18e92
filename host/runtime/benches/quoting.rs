//! How long the host takes to read a template and to place values into it. Run with
//! `cargo bench -p jit-runtime --bench quoting`.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use divan::Bencher;
use divan::counter::BytesCount;
use jit_runtime::capability::sql::dialect::SqlKind;
use jit_runtime::capability::sql::quote::QuoteError;
use jit_runtime::capability::sql::template::Template;
use jit_runtime::capability::sql::{mysql, postgres};

const CREATE: &str = "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} IN ROLE {}";

fn main() {
    divan::main();
}

/// A value with a quote in every eighth place.
fn value(length: usize) -> String {
    (0..length).map(|place| if place % 8 == 7 { '\'' } else { 'a' }).collect()
}

#[divan::bench(args = [16, 256, 4096])]
fn literal_of_postgres(bencher: Bencher<'_, '_>, length: usize) {
    let value = value(length);
    bencher.counter(BytesCount::new(length)).bench(|| {
        let mut out = String::new();
        postgres::quote::literal(&mut out, divan::black_box(&value)).map(|()| out)
    });
}

#[divan::bench(args = [16, 256, 4096])]
fn literal_of_mysql(bencher: Bencher<'_, '_>, length: usize) {
    let value = value(length);
    bencher.counter(BytesCount::new(length)).bench(|| {
        let mut out = String::new();
        mysql::quote::literal(&mut out, divan::black_box(&value)).map(|()| out)
    });
}

#[divan::bench]
fn reading_a_template() -> Template {
    Template::parse(divan::black_box(CREATE), SqlKind::Postgres).unwrap()
}

#[divan::bench]
fn filling_a_template(bencher: Bencher<'_, '_>) {
    let template = Template::parse(CREATE, SqlKind::Postgres).unwrap();
    bencher.bench(|| {
        let mut out = String::new();
        template.render::<QuoteError>(&mut out, |out, place| match place {
            0 | 3 => postgres::quote::ident(out, "v-payment-service-4qk2m9v5q8w4r6tx"),
            2 => postgres::quote::timestamp(out, 1_800_000_000),
            _ => postgres::quote::literal(out, "SCRAM-SHA-256$4096:c2FsdA==$stored:server"),
        })?;
        Ok::<_, QuoteError>(out)
    });
}
