//! What runs beside the requests. The tasks take no arguments but the broker: they read the store,
//! are idempotent, are woken by time and by signal, and share the requests' code.

pub mod archive;
pub mod housekeeping;
pub mod maintain;
pub mod reconcile;
pub mod removal;
pub mod rotation;
