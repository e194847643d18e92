//! The configuration of a prepared instance.
//!
//! An instance is prepared once and then asked, and a component is one plugin, so there is one configuration.
//! It lives in the instance's memory: the host copies that for each call.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use crate::config::{self, ConfigProblem};

thread_local! {
    static PREPARED: RefCell<Option<Rc<dyn Any>>> = const { RefCell::new(None) };
}

/// Reads a configuration and checks it.
pub(crate) fn validate<C: DeserializeOwned>(
    json: &str,
    validate: impl FnOnce(&C) -> Vec<ConfigProblem>,
) -> Result<(), Vec<ConfigProblem>> {
    crate::panic::install();
    let problems = validate(&config::parse(json)?);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Reads a configuration, does the work that depends on it alone, and keeps it.
pub(crate) fn prepare<C: DeserializeOwned + 'static>(
    json: &str,
    prepare: impl FnOnce(&mut C) -> Result<(), Vec<ConfigProblem>>,
) -> Result<(), Vec<ConfigProblem>> {
    crate::panic::install();
    let mut config: C = config::parse(json)?;
    prepare(&mut config)?;
    PREPARED.with(|prepared| *prepared.borrow_mut() = Some(Rc::new(config)));
    Ok(())
}

/// The configuration that was kept.
pub(crate) fn config<C: 'static>() -> Result<Rc<C>, String> {
    let kept = PREPARED.with(|prepared| prepared.borrow().clone());
    kept.and_then(|config| config.downcast().ok()).ok_or_else(|| "the instance was not prepared".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]
    use super::*;

    #[test]
    fn what_was_accepted_is_kept_and_nothing_else() {
        let problem = || vec![ConfigProblem::new("", "is odd")];
        assert!(validate::<u64>("8", |_| Vec::new()).is_ok());
        assert_eq!(validate::<u64>("7", |_| problem()), Err(problem()));
        assert!(config::<u64>().unwrap_err().contains("not prepared"));
        assert!(prepare::<u64>("\"x\"", |_| Ok(())).is_err());
        assert_eq!(prepare::<u64>("7", |_| Err(problem())), Err(problem()));
        assert!(config::<u64>().is_err());
        let add = |number: &mut u64| {
            *number += 1;
            Ok(())
        };
        prepare::<u64>("8", add).unwrap();
        assert_eq!(*config::<u64>().unwrap(), 9);
        assert!(config::<String>().is_err());
    }
}
