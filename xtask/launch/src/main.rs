//! `cargo xtask` starts here.
//!
//! `cargo run` takes one package and gives its dependencies the features that this package asks for. The broker and
//! the tests need the same dependencies with more features, so cargo would compile aws-lc, clap, syn and others a
//! second time: more than a minute of processor time on a fresh clone. This program has no dependencies. It builds
//! xtask with the features of the whole workspace, as everything else is built, and becomes it.
#![allow(clippy::print_stderr, reason = "a command line says what is wrong")]

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2) else {
        eprintln!("xtask: {} is not in the source tree", env!("CARGO_MANIFEST_DIR"));
        return ExitCode::FAILURE;
    };
    // cargo puts both programs into the same folder.
    let xtask = match env::current_exe() {
        Ok(this) => this.with_file_name("xtask"),
        Err(error) => {
            eprintln!("xtask: the system does not say where this program is: {error}");
            return ExitCode::FAILURE;
        }
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--workspace", "--bin", "xtask"]).current_dir(root);
    if !xtask.exists() {
        eprintln!("first cargo compiles `cargo xtask` itself: a minute or less. Then it says what comes.");
    }
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::FAILURE, // cargo has said why
        Err(error) => {
            eprintln!("xtask: cannot start cargo: {error}");
            return ExitCode::FAILURE;
        }
    }
    let error = Command::new(&xtask).args(env::args_os().skip(1)).exec();
    eprintln!("xtask: cannot start {}: {error}", xtask.display());
    ExitCode::FAILURE
}
