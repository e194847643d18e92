//! The store against a real PostgreSQL: `JIT_TEST_POSTGRES_URL` names a superuser of a server that asks everybody else
//! for a password.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "postgres_store/database.rs"]
mod database;
#[path = "postgres_store/faults.rs"]
mod faults;
#[path = "postgres_store/import.rs"]
mod import;
#[path = "postgres_store/many.rs"]
mod many;
#[path = "postgres_store/relay.rs"]
mod relay;
#[path = "postgres_store/tables.rs"]
mod tables;

mod contract {
    jit_ledger_contract::for_store!(super::database::Database);
}
