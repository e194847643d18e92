//! The two sides of a request, each of one environment or of none that is known.

use std::collections::BTreeMap;

use jit_plugin::{Name, Pattern};

/// An environment that the configuration names.
pub(crate) type Known<'c> = &'c str;

/// Why a side's environment is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The identity lacks the attribute.
    NoAttribute,
    /// The attribute's value is of no environment.
    Value,
    /// The attribute's value is of several, and which is meant is nobody's guess.
    Several(Vec<String>),
    /// Nothing says of which the target's role is.
    Target,
}

/// The one environment whose values a value is among.
pub(crate) fn only<'c>(environments: &'c BTreeMap<Name, Vec<Pattern>>, value: &str) -> Result<Known<'c>, Unknown> {
    let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(value));
    let fitting: Vec<&str> =
        environments.iter().filter(|(_, patterns)| fits(patterns)).map(|(name, _)| name.as_str()).collect();
    match fitting.as_slice() {
        [] => Err(Unknown::Value),
        [one] => Ok(one),
        several => Err(Unknown::Several(several.iter().map(|name| (*name).to_owned()).collect())),
    }
}
