//! The `jit-broker` binary. Everything is in the library, beside the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    jit_broker::memory::bound_pools();
    jit_broker::cli::run()
}
