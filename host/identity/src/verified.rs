//! What a method says it found, and what the broker vouches for: two types, so that one cannot pass for
//! the other.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use jit_core::name::{Principal, TargetName};

use crate::claims::{ClaimProblem, MAX_ATTRIBUTES, MAX_VALUE, check_workload, printable};
use crate::rejected::Rejected;

/// The most by which clocks may differ: no evidence is accepted longer than this after its expiry.
pub(crate) const MAX_LEEWAY: SignedDuration = SignedDuration::from_secs(120);

/// What a method read from evidence that it found good. It is only a claim: [`Identity::verify`] checks it
/// before it becomes a [`Verified`].
///
/// There is no issuer in it. The method's own name becomes the principal's issuer, so that no method can
/// speak for another's callers.
///
/// [`Identity::verify`]: crate::Identity::verify
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The workload's name at the issuer: 1 to 253 printable characters.
    pub workload: String,
    /// What the issuer calls the caller and gives to nobody else, such as a token's `sub`: 1 byte to 1 KiB,
    /// printable.
    pub subject: String,
    /// What policies see: by configured name, at most [`MAX_ATTRIBUTES`] of at most 1 KiB each.
    pub attributes: BTreeMap<String, String>,
    /// When the evidence expires.
    pub expires_at: Timestamp,
    /// The [`generation`](crate::Method::generation) of the keys that verified the evidence. With `None` the
    /// verdict is not remembered.
    pub generation: Option<u64>,
}

/// Proves that [`Claimed::check`] has passed: nothing else makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Proof(());

/// A caller whose identity was verified. Only [`Identity::verify`](crate::Identity::verify) makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who: the method's configured name, the workload's name there, and the caller's own name at the
    /// issuer (a token's `sub`), which is never empty, at most 1 KiB, and printable.
    pub principal: Principal,
    /// What policies see of the evidence: by configured name, at most 64 of at most 1 KiB each.
    pub attributes: BTreeMap<String, String>,
    /// When the evidence expires. It may be accepted for the configured leeway beyond that.
    pub expires_at: Timestamp,
    /// Not public: what makes this type unforgeable outside of this module.
    _proof: Proof,
}

impl Claimed {
    /// Checks what holds for every method. Only [`Identity::verify`](crate::Identity::verify) calls it, with
    /// the claim of a method that was asked.
    ///
    /// # Errors
    /// [`Rejected`], with the field that is wrong.
    pub(crate) fn check(self, issuer: &str, now: Timestamp) -> Result<Verified, Rejected> {
        let wrong = |mapping: &str| {
            let mapping = mapping.to_owned();
            move |problem| Rejected::Claim { mapping, problem }
        };
        check_text(&self.subject).map_err(wrong("sub"))?;
        if self.subject.is_empty() {
            return Err(wrong("sub")(ClaimProblem::Empty));
        }
        check_workload(&self.workload).map_err(wrong("workload"))?;
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Err(wrong("attributes")(ClaimProblem::TooMany));
        }
        for (name, value) in &self.attributes {
            if TargetName::new(name.as_str()).is_err() {
                return Err(wrong("attributes")(ClaimProblem::Name));
            }
            check_text(value).map_err(wrong(name))?;
        }
        if now.duration_since(self.expires_at) > MAX_LEEWAY {
            return Err(Rejected::Expired);
        }
        let principal = Principal { issuer: issuer.to_owned(), workload: self.workload, subject: self.subject };
        Ok(Verified { principal, attributes: self.attributes, expires_at: self.expires_at, _proof: Proof(()) })
    }
}

impl Verified {
    /// The bytes of text that came from the evidence, roughly.
    pub(crate) fn mapped_bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.principal.workload.len() + self.principal.subject.len() + attributes
    }
}

fn check_text(text: &str) -> Result<(), ClaimProblem> {
    match text {
        text if text.len() > MAX_VALUE => Err(ClaimProblem::TooLong),
        text if !printable(text) => Err(ClaimProblem::Unprintable),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops where it fails

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn good() -> Claimed {
        Claimed {
            workload: "shop/payment".to_owned(),
            subject: "system:serviceaccount:shop:payment".to_owned(),
            attributes: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            expires_at: now(),
            generation: None,
        }
    }

    fn refused(change: impl FnOnce(&mut Claimed)) -> Rejected {
        let mut claimed = good();
        change(&mut claimed);
        claimed.check("cluster", now()).unwrap_err()
    }

    fn claim(mapping: &str, problem: ClaimProblem) -> Rejected {
        Rejected::Claim { mapping: mapping.to_owned(), problem }
    }

    #[test]
    fn a_good_claim_is_vouched_for_under_the_methods_own_name() {
        let verified = good().check("cluster", now()).unwrap();
        assert_eq!(verified.principal.to_string(), "cluster/shop/payment");
        assert_eq!(verified.principal.subject, "system:serviceaccount:shop:payment");
        assert_eq!(verified.attributes["env"], "prod");
    }

    #[test]
    fn no_method_may_claim_names_beyond_the_bounds() {
        let long = "x".repeat(MAX_VALUE + 1);
        assert_eq!(refused(|it| it.subject.clear()), claim("sub", ClaimProblem::Empty));
        assert_eq!(refused(|it| it.subject.clone_from(&long)), claim("sub", ClaimProblem::TooLong));
        assert_eq!(refused(|it| it.subject = "a\u{202e}b".into()), claim("sub", ClaimProblem::Unprintable));
        assert_eq!(refused(|it| it.workload.clear()), claim("workload", ClaimProblem::Empty));
        assert_eq!(refused(|it| it.workload = "x".repeat(254)), claim("workload", ClaimProblem::TooLong));
        assert_eq!(refused(|it| it.workload = "a\n".into()), claim("workload", ClaimProblem::Unprintable));
        assert_eq!(refused(|it| it.workload = " a".into()), claim("workload", ClaimProblem::Unprintable));
        let put = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(refused(|it| it.attributes.extend([put("env", &long)])), claim("env", ClaimProblem::TooLong));
        assert_eq!(refused(|it| it.attributes.extend([put("env", "a\0")])), claim("env", ClaimProblem::Unprintable));
        assert_eq!(refused(|it| it.attributes.extend([put("a\nb", "c")])), claim("attributes", ClaimProblem::Name));
        let many = (0..MAX_ATTRIBUTES).map(|n| put(&n.to_string(), "a"));
        assert_eq!(refused(|it| it.attributes.extend(many)), claim("attributes", ClaimProblem::TooMany));
    }

    #[test]
    fn no_method_may_accept_evidence_long_after_its_expiry() {
        let mut claimed = good();
        claimed.expires_at = now() - MAX_LEEWAY;
        claimed.check("cluster", now()).unwrap();
        assert_eq!(refused(|it| it.expires_at = now() - MAX_LEEWAY - SignedDuration::from_secs(1)), Rejected::Expired);
    }
}
