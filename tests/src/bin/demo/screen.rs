//! How the story looks: headings, commands, what they print. Colours on a terminal only.

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::json;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[36m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Columns of the bar of a countdown.
const BAR: usize = 40;
/// How often a countdown says something where lines stay.
const TICK_IN_LOG: u64 = 5;
/// The longest value of a header that is shown.
const MAX_VALUE: usize = 60;
/// How wide lines may be where the width is not known, and at most.
const WIDTH: usize = 120;
/// How far what a command printed is indented.
const INDENT: usize = 5;

/// Where the story is printed.
pub(crate) struct Screen {
    colours: bool,
    terminal: bool,
    width: usize,
    steps: usize,
    step: usize,
}

impl Screen {
    /// A screen for a story of so many steps.
    pub(crate) fn new(steps: usize) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value: std::ffi::OsString| !value.is_empty());
        let terminal = std::io::stdout().is_terminal() && !set("CI");
        let width = if terminal { columns().unwrap_or(WIDTH) } else { WIDTH };
        Self { colours: terminal && !set("NO_COLOR"), terminal, width, steps, step: 0 }
    }

    fn paint(&self, codes: &str, text: &str) -> String {
        if self.colours { format!("{codes}{text}{RESET}") } else { text.to_owned() }
    }

    /// The title of everything.
    pub(crate) fn title(&self, text: &str) {
        println!("\n{}", self.paint(BOLD, text));
    }

    /// The next step, and why it matters.
    pub(crate) fn step(&mut self, title: &str, why: &str) {
        self.step += 1;
        let number = format!("── {} of {} ──", self.step, self.steps);
        println!("\n{} {}", self.paint(CYAN, &number), self.paint(BOLD, title));
        println!("   {why}");
    }

    /// A part of a step.
    pub(crate) fn say(&self, text: &str) {
        println!("\n   {text}");
    }

    /// A command that a person could type.
    pub(crate) fn command(&self, text: &str) {
        println!();
        for (index, line) in text.lines().enumerate() {
            let prompt = if index == 0 { "$" } else { " " };
            println!("   {} {}", self.paint(GREEN, prompt), self.paint(BOLD, line));
        }
    }

    /// What a command printed.
    pub(crate) fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{:INDENT$}{}", "", line.trim_end());
        }
    }

    /// A wide table that a command printed: what does not fit on the terminal is cut off.
    pub(crate) fn wide(&self, text: &str) {
        let lines: Vec<String> = text.lines().map(|line| self.fitting(line.trim_end())).collect();
        self.output(&lines.join("\n"));
    }

    fn fitting(&self, line: &str) -> String {
        if self.terminal { cut(line, self.width.saturating_sub(INDENT)) } else { line.to_owned() }
    }

    /// JSON, laid out.
    pub(crate) fn json(&self, text: &str) {
        self.output(&json::pretty(text, self.width.min(WIDTH).saturating_sub(INDENT)));
    }

    /// What was seen, and holds.
    pub(crate) fn holds(&self, text: &str) {
        println!("   {} {text}", self.paint(GREEN, "✓"));
    }

    /// What went wrong.
    pub(crate) fn failed(&self, text: &str) {
        eprintln!("\n   {} {text}", self.paint(RED, "✗"));
    }

    /// A line beside the story.
    pub(crate) fn note(&self, text: &str) {
        println!("   {}", self.paint(DIM, text));
    }

    /// A line as it is: to be copied.
    pub(crate) fn plain(&self, text: &str) {
        println!("{text}");
    }

    /// A request and its reply, as they went over the wire but for what is secret.
    pub(crate) fn exchange(&self, request: &[String], status: u16, headers: &[(&str, &str)], body: &str) {
        for line in request {
            println!("     {} {line}", self.paint(DIM, ">"));
        }
        println!("     {} HTTP/1.1 {status} {}", self.paint(DIM, "<"), reason_phrase(status));
        for (name, value) in headers {
            println!("     {} {name}: {}", self.paint(DIM, "<"), cut(value, MAX_VALUE));
        }
        self.json(body);
    }

    /// A counter that runs: one line that changes on a terminal, and nothing elsewhere.
    pub(crate) fn counter(&self, text: &str) {
        if self.terminal {
            print!("\r   {}", self.paint(CYAN, &self.fitting(text)));
            let _ = std::io::stdout().flush();
        }
    }

    /// The counter as it is now; the line stays.
    pub(crate) fn counter_stays(&self, text: &str) {
        let start = if self.terminal { "\r" } else { "" };
        println!("{start}   {}", self.paint(CYAN, &self.fitting(text)));
    }

    /// Counts down until `end`: a bar on a terminal, a line now and then elsewhere.
    pub(crate) async fn countdown(&self, what: &str, length: Duration) {
        let begun = Instant::now();
        println!();
        let mut said = u64::MAX;
        while begun.elapsed() < length {
            let left = length.saturating_sub(begun.elapsed());
            let seconds = left.as_secs_f64().ceil() as u64;
            if self.terminal {
                let full = (BAR as f64 * left.as_secs_f64() / length.as_secs_f64()).ceil() as usize;
                let bar = format!("{}{}", "█".repeat(full.min(BAR)), "░".repeat(BAR.saturating_sub(full)));
                print!("\r   {what} {} {seconds:>2} s ", self.paint(CYAN, &bar));
                let _ = std::io::stdout().flush();
            } else if seconds != said && seconds.is_multiple_of(TICK_IN_LOG) {
                println!("   {what}: {seconds} s");
            }
            said = seconds;
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
        if self.terminal {
            println!("\r   {what} {}  0 s ", "░".repeat(BAR));
        }
    }
}

/// How wide the terminal is, as `stty` says.
fn columns() -> Option<usize> {
    let said = Command::new("stty").arg("size").stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    let columns = String::from_utf8(said.stdout).ok()?.split_whitespace().nth(1)?.parse().ok()?;
    (columns > 40).then_some(columns)
}

/// The phrases of the statuses that the demo sees (RFC 9110).
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        401 => "Unauthorized",
        403 => "Forbidden",
        _ => "",
    }
}

/// A text that is not longer than that.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Rows as a table, as psql shows them.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<String>| {
        let cells: Vec<String> =
            cells.into_iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        cells.join("|").trim_end().to_owned()
    };
    let mut lines = vec![line(header.iter().map(|name| (*name).to_owned()).collect())];
    lines.push(widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"));
    lines.extend(rows.iter().cloned().map(line));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = vec![vec!["1".to_owned(), "bolt".to_owned()], vec!["20".to_owned(), "nut".to_owned()]];
        assert_eq!(table(&["id", "name"], &rows), " id | name\n----+------\n 1  | bolt\n 20 | nut");
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }
}
