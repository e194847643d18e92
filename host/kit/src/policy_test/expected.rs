//! What was expected beside what was answered.

use std::fmt;

use jit_core::policy::{Allowance, Requirement, Verdict};
use jit_core::ttl::Ttl;

use super::Outcome;
use super::cases::{Expect, ExpectAllow};

/// How the answer differs from what was expected, if it does.
pub(super) fn difference(expect: &Expect, outcome: &Outcome) -> Option<String> {
    let wrong = match (expect, outcome) {
        (Expect::Allow(expect), Outcome::Verdict(Verdict::Allow(allowance))) => conditions(expect, allowance)?,
        (Expect::Deny { reason }, Outcome::Verdict(Verdict::Deny(said))) => lacks("reason", reason.as_deref(), said)?,
        (Expect::Problems(parts), Outcome::Problems(problems)) => {
            let missing = parts.iter().find(|part| !problems.iter().any(|problem| problem.contains(part.as_str())))?;
            format!("no problem says {missing:?}")
        }
        (Expect::Fault(part), Outcome::Fault(said)) => lacks("fault", Some(part), said)?,
        _ => return Some(format!("expected {expect}, got {outcome}")),
    };
    Some(format!("{wrong}; got {outcome}"))
}

fn conditions(expect: &ExpectAllow, allowance: &Allowance) -> Option<String> {
    if let Some(wrong) = lacks("reason", expect.reason.as_deref(), &allowance.reason) {
        return Some(wrong);
    }
    if let Some(max_ttl) = expect.max_ttl
        && max_ttl != allowance.max_ttl
    {
        return Some(format!("expected max_ttl {}", or_none(max_ttl)));
    }
    if let Some(role) = &expect.role
        && role.as_deref() != allowance.role.as_ref().map(|role| role.as_str())
    {
        return Some(format!("expected role {}", role.as_deref().unwrap_or("none")));
    }
    if let Some(requires) = &expect.requires
        && sorted(requires) != sorted(&allowance.requires)
    {
        return Some(format!("expected requires {}", list(&sorted(requires))));
    }
    let missing = expect.labels.iter().find(|(name, value)| allowance.labels.get(*name) != Some(*value));
    missing.map(|(name, value)| format!("expected the label {name} = {value:?}"))
}

fn lacks(what: &str, part: Option<&str>, said: &str) -> Option<String> {
    let part = part.filter(|part| !said.contains(part))?;
    Some(format!("expected {part:?} in its {what}"))
}

fn or_none(ttl: Option<Ttl>) -> String {
    ttl.map_or_else(|| "none".to_owned(), |ttl| ttl.to_string())
}

fn sorted(requires: &[Requirement]) -> Vec<&'static str> {
    let mut words: Vec<_> = requires
        .iter()
        .map(|requirement| match requirement {
            Requirement::Reason => "reason",
            Requirement::Ticket => "ticket",
            Requirement::Approval => "approval",
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

fn list(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(_) => f.write_str("allow"),
            Self::Deny { .. } => f.write_str("deny"),
            Self::Problems(_) => f.write_str("problems of the configuration"),
            Self::Fault(_) => f.write_str("a fault"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problems(problems) => write!(f, "problems of the configuration: {}", problems.join("; ")),
            Self::Fault(text) => write!(f, "a fault: it {text}"),
            Self::Verdict(Verdict::Deny(reason)) => write!(f, "deny: {reason}"),
            Self::Verdict(Verdict::Allow(allowance)) => {
                f.write_str("allow")?;
                if let Some(max_ttl) = allowance.max_ttl {
                    write!(f, ", max_ttl {max_ttl}")?;
                }
                if let Some(role) = &allowance.role {
                    write!(f, ", role {}", role.as_str())?;
                }
                if !allowance.requires.is_empty() {
                    write!(f, ", requires {}", list(&sorted(&allowance.requires)))?;
                }
                for (name, value) in &allowance.labels {
                    write!(f, ", {name}={value}")?;
                }
                if !allowance.reason.is_empty() {
                    write!(f, ": {}", allowance.reason)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jit_core::name::RoleName;

    use super::*;

    fn allowed() -> Outcome {
        Outcome::Verdict(Verdict::Allow(Allowance {
            reason: "of prod".into(),
            max_ttl: Some("30m".parse().unwrap()),
            role: Some(RoleName::new("reader").unwrap()),
            requires: vec![Requirement::Ticket, Requirement::Reason],
            labels: [("environment".to_owned(), "prod".to_owned())].into(),
        }))
    }

    fn expect(text: &str) -> Expect {
        let text = format!("[[case]]\nname = \"c\"\nexpect = {{ {text} }}\n");
        super::super::cases::Cases::parse(&text, "cases.toml".as_ref(), None).unwrap().cases.remove(0).expect
    }

    #[test]
    fn each_condition_is_compared_when_it_is_named() {
        for good in [
            "",
            ", reason = \"prod\"",
            ", max_ttl = \"1800\"",
            ", role = \"reader\"",
            ", requires = [\"reason\", \"ticket\"]",
            ", labels = { environment = \"prod\" }",
        ] {
            assert_eq!(difference(&expect(&format!("verdict = \"allow\"{good}")), &allowed()), None, "{good}");
        }
        for bad in [
            ", reason = \"dev\"",
            ", max_ttl = \"1h\"",
            ", max_ttl = \"none\"",
            ", role = \"writer\"",
            ", role = \"none\"",
            ", requires = [\"ticket\"]",
            ", requires = []",
            ", labels = { environment = \"dev\" }",
            ", labels = { other = \"prod\" }",
        ] {
            let told = difference(&expect(&format!("verdict = \"allow\"{bad}")), &allowed());
            assert!(told.as_ref().is_some_and(|told| told.contains("; got allow, max_ttl 30m")), "{bad}: {told:?}");
        }
    }

    #[test]
    fn another_kind_of_answer_is_a_difference() {
        let outcomes = [
            allowed(),
            Outcome::Verdict(Verdict::Deny("no".into())),
            Outcome::Problems(vec!["a: b".into()]),
            Outcome::Fault("x".into()),
        ];
        let expected =
            ["verdict = \"allow\"", "verdict = \"deny\", reason = \"n\"", "problems = [\"a:\"]", "fault = \"\""];
        for (place, outcome) in outcomes.iter().enumerate() {
            for (other, text) in expected.iter().enumerate() {
                assert_eq!(difference(&expect(text), outcome).is_none(), place == other, "{outcome} for {text}");
            }
        }
        assert!(difference(&expect("verdict = \"deny\", reason = \"yes\""), &outcomes[1]).is_some());
        assert!(difference(&expect("problems = [\"a\", \"c\"]"), &outcomes[2]).is_some());
    }
}
