//! What `cargo xtask test` fetched besides servers: other languages and validators.

use crate::surroundings;

/// Whether what this test needs is here, by its word in `JIT_TEST_LEFT_OUT`. Where it is not, the run
/// has said why, and says it again here: the test is not run, and does not count as one that held.
///
/// # Panics
/// Outside `cargo xtask test`.
#[must_use]
pub fn is_here(word: &str, what: &str) -> bool {
    let left_out = surroundings(xtask::ingredients::LEFT_OUT);
    let here = !left_out.split(',').any(|missing| missing == word);
    if !here {
        // Not captured by the test harness, unlike `eprintln!`.
        let line = format!("NOT run: {what}: `{word}` could not be had on this machine\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    here
}
