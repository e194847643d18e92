//! jit-broker
fn main() {}
