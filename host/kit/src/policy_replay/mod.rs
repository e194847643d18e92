//! Replaying recorded decisions: a candidate policy is asked what the policies were asked, and what it
//! would have changed is told before it serves anybody.
//!
//! A policy is a function of its configuration and its input, and the input stands in the record
//! (PURE-POLICY). So the candidate's part is exact; the other policies' parts are taken from the record
//! and are not asked again. Where both are the same bytes (component and configuration), the answer
//! must be what was recorded, and is checked to be.
//!
//! | file | what |
//! |---|---|
//! | [`source`] | records, streamed from the store's file or an export |
//! | [`record`] | a record as a decision, or why it is none that can be replayed |
//! | [`candidate`] | a component with its configuration, ready to be asked |
//! | [`comparison`] | what one decision would have become |
//! | [`report`] | what all of them come to |
//! | [`run`] | all cores at it, in bounded memory |
//!
//! In scope: decisions that a policy took part in. Out of scope: what follows from a decision (a refused
//! request that would be granted is not asked of any backend) and what the callers would have done next.
//! Not to be confused with [`jit_pipeline::replay`], which answers a retried request.

pub mod candidate;
pub mod comparison;
pub mod record;
pub mod report;
pub mod run;
pub mod source;
