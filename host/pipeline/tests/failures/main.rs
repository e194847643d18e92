//! The table of failures: every commit of a flow lost in every way, together with every way in which the driver's
//! call may end, with the process living on and with the process dying.
//!
//! What has to hold is the same for every cell: no account without a lease that ends it, no secret without its record,
//! no lease that stays open when its account is gone, no password in use that the broker does not know (NO-GHOST,
//! INTENT-FIRST, AUDITED-OR-NOTHING).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cell;
mod lease;
mod reconcile;
mod rotation;
#[path = "../world/mod.rs"]
mod world;
