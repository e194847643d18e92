//! A mistake in the configuration, told so that its author can mend it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity as Level, SourceCode,
};

/// How much a problem counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, and this is likely not what was wanted.
    Warning,
}

/// A place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// In bytes of the file's text, for the frame of the terminal's output.
    span: Range<usize>,
}

/// A file's text as it may be shown: without anything that looks like a secret.
#[derive(Debug)]
pub(super) struct SourceText {
    pub(super) name: String,
    text: NamedSource<String>,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// The longest line that is quoted: a minified megabyte helps nobody.
const MAX_QUOTED_LINE: usize = 400;

impl SourceText {
    /// `shown` must come from [`super::redact::showable`].
    pub(super) fn new(name: &str, shown: String) -> Arc<Self> {
        let lines = std::iter::once(0).chain(shown.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Arc::new(Self { name: name.to_owned(), text: NamedSource::new(name, shown), lines })
    }

    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let text = self.text.inner();
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        let start = floor(span.start);
        // A frame of one line: what spans more is told by its beginning.
        let line_end = text[start..].find('\n').map_or(text.len(), |end| start + end);
        let end = floor(span.end.max(start)).clamp(start, line_end);
        let line = self.lines.partition_point(|begin| *begin <= start).max(1);
        let line_start = self.lines[line - 1];
        Place { line, column: text[line_start..start].chars().count() + 1, span: start..end }
    }

    fn line(&self, number: usize) -> Option<&str> {
        let begin = *self.lines.get(number.checked_sub(1)?)?;
        Some(self.text.inner()[begin..].split('\n').next()?.trim_end())
    }

    fn quoted(&self, place: &Place) -> Option<&str> {
        self.line(place.line).filter(|line| !line.is_empty() && line.len() <= MAX_QUOTED_LINE)
    }

    /// Whether the line and its neighbours, which a frame shows too, are short enough.
    fn quotable(&self, place: &Place) -> bool {
        let short = |number: usize| self.line(number).is_none_or(|line| line.len() <= MAX_QUOTED_LINE);
        self.quoted(place).is_some() && short(place.line.saturating_sub(1)) && short(place.line.saturating_add(1))
    }
}

/// One mistake. Its texts hold no secret: what they quote is starred out where it looks like one.
#[derive(Debug, Clone)]
pub struct Problem {
    /// How much it counts.
    pub severity: Severity,
    /// Where, unless it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong and what to write instead.
    pub message: String,
    /// More help; may have several lines.
    pub help: Option<String>,
    pub(super) source: Arc<SourceText>,
}

impl Problem {
    /// About the file as a whole.
    pub(super) fn of_file(name: &str, message: String, help: Option<String>) -> Self {
        let source = SourceText::new(name, String::new());
        Self { severity: Severity::Error, place: None, message, help, source }
    }

