//! Why not: which side is of which environment, and who can help.

use jit_plugin::Request;
use jit_plugin::text::shown;

use crate::Config;
use crate::side::{Known, Unknown};

/// For a request that would cross from one environment into another.
pub(crate) fn crossing(config: &Config, workload: Known<'_>, target: Known<'_>, request: &Request) -> String {
    format!(
        "workload {} is of environment `{workload}` (its attribute {}), and {} is of `{target}`: ask from a \
         workload of `{target}`, or for a target of `{workload}`",
        shown(request.workload()),
        shown(&config.attribute),
        asked(request)
    )
}

/// For a side whose environment is not known.
pub(crate) fn unknown(config: &Config, unknown: &Unknown, request: &Request) -> String {
    let (workload, attribute) = (shown(request.workload()), shown(&config.attribute));
    let value = || shown(request.attribute(&config.attribute).unwrap_or_default());
    match unknown {
        Unknown::NoAttribute => format!(
            "the environment of workload {workload} is not known: its identity has no attribute {attribute}; the \
             broker's configuration of its issuer maps claims to attributes"
        ),
        Unknown::Value => format!(
            "the environment of workload {workload} is not known: its attribute {attribute} is {}, which is none \
             of this policy's",
            value()
        ),
        Unknown::Several(names) => format!(
            "the environment of workload {workload} is not clear: its attribute {attribute} is {}, which is of {}",
            value(),
            names.join(" and of ")
        ),
        Unknown::Target => format!(
            "nothing says which environment {} is of: ask the target's owner to add it to this policy",
            asked(request)
        ),
    }
}

fn asked(request: &Request) -> String {
    format!("role {} of target {}", shown(request.role()), shown(request.target()))
}
