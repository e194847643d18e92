//! Asking each target's driver whether its configuration holds: for `config check`, and beside the serving.

use std::fmt;

use jit_core::driver::Lane;
use jit_core::driver::RoleView;
use jit_core::outcome::{Outcome, Refusal};
use tracing::Instrument as _;

use crate::ports::{Driver, FoundDriver};
use crate::target::{Serving, Target};

/// What a target's driver says of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Mistakes, each with the path below the target that it is about (empty for the whole).
    Configuration(Vec<(String, String)>),
    /// Nobody answered, or the login was refused: the trouble is the connection's.
    Connection(String),
    /// The target refused, or its answer was lost.
    Other(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(mistakes) => {
                let line = |(path, message): &(String, String)| match path.as_str() {
                    "" => message.clone(),
                    path => format!("{path}: {message}"),
                };
                f.write_str(&mistakes.iter().map(line).collect::<Vec<_>>().join("; "))
            }
            Self::Connection(reason) | Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Asks every target's driver whether its configuration holds, in so far as the target answers.
/// Gives one line for each that does not.
pub async fn check_targets(serving: &Serving) -> Vec<(String, Result<(), Wrong>)> {
    check_some(serving, |_| true).await
}

/// The same for those targets that are chosen.
pub async fn check_some(serving: &Serving, chosen: impl Fn(&Target) -> bool) -> Vec<(String, Result<(), Wrong>)> {
    let checks = serving.targets.values().filter(|target| chosen(target)).map(|target| {
        // What the driver says meanwhile is about this target.
        let span = tracing::info_span!("check", checked_target = target.name.as_str());
        validate(target).instrument(span)
    });
    futures_util::future::join_all(checks).await
}

/// The field of the span in which a target is checked.
pub const ABOUT_TARGET: &str = "checked_target";

/// Lets every target's driver look at its configuration without a connection: a driver checks what stands there before
/// it asks its server. That it cannot ask is no mistake.
pub async fn check_unconnected(serving: &Serving) -> Vec<(String, Result<(), Wrong>)> {
    let checks = serving.targets.values().map(|target| async {
        let Ok(FoundDriver { driver, .. }) = serving.drivers.find(&target.driver_name, None) else {
            return (target.name.to_string(), Ok(()));
        };
        let (name, result) = validate_by(&*driver, target).await;
        (name, result.or_else(|wrong| if matches!(wrong, Wrong::Configuration(_)) { Err(wrong) } else { Ok(()) }))
    });
    futures_util::future::join_all(checks).await
}

async fn validate(target: &Target) -> (String, Result<(), Wrong>) {
    validate_by(&*target.driver, target).await
}

async fn validate_by(driver: &dyn Driver, target: &Target) -> (String, Result<(), Wrong>) {
    let roles: Vec<RoleView> = target.roles.values().map(|role| role.view.clone()).collect();
    let result = match driver.validate(&target.scope(Lane::Removal), &target.view, &roles).await {
        Outcome::Done(()) => Ok(()),
        Outcome::Refused(Refusal::Configuration(text)) => Err(Wrong::Configuration(mistakes(&text))),
        Outcome::Refused(Refusal::Unavailable { reason, answered: false, .. }) => Err(Wrong::Connection(reason)),
        Outcome::Refused(refusal) => Err(Wrong::Other(refusal.reason())),
        Outcome::Unknown(reason) => Err(Wrong::Other(reason)),
    };
    (target.name.to_string(), result)
}

/// The runtime gives one line for each mistake: its path where it has one, and what is wrong.
fn mistakes(text: &str) -> Vec<(String, String)> {
    let is_path = |path: &str| !path.is_empty() && !path.contains(char::is_whitespace);
    let line = |line: &str| match line.split_once(": ") {
        Some((path, message)) if is_path(path) => (path.to_owned(), message.to_owned()),
        _ => (String::new(), line.to_owned()),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_driver_is_a_path_and_a_mistake() {
        let told = mistakes("roles.app.grants[0]: no such role: CREATE ROLE \"app\"\nis empty: name one\nand 3 more");
        let pair = |path: &str, message: &str| (path.to_owned(), message.to_owned());
        assert_eq!(
            told,
            [
                pair("roles.app.grants[0]", "no such role: CREATE ROLE \"app\""),
                pair("", "is empty: name one"),
                pair("", "and 3 more")
            ]
        );
        let wrong = Wrong::Configuration(told);
        assert!(wrong.to_string().starts_with("roles.app.grants[0]: no such role"), "{wrong}");
    }
}
