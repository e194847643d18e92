//! Shows what a long command is doing: a spinner for a person, plain lines for a log. In a log, a line every ten
//! seconds shows that the command is still at work.
#![allow(clippy::print_stdout, clippy::print_stderr)] // this is what prints

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use jit_plugin_build::{Heartbeat, Progress};

/// The longest part of a line of somebody else's output that is shown beside the spinner.
const MAX_DETAIL: usize = 90;

/// Progress of one command.
pub struct Steps {
    spinner: Option<ProgressBar>,
    /// Where plain lines go.
    on_standard_error: bool,
    /// Among plain lines: one every few seconds, from the first step to the end. Several threads tell steps at once.
    heart: Mutex<Option<Heartbeat>>,
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Steps {
    /// A spinner on a terminal; plain lines where the output is kept or `CI` is set.
    #[must_use]
    pub fn new() -> Self {
        let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        if in_ci || !std::io::stderr().is_terminal() || !std::io::stdout().is_terminal() {
            return Self { spinner: None, on_standard_error: false, heart: Mutex::default() };
        }
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self { spinner: Some(spinner), on_standard_error: false, heart: Mutex::default() }
    }

    /// Plain lines on standard error: standard output is for something else.
    #[must_use]
    pub const fn on_standard_error() -> Self {
        Self { spinner: None, on_standard_error: true, heart: Mutex::new(None) }
    }

    fn line(&self, line: &str) {
        if self.on_standard_error {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }

    /// Something is done: a line that stays.
    pub fn done(&self, message: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(format!("✓ {message}")),
            None => self.line(&format!("ok: {message}")),
        }
    }

    /// What the next of the lines says that come every few seconds.
    fn goes_on(&self, with: &str) {
        let mut heart = self.heart.lock().unwrap_or_else(PoisonError::into_inner);
        heart.get_or_insert_with(|| Heartbeat::on_standard_error("at work")).detail(with);
    }

    /// Takes the spinner away, before other output.
    pub fn finish(&self) {
        drop(self.heart.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress for Steps {
    fn step(&self, message: &str) {
        match &self.spinner {
            Some(spinner) => {
                spinner.println(format!("· {message}"));
                spinner.set_message(message.to_owned());
            }
            None => {
                self.line(&format!("==> {message}"));
                self.goes_on(message);
            }
        }
    }

    fn detail(&self, line: &str) {
        if self.spinner.is_none() {
            self.goes_on(line);
        }
        if let Some(spinner) = &self.spinner {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
            if !shown.trim().is_empty() {
                spinner.set_message(shown);
            }
        }
    }
}
