//! How long each test took, from the lines that stable libtest prints: it tells when a test has ended, and not how
//! long it ran.
//!
//! When a test has begun follows from the ends of others. libtest runs tests in the order of their names, as many at a
//! time as it has threads: the first begin with the run, each further one when another has ended.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::thread;
use std::time::{Duration, Instant};

/// How many tests are told.
const MOST: usize = 25;
/// What is not worth telling.
const LEAST: Duration = Duration::from_secs(1);

/// The lines of one `cargo test`.
pub struct Timing {
    threads: usize,
    runs: Vec<Run>,
}

/// The tests of one binary.
struct Run {
    begun: Duration,
    ended: Vec<(String, Duration)>,
}

impl Timing {
    /// For tests that get these arguments.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        let given = arguments.iter().enumerate().find_map(|(index, argument)| match *argument {
            "--test-threads" => arguments.get(index + 1)?.parse().ok(),
            other => other.strip_prefix("--test-threads=")?.parse().ok(),
        });
        let set = || std::env::var("RUST_TEST_THREADS").ok()?.parse().ok();
        let threads: Option<usize> = given.or_else(set);
        let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
        Self { threads, runs: Vec::new() }
    }

    /// Passes everything on to stdout as it comes, to the end.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn follow(&mut self, from: impl Read) -> std::io::Result<()> {
        let begun = Instant::now();
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            self.line(&String::from_utf8_lossy(&line), begun.elapsed());
            std::io::stdout().lock().write_all(&line)?;
            line.clear();
        }
        Ok(())
    }

    fn line(&mut self, line: &str, at: Duration) {
        let line = line.trim_end();
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.runs.push(Run { begun: at, ended: Vec::new() });
        } else if let Some(name) = ended(line)
            && let Some(run) = self.runs.last_mut()
        {
            run.ended.push((name.to_owned(), at));
        }
    }

    /// The slowest tests, the slowest first.
    #[must_use]
    pub fn slowest(&self) -> Vec<(String, Duration)> {
        let mut all: Vec<(String, Duration)> = self.runs.iter().flat_map(|run| run.times(self.threads)).collect();
        all.retain(|(_, time)| *time >= LEAST);
        all.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        all.truncate(MOST);
        all
    }

    /// Tells them.
    pub fn tell(&self) {
        let slowest = self.slowest();
        if !slowest.is_empty() {
            eprintln!("The slowest tests, in seconds:");
        }
        for (name, time) in slowest {
            eprintln!("{:>7.1}  {name}", time.as_secs_f64());
        }
    }
}

impl Run {
    fn times(&self, threads: usize) -> Vec<(String, Duration)> {
        let mut order: Vec<&str> = self.ended.iter().map(|(name, _)| name.as_str()).collect();
        order.sort_unstable();
        let begins = std::iter::repeat_n(self.begun, threads).chain(self.ended.iter().map(|(_, at)| *at));
        let begins: std::collections::HashMap<&str, Duration> = order.into_iter().zip(begins).collect();
        let time = |(name, at): &(String, Duration)| {
            let begun = begins.get(name.as_str()).copied().unwrap_or(*at);
            (name.clone(), at.saturating_sub(begun))
        };
        self.ended.iter().map(time).collect()
    }
}

/// The test of `test NAME ... ok`.
fn ended(line: &str) -> Option<&str> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let known = matches!(outcome, "ok" | "FAILED") || outcome.starts_with("ignored");
    (known && !name.contains(char::is_whitespace)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_test_is_from_the_end_before_it_to_its_own() {
        let mut timing = Timing::new(&["--test-threads=2"]);
        for (second, line) in [
            (10, "running 4 tests"),
            // Two begin at 10: a and b. c begins with the end of b, d with that of c.
            (12, "test b ... ok"),
            (13, "test a::x has been running for over 60 seconds"),
            (20, "test c ... FAILED"),
            (21, "test a ... ok"),
            (29, "test d ... ok\n"),
            (30, "test result: ok. 3 passed; 1 failed"),
            // Another binary begins from the start.
            (40, "running 1 test"),
            (43, "test a ... ok"),
        ] {
            timing.line(line, Duration::from_secs(second));
        }
        let seconds: Vec<(String, u64)> =
            timing.slowest().into_iter().map(|(name, time)| (name, time.as_secs())).collect();
        let expected = [("a", 11), ("d", 9), ("c", 8), ("a", 3), ("b", 2)].map(|(name, time)| (name.to_owned(), time));
        assert_eq!(seconds, expected);
    }

    #[test]
    fn threads_are_as_many_as_the_tests_are_told() {
        assert_eq!(Timing::new(&["x::", "--test-threads", "3"]).threads, 3);
        assert!(Timing::new(&["--nocapture"]).threads >= 1);
    }
}
