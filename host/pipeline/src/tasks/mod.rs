//! What runs beside the requests. The tasks take no arguments but the broker: they read the store,
//! are idempotent, are woken by time and by signal, and share the requests' code. [`driver`] runs them all, and
//! [`board`] has what each does and did.

pub mod archive;
pub mod board;
pub mod driver;
pub mod export;
pub mod housekeeping;
pub mod maintain;
pub mod peers;
pub mod reconcile;
pub mod removal;
pub mod rotation;
