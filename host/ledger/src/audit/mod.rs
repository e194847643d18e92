//! The audit log outside the store: its signing key, its verification without the broker, its
//! export to others, the reading of such an export, its closing into archived segments.
//!
//! Out of scope: writing records. Only the store does, in the transaction of the change that they
//! are about ([`crate::Store`]).

pub mod archive;
pub mod export;
pub mod export_file;
pub mod exported;
pub mod finding;
pub mod key;
mod scan;
pub mod sources;
pub mod verify;
