//! The policy's configuration: one window in short, or several in full.

use jit_plugin::pattern::any_fits;
use jit_plugin::{ConfigProblem, Name, Pattern, Request};
use serde::Deserialize;

use crate::calendar::{Days, Holidays, TimeOfDay, Zone};
use crate::hours::Hours;

/// More windows than this belong into several policies: each decision looks at them all.
const MAX_WINDOWS: usize = 100;

/// More holidays than any calendar of a few years has.
const MAX_HOLIDAYS: usize = 1000;

/// The policy's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    time_zone: Zone,
    /// The one window, for all targets and roles.
    days: Option<Days>,
    from: Option<TimeOfDay>,
    to: Option<TimeOfDay>,
    /// Several windows instead.
    windows: Option<Vec<WindowConfig>>,
    /// Dates on which no window opens.
    #[serde(default)]
    holidays: Holidays,
    /// Whether a lease ends with the window in which it was given.
    #[serde(default)]
    pub(crate) cap_ttl: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowConfig {
    /// What reasons and the audit record call it; without one, its place in the list.
    name: Option<Name>,
    /// Another than the policy's.
    time_zone: Option<Zone>,
    /// Left out, every day.
    days: Option<Days>,
    /// Left out, midnight.
    from: Option<TimeOfDay>,
    /// Left out, midnight. Before `from`, it is on the next day.
    to: Option<TimeOfDay>,
    /// The targets that it is for; left out, all.
    targets: Option<Vec<Pattern>>,
    /// The roles that it is for; left out, all.
    roles: Option<Vec<Pattern>>,
    /// Whether it opens on holidays too.
    #[serde(default)]
    on_holidays: bool,
}

/// A window that can be asked.
#[derive(Debug)]
pub(crate) struct Window<'c> {
    pub(crate) name: String,
    pub(crate) zone: &'c Zone,
    pub(crate) hours: Hours<'c>,
    /// Whether the policy's holidays close it or not.
    pub(crate) holidays: &'c Holidays,
    targets: Option<&'c [Pattern]>,
    roles: Option<&'c [Pattern]>,
}

impl Window<'_> {
    pub(crate) fn is_for(&self, request: &Request) -> bool {
        any_fits(self.targets, request.target()) && any_fits(self.roles, request.role())
    }
}

impl Config {
    /// What the types do not say.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let short = self.days.is_some() || self.from.is_some() || self.to.is_some();
        match &self.windows {
            Some(_) if short => problems.push(ConfigProblem::new(
                "windows",
                "cannot stand beside `days`, `from` and `to`: put those into a window of their own",
            )),
            None if !short => problems.push(ConfigProblem::new(
                "",
                "opens at no time: add `days = [\"mon-fri\"]`, `from = \"08:00\"` and `to = \"18:00\"`, or `windows`",
            )),
            Some(windows) if windows.is_empty() => {
                problems.push(ConfigProblem::new("windows", "is empty, which denies everything: add a window"));
            }
            Some(windows) if windows.len() > MAX_WINDOWS => {
                let message = format!("has more than {MAX_WINDOWS} windows: split them over several policies");
                problems.push(ConfigProblem::new("windows", message));
            }
            Some(windows) => {
                for (index, window) in windows.iter().enumerate() {
                    problems.extend(window.problems(&format!("windows[{index}].")));
                }
            }
            None => problems.extend(time_problems("", self.days, self.from, self.to)),
        }
        if self.holidays.len() > MAX_HOLIDAYS {
            let message = format!("has more than {MAX_HOLIDAYS} dates: leave out those that are past");
            problems.push(ConfigProblem::new("holidays", message));
        }
        problems
    }

    /// The windows, in order.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window<'_>> {
        let short = self.windows.is_none().then(|| Window {
            name: "the window".to_owned(),
            zone: &self.time_zone,
            hours: hours(&self.time_zone, self.days, self.from, self.to, Some(&self.holidays)),
            holidays: &self.holidays,
            targets: None,
            roles: None,
        });
        let full = self.windows.iter().flatten().enumerate().map(|(index, window)| {
            let zone = window.time_zone.as_ref().unwrap_or(&self.time_zone);
            let holidays = (!window.on_holidays).then_some(&self.holidays);
            Window {
                name: match &window.name {
                    Some(name) => format!("window `{name}`"),
                    None => format!("windows[{index}]"),
                },
                zone,
                hours: hours(zone, window.days, window.from, window.to, holidays),
                holidays: &self.holidays,
                targets: window.targets.as_deref(),
                roles: window.roles.as_deref(),
            }
        });
        short.into_iter().chain(full)
    }
}

fn hours<'c>(
    zone: &'c Zone,
    days: Option<Days>,
    from: Option<TimeOfDay>,
    to: Option<TimeOfDay>,
    holidays: Option<&'c Holidays>,
) -> Hours<'c> {
    Hours {
        zone: &zone.rules,
        days: days.unwrap_or(Days::ALL),
        from: from.unwrap_or(TimeOfDay::MIDNIGHT),
        to: to.unwrap_or(TimeOfDay::END),
        holidays,
    }
}

impl WindowConfig {
    fn problems(&self, path: &str) -> Vec<ConfigProblem> {
        let mut problems = time_problems(path, self.days, self.from, self.to);
        for (key, patterns) in [("targets", &self.targets), ("roles", &self.roles)] {
            if patterns.as_ref().is_some_and(Vec::is_empty) {
                let message = format!("is empty, so the window is for nothing: leave it out for all {key}");
                problems.push(ConfigProblem::new(format!("{path}{key}"), message));
            }
        }
        problems
    }
}

fn time_problems(path: &str, days: Option<Days>, from: Option<TimeOfDay>, to: Option<TimeOfDay>) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let mut problem = |key: &str, message: &str| problems.push(ConfigProblem::new(format!("{path}{key}"), message));
    if days.is_some_and(Days::is_empty) {
        problem("days", "is empty, so the window never opens: name days, or leave it out for every day");
    }
    if from == Some(TimeOfDay::END) {
        problem("from", "is the end of the day: write `00:00` and the next day");
    } else if to == Some(TimeOfDay::MIDNIGHT) && from.is_none_or(|from| from == TimeOfDay::MIDNIGHT) {
        problem("to", "is the beginning of the day: write `24:00` for its end");
    } else if from.is_some() && from == to {
        problem("to", "is the same as `from`: for the whole day write `00:00` and `24:00`");
    }
    problems
}