    /// The file, as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// `broker.toml:12:1: unknown key …`, then the line and the help, without colours or frames.
    /// Ends without a line break.
    #[must_use]
    pub fn plain(&self) -> String {
        let mut out = self.source.name.clone();
        if let Some(place) = &self.place {
            let _ = write!(out, ":{}:{}", place.line, place.column);
        }
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        let _ = write!(out, ": {warning}{}", self.message);
        if let Some(place) = &self.place
            && let Some(line) = self.source.quoted(place)
        {
            let number = place.line.to_string();
            let line: String = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
            let marked = self.source.text.inner()[place.span.clone()].chars().count().max(1);
            let _ = write!(out, "\n  {number} | {line}\n  {:w$} | ", "", w = number.len());
            out.extend(std::iter::repeat_n(' ', place.column.saturating_sub(1)));
            out.extend(std::iter::repeat_n('^', marked));
        }
        for line in self.help.iter().flat_map(|help| help.lines()) {
            let _ = write!(out, "\n    {line}");
        }
        out
    }
}

impl Problem {
    /// One line of the log, with file and line as fields: the quoted text of the file is for people at a
    /// terminal.
    pub fn log(&self) {
        let line = self.place.as_ref().map(|place| place.line);
        let help = self.help.as_deref();
        match self.severity {
            Severity::Error => tracing::error!(file = self.file(), line, help, "{}", self.message),
            Severity::Warning => tracing::warn!(file = self.file(), line, help, "{}", self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn severity(&self) -> Option<Level> {
        Some(match self.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        let place = self.place.as_ref()?;
        self.source.quotable(place).then_some(&self.source.text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let left = self.source.text.inner().len().saturating_sub(place.span.start);
        let length = place.span.len().max(1).min(left);
        Some(Box::new(std::iter::once(LabeledSpan::new(None, place.span.start, length))))
    }
}

/// How many problems one report shows; the rest is counted.
const MAX_SHOWN: usize = 50;

/// How many problems one report holds.
pub(super) const MAX_PROBLEMS: usize = 1_000;

/// Everything found in a configuration that cannot be used: at least one error, and its warnings.
///
/// `Display` is one line for a log; [`ConfigErrors::render`] is for people.
#[derive(Debug, Clone)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    more: usize,
    rejected: Vec<RejectedPlugin>,
}

/// A plugin that does not load, as the audit log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedPlugin {
    /// Its name in the configuration.
    pub plugin: String,
    /// The digest of its bytes, in hexadecimal, if they could be read.
    pub sha256: Option<String>,
    /// What is wrong and what to do.
    pub reason: String,
}

impl ConfigErrors {
    /// `more` is how many were left out.
    pub(super) fn new(problems: Vec<Problem>, more: usize) -> Self {
        Self { problems, more, rejected: Vec::new() }
    }

    /// Mistakes that only showed when the plugins were asked.
    #[must_use]
    pub fn of(problems: Vec<Problem>) -> Self {
        Self::new(problems, 0)
    }

    /// The same, with the plugins that are among the reasons.
    #[must_use]
    pub fn with_rejected(self, rejected: Vec<RejectedPlugin>) -> Self {
        Self { rejected, ..self }
    }

    /// The plugins that did not load.
    #[must_use]
    pub fn rejected(&self) -> &[RejectedPlugin] {
        &self.rejected
    }

    /// The problems, in the file's order; of a file with more than a thousand, the errors first.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// All of it for people: frames and colours where `terminal`, else lines that
    /// begin with `file:line:column:` (for a log, a pipe, `NO_COLOR`). Ends with a line break.
    #[must_use]
    pub fn render(&self, terminal: bool) -> String {
        let mut out = render_some(&self.problems, self.more, terminal);
        let _ = writeln!(out, "{self}");
        out
    }
}

/// Renders problems as [`ConfigErrors::render`] does, without its last line: for the warnings of
/// a configuration that is used.
#[must_use]
pub fn render(problems: &[Problem], terminal: bool) -> String {
    render_some(problems, 0, terminal)
}

fn render_some(problems: &[Problem], more: usize, terminal: bool) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode()).with_context_lines(1);
    for problem in problems.iter().take(MAX_SHOWN) {
        // A failure to draw the frame must not lose the message.
        let mut framed = String::new();
        if terminal && handler.render_report(&mut framed, problem).is_ok() {
            out.push_str(&framed);
        } else {
            let _ = writeln!(out, "{}", problem.plain());
        }
    }
    let more = more + problems.len().saturating_sub(MAX_SHOWN);
    if more > 0 {
        let _ = writeln!(out, "… and {more} more");
    }
    out
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.problems.iter().filter(|p| p.severity == Severity::Error).count();
        let file = self.problems.first().map_or("the configuration", Problem::file);
        if self.more > 0 {
            return write!(f, "{file}: more than {errors} mistakes");
        }
        write!(f, "{file}: {errors} {}", if errors == 1 { "mistake" } else { "mistakes" })?;
        match self.problems.len() - errors {
            0 => Ok(()),
            1 => f.write_str(" and 1 warning"),
            warnings => write!(f, " and {warnings} warnings"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl Diagnostic for ConfigErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().take(MAX_SHOWN).map(|problem| problem as &dyn Diagnostic)))
    }
}
