//! The blocks of a page that say that a test runs them: the line before the block is
//! `<!-- run by tests/suite/MODULE.rs -->`.

use std::path::Path;
use std::process::Command;

use crate::surroundings;

/// A block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its language: `sh`, `toml`.
    pub language: String,
    /// What stands in it, with the last end of line.
    pub text: String,
}

/// The blocks of a page, such as `docs/policies.md`, that name this module of the suite; in their order.
///
/// # Panics
/// When there is no such page, or it names the module nowhere.
#[must_use]
pub fn blocks(page: &str, module: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blocks: Vec<Block> = text
        .split(&format!("<!-- run by tests/suite/{module}.rs -->\n```"))
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
        .map(|(language, rest)| Block {
            language: language.to_owned(),
            text: rest.split("\n```").next().unwrap_or_default().to_owned() + "\n",
        })
        .collect();
    assert!(!blocks.is_empty(), "{page} names {module} nowhere");
    blocks
}

/// Its blocks of shell commands.
///
/// # Panics
/// As [`blocks`].
#[must_use]
pub fn commands(page: &str, module: &str) -> Vec<String> {
    blocks(page, module).into_iter().filter(|block| block.language == "sh").map(|block| block.text).collect()
}

/// Runs commands in a folder, with the broker of the suite as `jit-broker`. Returns the exit code of the last one and
/// what they printed.
///
/// # Panics
/// When there is no shell, or a signal ended it.
#[must_use]
pub fn run(folder: &Path, commands: &str, env: &[(&str, &str)]) -> (i32, String) {
    let binary = surroundings("JIT_TEST_BROKER");
    let output = Command::new("bash")
        .args(["-ec", &format!("jit-broker() {{ {binary} \"$@\"; }}\n{commands}")])
        .env_remove("JIT_CONFIG")
        .env("NO_COLOR", "1")
        .envs(env.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("cannot run bash: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or_else(|| panic!("a signal ended it: {text}")), text)
}
