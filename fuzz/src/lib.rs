//! Fuzz targets of jit-broker, and what runs them.
//!
//! In scope: one target for each parser that reads a text from outside (statements, names, tokens, notes,
//! configuration), each with the properties that must hold for every input, and a runner on stable Rust that
//! changes the inputs of `fuzz/corpus`. Out of scope: feedback from coverage; docs/adr/0010 says why.
//!
//! | module | what it holds |
//! |---|---|
//! | [`targets`] | the targets and the list of them |
//! | [`input`] | how a target reads its parts from an input |
//! | [`mutate`] | how inputs are changed |
//! | [`runner`] | the run: corpus first, then changed inputs, until the time is over |

pub mod input;
pub mod mutate;
pub mod runner;
pub mod targets;

pub use input::Input;
pub use targets::{Target, all};
