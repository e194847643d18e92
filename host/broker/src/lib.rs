//! The broker: the life of the process, and the command line.
//!
//! In scope: what only the whole program can do: start, serve, stop in order; the commands and what they print. Out of
//! scope: listeners and routes ([`jit_http`]), from a configuration to what serves ([`jit_assembly`]), what is done with
//! a request ([`jit_pipeline`]), trying plugins ([`jit_kit`]).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod administered;
mod background;
pub mod cli;
mod descriptors;
pub mod memory;
mod metrics_described;
pub mod serve;
mod traces;
