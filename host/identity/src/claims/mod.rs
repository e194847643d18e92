//! From a token's claims to a workload's name and to attributes, by configuration.
//!
//! | module | what it holds |
//! |---|---|
//! | `path` | a path to one claim |
//! | `template` | how a workload's name is made from claims |

mod path;
mod template;

pub use self::path::{ClaimPath, ClaimPathError};
pub use self::template::{TemplateError, WorkloadTemplate};

/// The longest workload name, in characters (a DNS name's limit).
const MAX_WORKLOAD: usize = 253;
/// The longest attribute, in bytes.
pub(crate) const MAX_VALUE: usize = 1024;
/// The most attributes of one caller.
pub const MAX_ATTRIBUTES: usize = 64;

/// What is wrong with a claim that the configuration maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimProblem {
    /// Not in the token.
    #[error("claim is missing")]
    Missing,
    /// The path can be read in two ways, and the token has a value for both.
    #[error("claim path matches two claims of the token")]
    Ambiguous,
    /// An object or a list.
    #[error("claim is not a string, number or boolean")]
    NotScalar,
    /// The empty string where a name is needed.
    #[error("claim is empty")]
    Empty,
    /// Beyond the limit.
    #[error("claim is too long")]
    TooLong,
    /// Control or invisible characters, or spaces around it.
    #[error("claim has control or invisible characters, or spaces around it")]
    Unprintable,
    /// More attributes than a caller may have.
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// An attribute's name.
    #[error("an attribute has a name that no configuration may use")]
    Name,
    /// A claim's value has the template's separator in it: two workloads could get one name.
    #[error("claim contains the separator that the workload template has after it")]
    Separator,
}

/// No control characters, and none that make a text look like another one (zero width, direction).
pub(crate) fn printable(text: &str) -> bool {
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    !text.chars().any(invisible)
}

/// Whether a text is a workload's name: 1 to 253 printable characters without spaces around them.
pub(crate) fn check_workload(name: &str) -> Result<(), ClaimProblem> {
    match name {
        "" => Err(ClaimProblem::Empty),
        name if name.chars().count() > MAX_WORKLOAD => Err(ClaimProblem::TooLong),
        name if name.trim() != name || !printable(name) => Err(ClaimProblem::Unprintable),
        _ => Ok(()),
    }
}
