//! What the host counts for policies that decide by it: requests within windows, and live leases.
//!
//! Each number includes the request that is being decided, so requests at the same moment see
//! different numbers and cannot slip through together.

use std::collections::BTreeMap;

/// The longest window, in seconds: 31 days.
pub const MAX_WINDOW: u64 = 31 * 86_400;
/// The most windows of one policy, and of all policies of one target.
pub const MAX_WINDOWS: usize = 8;

/// One number in each scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scoped {
    /// Of this workload, in all targets.
    pub workload: u64,
    /// Of this workload, in this target.
    pub workload_target: u64,
    /// Of everybody, in this target.
    pub target: u64,
}

impl Scoped {
    /// The same with so many more in each scope.
    #[must_use]
    pub fn plus(self, more: u64) -> Self {
        Self {
            workload: self.workload.saturating_add(more),
            workload_target: self.workload_target.saturating_add(more),
            target: self.target.saturating_add(more),
        }
    }

    fn each(self) -> [(&'static str, u64); 3] {
        [("workload", self.workload), ("workload_target", self.workload_target), ("target", self.target)]
    }
}

/// What was counted for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests within each window, by its seconds.
    pub requests: BTreeMap<u64, Scoped>,
    /// Leases that are not over, and those about to be made.
    pub leases: Scoped,
}

impl Usage {
    /// As policies read it (`wit/usage.wit`).
    pub fn facts(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let requests = self.requests.iter().flat_map(|(window, counts)| {
            counts.each().map(|(scope, count)| (format!("usage.{scope}.requests.{window}"), count.to_string()))
        });
        let leases = self.leases.each().map(|(scope, count)| (format!("usage.{scope}.leases"), count.to_string()));
        requests.chain(leases)
    }
}

/// Checks the windows that a policy asks for; gives them sorted, each once.
///
/// # Errors
/// In words for the plugin's author.
pub fn checked_windows(mut windows: Vec<u64>) -> Result<Vec<u64>, String> {
    windows.sort_unstable();
    windows.dedup();
    if windows.len() > MAX_WINDOWS {
        return Err(format!("it asks for {} windows, at most {MAX_WINDOWS}", windows.len()));
    }
    match windows.iter().find(|window| !(1..=MAX_WINDOW).contains(*window)) {
        Some(window) => Err(format!("it asks for a window of {window} s: 1 to {MAX_WINDOW}")),
        None => Ok(windows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_as_the_contract_names_them() {
        let counts = Scoped { workload: 3, workload_target: 2, target: 7 };
        let usage = Usage { requests: BTreeMap::from([(3_600, counts)]), leases: counts.plus(1) };
        let facts: BTreeMap<_, _> = usage.facts().collect();
        let wit = include_str!("../../../wit/usage.wit");
        for (name, value) in [
            ("usage.workload.requests.3600", "3"),
            ("usage.workload_target.requests.3600", "2"),
            ("usage.target.requests.3600", "7"),
            ("usage.workload.leases", "4"),
            ("usage.workload_target.leases", "3"),
            ("usage.target.leases", "8"),
        ] {
            assert_eq!(facts[name], value);
            assert!(wit.contains(&format!("`{}`", name.replace("3600", "n"))), "{name} is not in the contract");
        }
        assert_eq!(facts.len(), 6);
    }

    #[test]
    fn windows_are_bounded() {
        assert_eq!(checked_windows(vec![60, 3_600, 60]), Ok(vec![60, 3_600]));
        assert_eq!(checked_windows(Vec::new()), Ok(Vec::new()));
        assert!(checked_windows(vec![0]).is_err());
        assert!(checked_windows(vec![MAX_WINDOW + 1]).is_err());
        assert!(checked_windows((1..=9).collect()).is_err());
    }
}
