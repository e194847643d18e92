//! Real tokens, real keys, real HTTP on loopback.

#![allow(clippy::unwrap_used)] // a test stops where it fails

mod careless;
mod configuration;
mod contract;
mod issuer;
mod keys;
mod platforms;
mod tokens;
