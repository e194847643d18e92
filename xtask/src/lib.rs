//! What `cargo xtask` is made of, as a library: the end to end suite runs the same real servers.
//!
//! In scope: preparing and running what the project needs around it (guest toolchain, servers),
//! on a developer's machine and in CI. Nothing here is part of the broker.

mod apt;
pub mod bench;
pub mod binaries;
pub mod book;
pub mod check;
pub mod demo;
pub mod dist;
pub mod fuzz;
pub mod guest_compiler;
pub mod ingredients;
pub mod needs;
pub mod plugins;
pub mod prose;
pub mod servers;
pub mod steps;
pub mod storm;
pub mod suite;
pub mod timing;
pub mod tools;
