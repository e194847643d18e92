//! What a result code means for the host (RFC 4511, appendix A).

use jit_plugin::Error;
use jit_plugin::ldap::LdapError;

pub(crate) const NO_SUCH_ATTRIBUTE: u32 = 16;
pub(crate) const UNDEFINED_ATTRIBUTE: u32 = 17;
pub(crate) const VALUE_EXISTS: u32 = 20;
pub(crate) const NO_SUCH_OBJECT: u32 = 32;
pub(crate) const NOT_ON_NON_LEAF: u32 = 66;
pub(crate) const OBJECT_CLASS_VIOLATION: u32 = 65;
pub(crate) const EXISTS: u32 = 68;

const TIME_LIMIT: u32 = 3;
const STRONGER_AUTH: u32 = 8;
const REFERRAL: u32 = 10;
const CONFIDENTIALITY: u32 = 13;
const INSUFFICIENT_ACCESS: u32 = 50;
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;
const UNWILLING: u32 = 53;

/// The failure of an operation that changes something.
pub(crate) fn of_change(error: LdapError) -> Error {
    let LdapError::Refused(said) = &error else {
        return error.into();
    };
    let text = format!("{} (LDAP result {})", said.message, said.code);
    let hint = match said.code {
        EXISTS => return Error::Conflict(text),
        TIME_LIMIT | BUSY | UNAVAILABLE => return Error::retryable(text),
        INSUFFICIENT_ACCESS => "the broker's account lacks a right; docs/drivers/ldap.md lists what it needs",
        NO_SUCH_OBJECT => "the entry or its parent does not exist, or the broker's account may not read it",
        REFERRAL => {
            "this server is a copy that cannot be written, or has another part of the directory: \
                     connect to the one that can"
        }
        STRONGER_AUTH | CONFIDENTIALITY => "the server requires an encrypted connection: use ldaps:// or StartTLS",
        UNWILLING => "the server is read-only, or its policy forbids this",
        OBJECT_CLASS_VIOLATION | UNDEFINED_ATTRIBUTE => {
            "`object_classes` and `attributes` do not match the server's schema"
        }
        _ => return Error::Refused(text),
    };
    Error::Refused(format!("{text}: {hint}"))
}

/// The failure of a search: without an answer, nothing was done.
pub(crate) fn of_read(error: LdapError) -> Error {
    match of_change(error) {
        Error::OutcomeUnknown(reason) => Error::retryable(reason),
        other => other,
    }
}

/// The failure of a change of the account itself, which has to be there.
pub(crate) fn of_account(error: LdapError) -> Error {
    match error.code() {
        Some(NO_SUCH_OBJECT) => Error::NotFound,
        _ => of_change(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jit_plugin::testing::refused;

    #[test]
    fn each_result_code_tells_the_host_what_to_do() {
        let kind = |code| match of_change(refused(code)) {
            Error::Conflict(_) => "conflict",
            Error::Refused(_) => "refused",
            Error::Retryable(_) => "retryable",
            _ => "else",
        };
        for (code, expected) in [
            (68, "conflict"),
            (3, "retryable"),
            (51, "retryable"),
            (52, "retryable"),
            (10, "refused"),
            (19, "refused"),
            (32, "refused"),
            (50, "refused"),
            (53, "refused"),
            (65, "refused"),
            (80, "refused"),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
        assert_eq!(of_account(refused(32)), Error::NotFound);
    }

    #[test]
    fn a_read_is_never_in_doubt() {
        assert!(matches!(of_read(LdapError::Unknown("lost".into())), Error::Retryable(_)));
        assert!(matches!(of_change(LdapError::Unknown("lost".into())), Error::OutcomeUnknown(_)));
    }
}
