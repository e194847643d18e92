//! Why not: told so that the caller can ask for the right thing, and learns nothing of rules that
//! are for others.

use jit_plugin::Request;
use jit_plugin::text::shown;

/// How far a request fits a rule, the nearest last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// The rule is for somebody else.
    NoRule,
    /// For this workload, but another target.
    OtherTarget,
    /// For this workload and target, but other roles.
    OtherRole,
    /// All but this attribute.
    Attribute(String),
    /// All but the type of the credential.
    Credential,
    /// All.
    Fits,
}

/// The reason for the furthest that any rule went.
pub(crate) fn why_not(furthest: &Progress, request: &Request) -> String {
    let workload = shown(request.workload());
    let (target, role) = (shown(request.target()), shown(request.role()));
    match furthest {
        Progress::NoRule => format!(
            "no rule of the allow-list is for workload {workload} of issuer {}: ask the owner of \
             target {target} to add one",
            shown(request.issuer())
        ),
        Progress::OtherTarget => {
            format!("the allow-list gives workload {workload} nothing on target {target}")
        }
        Progress::OtherRole => format!(
            "the allow-list does not give workload {workload} role {role} on target {target}: ask \
             for another role"
        ),
        Progress::Attribute(name) => match request.attribute(name) {
            Some(_) => format!(
                "the allow-list gives workload {workload} role {role} on target {target} only with \
                 another value of attribute {}",
                shown(name)
            ),
            None => format!(
                "the allow-list gives workload {workload} role {role} on target {target} only with \
                 attribute {}, which this identity does not have",
                shown(name)
            ),
        },
        Progress::Credential => format!(
            "the allow-list gives workload {workload} role {role} on target {target} only where the caller makes the \
             password: send \"credential\" of type \"verifier\""
        ),
        Progress::Fits => "a rule fits".to_owned(),
    }
}
