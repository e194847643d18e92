//! Mistakes in Cedar texts, with their place.

use jit_plugin::ConfigProblem;
use miette::Diagnostic;

/// The longest message in bytes: Cedar repeats what it was given.
const MAX_MESSAGE: usize = 500;

/// A mistake at a key of the configuration, whose text is given, with line and column where Cedar tells.
pub(crate) fn at(key: &str, text: &str, error: &dyn Diagnostic) -> ConfigProblem {
    let place = error.labels().and_then(|mut labels| labels.next()).map(|label| place(text, label.offset()));
    let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
    let message = format!("{}{error}{help}", place.unwrap_or_default());
    ConfigProblem::new(key, tame(&message))
}

/// Without control characters, and short.
pub(crate) fn tame(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_MESSAGE);
    let more = if end < text.len() { "…" } else { "" };
    let shown = |c: char| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c };
    let one_line = text[..end].replace('\n', " ");
    one_line.chars().map(shown).chain(more.chars()).collect()
}

/// Characters that change how others are shown.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Problems as one line.
pub(crate) fn in_words(problems: &[ConfigProblem]) -> String {
    let words: Vec<String> =
        problems.iter().map(|problem| format!("configuration: {}: {}", problem.path, problem.message)).collect();
    words.join("; ")
}

/// `line 3, column 5: `, counted from one, columns in characters.
fn place(text: &str, offset: usize) -> String {
    let before = &text[..text.floor_char_boundary(offset)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}
