//! A line every few seconds for long work whose output is no terminal, so that a log shows that it is still at work.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it prints a line.
const EVERY: Duration = Duration::from_secs(10);

/// The longest part of somebody else's line that is repeated, in characters.
const MOST_DETAIL: usize = 80;

/// Says what is worked on, again and again, until it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    detail: Arc<Mutex<String>>,
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// On standard error, every ten seconds. `what` is worked on, such as "compiling driver-x".
    #[must_use]
    pub fn on_standard_error(what: &str) -> Self {
        Self::start(EVERY, what, |line| {
            // A standard error that nobody reads any more must not end the work.
            let _ = writeln!(std::io::stderr(), "{line}");
        })
    }

    /// Gives a line to `tell` each time that `every` has passed.
    #[must_use]
    pub fn start(every: Duration, what: &str, mut tell: impl FnMut(&str) + Send + 'static) -> Self {
        let (ends, ended) = channel::<()>();
        let detail = Arc::new(Mutex::new(String::new()));
        let (what, latest, begun) = (what.to_owned(), Arc::clone(&detail), Instant::now());
        let beat = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let detail = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let more = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                tell(&format!("    still {what}, {} s so far{more}", begun.elapsed().as_secs()));
            }
        };
        // Without a thread there are no lines, and the work is done nevertheless.
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).ok();
        Self { detail, ends: Some(ends), thread }
    }

    /// How far it is, for the next line.
    pub fn detail(&self, text: &str) {
        let shown: String = text.trim().chars().filter(|c| !c.is_control()).take(MOST_DETAIL).collect();
        if !shown.is_empty() {
            *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            // It only prints; what it may have panicked over is no fault of the work.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_is_worked_on_until_it_is_dropped() {
        let (told, lines) = channel();
        let heart = Heartbeat::start(Duration::from_millis(1), "compiling a plugin", move |line| {
            let _ = told.send(line.to_owned());
        });
        assert!(lines.recv().unwrap().starts_with("    still compiling a plugin, 0 s so far"));
        heart.detail("  Compiling serde\u{1b}[0m v1 ");
        while !lines.recv().unwrap().ends_with(" s so far: Compiling serde[0m v1") {}
        drop(heart);
        // The thread is over, and with it the sender: what it had told is read, and then there is an end.
        assert!(lines.iter().count() < usize::MAX);
    }
}
