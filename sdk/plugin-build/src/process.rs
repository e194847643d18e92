//! Runs programs so that none can hang the caller or fill its memory.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use crate::Error;

/// The most bytes of standard output that are kept. Cargo's JSON messages of a large workspace
/// are a few megabytes.
const MAX_STDOUT: u64 = 64 << 20;
/// The longest line of standard error that is passed on, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// How many of the last lines of standard error stand in an error's text.
const TAIL_LINES: usize = 60;
/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long output is waited for after the program's end: a grandchild may hold the pipe open.
const DRAIN: Duration = Duration::from_secs(2);

/// How a program is waited for.
pub struct Run<'a> {
    what: String,
    deadline: Duration,
    stall: Option<(Duration, &'a dyn Fn() -> u64)>,
    on_line: Option<&'a dyn Fn(&str)>,
}

/// What a program left behind that ended with success.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// Standard output, as text.
    pub stdout: String,
}

impl<'a> Run<'a> {
    /// `what` is said in errors ("`npm pack`"); after `deadline` the program is killed.
    pub fn new(what: impl Into<String>, deadline: Duration) -> Self {
        Self { what: what.into(), deadline, stall: None, on_line: None }
    }

    /// Gives up earlier, when `measure` (bytes downloaded, say) has not changed for `patience`.
    #[must_use]
    pub fn give_up_when_stalled(mut self, patience: Duration, measure: &'a dyn Fn() -> u64) -> Self {
        self.stall = Some((patience, measure));
        self
    }

    /// Passes on each line of standard error as it comes.
    #[must_use]
    pub fn on_line(mut self, on_line: &'a dyn Fn(&str)) -> Self {
        self.on_line = Some(on_line);
        self
    }

    /// Runs the program to its end, without standard input.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Failed`] on a status other than success, [`Error::Deadline`].
    pub fn output(self, command: &mut Command) -> Result<Finished, Error> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|source| {
                Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
            })?;
        let stdout = collect(child.stdout.take());
        let lines = lines(child.stderr.take());
        let mut tail = Tail::default();
        let status = self.wait(&mut child, &lines, &mut tail)?;

        let drained = Instant::now() + DRAIN;
        while let Ok(line) = lines.recv_timeout(drained.saturating_duration_since(Instant::now())) {
            self.pass_on(&mut tail, &line);
        }
        let left = drained.saturating_duration_since(Instant::now()).max(POLL);
        let stdout = stdout.recv_timeout(left).unwrap_or_default();
        if status.success() {
            return Ok(Finished { stdout });
        }
        if tail.0.is_empty() {
            stdout.lines().for_each(|line| tail.push(line));
        }
        Err(Error::Failed { what: self.what, status: status.to_string(), tail: tail.text() })
    }

    fn wait(&self, child: &mut Child, lines: &Receiver<String>, tail: &mut Tail) -> Result<ExitStatus, Error> {
        let start = Instant::now();
        let mut last_measure = 0;
        let mut last_change = start;
        loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => self.pass_on(tail, &line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::sleep(POLL),
            }
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(source) => {
                    return Err(Error::Start { program: self.what.clone(), source });
                }
            }
            let now = Instant::now();
            let stalled = self.stall.is_some_and(|(patience, measure)| {
                let measured = measure();
                if measured != last_measure {
                    last_measure = measured;
                    last_change = now;
                }
                now.duration_since(last_change) > patience
            });
            if stalled || now.duration_since(start) > self.deadline {
                // Failure to kill means that it has just ended; it is reaped either way.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::Deadline {
                    what: self.what.clone(),
                    seconds: now.duration_since(start).as_secs(),
                    tail: tail.text(),
                });
            }
        }
    }

    fn pass_on(&self, tail: &mut Tail, line: &str) {
        if let Some(on_line) = self.on_line {
            on_line(line);
        }
        tail.push(line);
    }
}

#[derive(Default)]
struct Tail(VecDeque<String>);

impl Tail {
    fn push(&mut self, line: &str) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
    }

    fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        })
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(mut stream) = stream {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A broken pipe ends the output like its end does.
            let _ = stream.by_ref().take(MAX_STDOUT).read_to_end(&mut bytes);
            let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
            // Reads on, so that a program that says more is not ended by a closed pipe.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
    }
    receiver
}

fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stream) = stream {
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while let Ok(1..) = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{cell::RefCell, sync::atomic::AtomicU64, sync::atomic::Ordering};

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_lines_are_kept() {
        let seen = RefCell::new(Vec::new());
        let finished = Run::new("sh", Duration::from_secs(20))
            .on_line(&|line| seen.borrow_mut().push(line.to_owned()))
            .output(&mut sh("echo out; echo one >&2; echo two >&2"))
            .unwrap();
        assert_eq!(finished.stdout, "out\n");
        assert_eq!(seen.into_inner(), ["one", "two"]);
    }

    #[test]
    fn a_failure_shows_the_last_lines() {
        let error =
            Run::new("the script", Duration::from_secs(20)).output(&mut sh("echo because >&2; exit 3")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the script failed") && text.contains("because"), "{text}");
    }

    #[test]
    fn the_deadline_ends_a_program_that_hangs() {
        let error = Run::new("sleep", Duration::from_millis(200)).output(&mut sh("exec sleep 600")).unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
    }

    #[test]
    fn a_program_that_gets_on_is_not_stalled() {
        let measure = AtomicU64::new(0);
        let finished = Run::new("sleep", Duration::from_secs(60))
            .give_up_when_stalled(Duration::from_millis(400), &|| measure.fetch_add(1, Ordering::Relaxed))
            .output(&mut sh("sleep 1; echo done"))
            .unwrap();
        assert_eq!(finished.stdout, "done\n");
        let stuck = Run::new("sleep", Duration::from_secs(60))
            .give_up_when_stalled(Duration::from_millis(200), &|| 7)
            .output(&mut sh("exec sleep 600"));
        assert!(matches!(stuck, Err(Error::Deadline { .. })));
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_the_caller() {
        let finished = Run::new("sh", Duration::from_secs(60)).output(&mut sh("sleep 30 & echo gone")).unwrap();
        // The pipe is still open, so standard output may be missing; what matters is the return.
        assert!(finished.stdout.is_empty() || finished.stdout == "gone\n");
    }
}
