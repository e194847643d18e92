//! What a person sees while a command works: one line on a terminal, which is gone when the work is done. It is shown
//! from the second second on. Where standard error is no terminal, as in CI, a plain line is written every ten seconds.
//! Nothing is shown where the output is for programs.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jit_plugin_build::{Heartbeat, Progress};
use jit_runtime::CompileWatch;
use parking_lot::Mutex;

use super::Format;

/// What takes less than this is not worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
/// The longest part of a line of a compiler's that is shown, in characters.
const MOST_DETAIL: usize = 90;
/// How often a line moves that has nothing to count.
const TICK: Duration = Duration::from_millis(200);

/// Whether somebody watches: standard error is a terminal, and the output is not for a program.
fn watched(format: Format) -> bool {
    format == Format::Table && std::io::stderr().is_terminal()
}

/// The line of one piece of work.
#[derive(Debug)]
pub(super) struct Line {
    bar: Option<ProgressBar>,
    /// In a log, what it is about.
    heart: Option<Heartbeat>,
    what: &'static str,
    unit: &'static str,
    begun: Instant,
}

/// A plain line every few seconds, where somebody may read a log.
fn heart(what: &str, format: Format) -> Option<Heartbeat> {
    (format == Format::Table && !std::io::stderr().is_terminal()).then(|| Heartbeat::on_standard_error(what))
}

impl Line {
    /// A line for work whose `unit`s are `what` when they are done: "verified" "records".
    pub(super) fn new(what: &'static str, unit: &'static str, format: Format) -> Self {
        let bar = watched(format).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_prefix(what);
            style(&bar, &format!("{{spinner}} {{prefix}} {{human_pos}} {unit} {{msg}}"));
            bar
        });
        Self { bar, heart: heart("at work", format), what, unit, begun: Instant::now() }
    }

    /// So much is done, `of` so much where that is known. `message` says more about it.
    pub(super) fn show(&self, done: u64, of: Option<u64>, message: &str) {
        if let Some(heart) = &self.heart {
            let of = of.map_or_else(String::new, |of| format!(" of {of}"));
            heart.detail(&format!("{} {done}{of} {} {message}", self.what, self.unit));
        }
        let Some(bar) = &self.bar else { return };
        if let Some(of) = of.filter(|of| bar.length() != Some(*of)) {
            bar.set_length(of);
            let unit = self.unit;
            style(bar, &format!("{{prefix}} {{human_pos}} of {{human_len}} {unit} [{{bar:20}}] {{eta}} left {{msg}}"));
        }
        bar.set_position(done);
        bar.set_message(message.to_owned());
        if bar.is_hidden() && self.begun.elapsed() >= WORTH_A_LINE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Waits for work that tells nothing on its way; after a second a line says what is waited for, and for how long.
pub(super) async fn waiting<T>(what: &str, format: Format, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(WORTH_A_LINE) => {}
    }
    let bar = watched(format).then(|| spinner(what.to_owned()));
    let _heart = heart(what, format);
    let done = work.await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

/// A line that moves by itself, of work that has taken a second.
fn spinner(what: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_elapsed(WORTH_A_LINE);
    style(&bar, "{spinner} {msg} ({elapsed})");
    bar.set_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// A line for each compilation that takes a while.
#[derive(Debug)]
pub(super) struct Compilations {
    format: Format,
    line: Mutex<Option<ProgressBar>>,
    heart: Mutex<Option<Heartbeat>>,
}

impl Compilations {
    /// For output in that format: a person sees a line, a program sees nothing.
    pub(super) fn new(format: Format) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { format, line: Mutex::default(), heart: Mutex::default() })
    }
}

impl CompileWatch for Compilations {
    fn is_slow(&self, component: &Path) {
        let name = component.file_name().unwrap_or(component.as_os_str()).to_string_lossy();
        *self.heart.lock() = heart(&format!("compiling {name}"), self.format);
        if watched(self.format) {
            *self.line.lock() = Some(spinner(format!("compiling {name}: the first time; it is kept for the next")));
        }
    }

    fn compiled(&self, _component: &Path, _took: Duration) {
        drop(self.heart.lock().take());
        if let Some(bar) = self.line.lock().take() {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line for each step of a build, and shows that the current step is still at work.
#[derive(Debug, Default)]
pub(super) struct Building {
    line: Mutex<Option<ProgressBar>>,
    heart: Mutex<Option<Heartbeat>>,
}

impl Building {
    fn end_of_step(&self) {
        drop(self.heart.lock().take());
        if let Some(bar) = self.line.lock().take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Building {
    fn step(&self, message: &str) {
        self.end_of_step();
        eprintln!("{message}");
        *self.heart.lock() = heart(message, Format::Table);
        if watched(Format::Table) {
            *self.line.lock() = Some(spinner(String::new()));
        }
    }

    fn detail(&self, line: &str) {
        if let Some(heart) = &*self.heart.lock() {
            heart.detail(line);
        }
        if let Some(bar) = &*self.line.lock() {
            bar.set_message(line.chars().filter(|c| !c.is_control()).take(MOST_DETAIL).collect::<String>());
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.end_of_step();
    }
}
