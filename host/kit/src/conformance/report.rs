//! What the kit found, for people (table), programs (JSON) and CI (JUnit).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The plugin does what the contract or the case says.
    Passed,
    /// It does not.
    Failed,
    /// The driver does not claim the feature.
    NotApplicable,
    /// It applies, and was not tried: the fixture does not say how to look.
    Skipped,
}

impl Verdict {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NotApplicable => "n/a",
            Self::Skipped => "skipped",
        }
    }
}

/// One case's result.
#[derive(Debug, Clone, Serialize)]
pub struct CaseResult {
    /// `group::what-it-shows`.
    pub name: Cow<'static, str>,
    /// The promise in a sentence, or what a policy is to answer.
    pub promise: Cow<'static, str>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it failed or does not apply; what was seen where that is worth telling.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What is under test, by what it is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tested {
    /// A driver.
    Driver(Subject),
    /// A policy.
    Policy(Subject),
}

impl Tested {
    /// Who it is.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Driver(subject) | Self::Policy(subject) => subject,
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Driver(_) => "driver",
            Self::Policy(_) => "policy",
        }
    }
}

/// The plugin under test.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    /// What it calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digest of its component, in hexadecimal.
    pub sha256: String,
    /// What a driver claims.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The plugin.
    #[serde(flatten)]
    pub tested: Tested,
    /// Each case, in the order in which it was run.
    pub cases: Vec<CaseResult>,
    /// What nobody looked at, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_tried: Vec<String>,
}

impl Report {
    /// Whether nothing failed, and something was looked at.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count(Verdict::Failed) == 0 && self.count(Verdict::Passed) > 0
    }

    /// How many cases ended so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }

    /// One line on the whole.
    #[must_use]
    pub fn summary(&self) -> String {
        let Subject { name, version, .. } = self.tested.subject();
        format!(
            "{}: {} passed, {} failed, {} skipped, {} not applicable",
            format!("{name} {version}").trim_end(),
            self.count(Verdict::Passed),
            self.count(Verdict::Failed),
            self.count(Verdict::Skipped),
            self.count(Verdict::NotApplicable)
        )
    }

    /// The last line: what a green run does not say. None where everything was tried.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (!self.not_tried.is_empty()).then(|| format!("NOT TRIED: {}", self.not_tried.join("; ")))
    }

    /// As JSON.
    ///
    /// # Errors
    /// Never for this type; the serialiser's signature has one.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// As JUnit's XML, the form that CI systems read.
    #[must_use]
    pub fn junit(&self) -> String {
        let seconds = |millis: u64| Duration::from_millis(millis).as_secs_f64();
        let total: u64 = self.cases.iter().map(|case| case.millis).sum();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let _ = writeln!(
            xml,
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escaped(&self.tested.subject().name),
            self.cases.len(),
            self.count(Verdict::Failed),
            self.count(Verdict::NotApplicable) + self.count(Verdict::Skipped),
            seconds(total)
        );
        for case in &self.cases {
            let (name, detail) = (escaped(&case.name), escaped(&case.detail));
            let class = escaped(&self.tested.subject().name);
            let _ =
                write!(xml, "  <testcase classname=\"{class}\" name=\"{name}\" time=\"{:.3}\"", seconds(case.millis));
            let _ = match case.verdict {
                Verdict::Passed => writeln!(xml, "/>"),
                Verdict::Failed => writeln!(xml, "><failure message=\"{detail}\"/></testcase>"),
                Verdict::NotApplicable | Verdict::Skipped => {
                    writeln!(xml, "><skipped message=\"{detail}\"/></testcase>")
                }
            };
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

/// For an attribute's value; characters that XML 1.0 cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdicts: &[Verdict]) -> Report {
        let case = |verdict: &Verdict| CaseResult {
            name: "lifecycle::create".into(),
            promise: "an account can log in".into(),
            verdict: *verdict,
            detail: "<\"&\u{1}\n".to_owned(),
            millis: 1_500,
        };
        Report {
            tested: Tested::Driver(Subject {
                name: "d".into(),
                version: "1".into(),
                sha256: "00".into(),
                features: vec![],
            }),
            cases: verdicts.iter().map(case).collect(),
            not_tried: Vec::new(),
        }
    }

    #[test]
    fn a_run_passes_when_something_passed_and_nothing_failed() {
        assert!(report(&[Verdict::Passed, Verdict::NotApplicable]).passed());
        assert!(!report(&[Verdict::Passed, Verdict::Failed]).passed());
        assert!(!report(&[Verdict::NotApplicable, Verdict::Skipped]).passed());
        assert!(!report(&[]).passed());
    }

    #[test]
    fn what_was_not_tried_is_the_last_word() {
        let mut report = report(&[Verdict::Passed, Verdict::Skipped]);
        assert_eq!(
            (report.warning(), report.summary()),
            (None, "d 1: 1 passed, 0 failed, 1 skipped, 0 not applicable".to_owned())
        );
        report.not_tried = vec!["whether accounts can log in".to_owned()];
        assert_eq!(report.warning().unwrap(), "NOT TRIED: whether accounts can log in");
    }

    #[test]
    fn json_says_what_was_tested() {
        let json: serde_json::Value = serde_json::from_str(&report(&[Verdict::Passed]).json().unwrap()).unwrap();
        assert_eq!(
            (json["driver"]["name"].as_str(), json["cases"][0]["verdict"].as_str()),
            (Some("d"), Some("passed"))
        );
    }

    #[test]
    fn junit_holds_any_text() {
        let xml = report(&[Verdict::Passed, Verdict::Failed, Verdict::NotApplicable]).junit();
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.500\""), "{xml}");
        assert!(xml.contains("<failure message=\"&lt;&quot;&amp;\u{fffd}&#10;\"/>"), "{xml}");
        assert!(!xml.contains('\u{1}'));
    }
}
