//! For whom a policy counts already: a share of the workloads, stable by workload, and a match.
//!
//! A policy that is being rolled out counts for those it has reached and is a shadow for everybody
//! else, so that what it would change for them is seen before it reaches them.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::glob::Glob;
use crate::policy::PolicyRequest;

/// So many parts has the whole: a share is exact to a hundredth of a percent.
const PARTS: u64 = 10_000;

/// A share of all workloads, 0 to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Everybody.
    pub const ALL: Self = Self(PARTS);

    /// Whether it draws between workloads at all.
    #[must_use]
    pub fn draws(self) -> bool {
        self.0 != 0 && self != Self::ALL
    }

    /// From a percentage; none when it is not within 0 to 100.
    #[must_use]
    pub fn from_percent(percent: f64) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 100")]
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 100.0).round() as u64))
    }
}

/// A secret of one broker by which shares are drawn. It comes from the key that signs the audit log, so it is
/// the same after a restart, and for commands that may read that key.
#[derive(Clone)]
pub struct ShareKey(Zeroizing<[u8; 32]>);

impl ShareKey {
    /// The purpose for which the broker derives this secret from its signing key.
    pub const PURPOSE: &'static str = "rollout";

    /// From a secret that was derived for [`ShareKey::PURPOSE`].
    #[must_use]
    pub fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareKey(…)")
    }
}

/// How far a policy has been rolled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// How many of the workloads that match.
    pub share: Share,
    /// The workload's name, where that matters.
    pub workload: Option<Glob>,
    /// The issuer's configured name.
    pub issuer: Option<Glob>,
    /// The target.
    pub target: Option<Glob>,
    /// Attributes of the identity: each must be there and fit.
    pub attributes: BTreeMap<String, Glob>,
}

impl Rollout {
    /// Whether the policy counts for this request. The same workload always falls on the same side;
    /// a larger share keeps all that a smaller one had; other policies, and other keys, draw other workloads.
    #[must_use]
    pub fn reaches(&self, key: Option<&ShareKey>, policy: &str, request: &PolicyRequest) -> bool {
        let fits = |wanted: &Option<Glob>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted.fits(value));
        fits(&self.workload, &request.workload)
            && fits(&self.issuer, &request.issuer)
            && fits(&self.target, &request.target)
            && self
                .attributes
                .iter()
                .all(|(name, wanted)| request.attributes.get(name).is_some_and(|value| wanted.fits(value)))
            && match key.filter(|_| self.share.draws()) {
                Some(key) => place(key, policy, &request.issuer, &request.workload) < self.share.0,
                // Without a key nobody is left out.
                None => self.share.0 != 0,
            }
    }
}

/// Where a workload stands among all, `0..PARTS`: a keyed hash, so that names that look alike are spread, and
/// nobody can compute a name that a share does not reach.
fn place(key: &ShareKey, policy: &str, issuer: &str, workload: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"jit-broker rollout v2");
    hash.update(key.0.as_slice());
    for part in [policy, issuer, workload] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first) % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::request;

    fn key(seed: u8) -> ShareKey {
        ShareKey::new(Zeroizing::new([seed; 32]))
    }

    fn of(percent: f64) -> Rollout {
        let share = Share::from_percent(percent).unwrap();
        Rollout { share, workload: None, issuer: None, target: None, attributes: BTreeMap::new() }
    }

    fn reached(rollout: &Rollout, policy: &str) -> Vec<usize> {
        let asks = |number: usize| PolicyRequest { workload: format!("service-{number}"), ..request() };
        (0..2_000).filter(|number| rollout.reaches(Some(&key(1)), policy, &asks(*number))).collect()
    }

    #[test]
    fn a_share_is_about_that_many_and_grows_without_losing_any() {
        let (tenth, half) = (reached(&of(10.0), "p"), reached(&of(50.0), "p"));
        assert!((140..=260).contains(&tenth.len()), "{}", tenth.len());
        assert!((900..=1_100).contains(&half.len()), "{}", half.len());
        assert!(tenth.iter().all(|number| half.contains(number)));
        assert_eq!(reached(&of(10.0), "p"), tenth, "stable");
        assert_ne!(reached(&of(10.0), "q"), tenth, "another policy draws others");
        assert_eq!(reached(&of(100.0), "p").len(), 2_000);
        assert!(reached(&of(0.0), "p").is_empty());
    }

    #[test]
    fn whom_a_share_reaches_cannot_be_computed_without_the_key() {
        let half = of(50.0);
        let ours: Vec<bool> = (0..64).map(|n| half.reaches(Some(&key(1)), "p", &named(n))).collect();
        let theirs: Vec<bool> = (0..64).map(|n| half.reaches(Some(&key(2)), "p", &named(n))).collect();
        assert_ne!(ours, theirs);
        assert_eq!(format!("{:?}", key(1)), "ShareKey(…)");
        assert!((0..64).all(|n| of(100.0).reaches(Some(&key(2)), "p", &named(n))));
    }

    fn named(number: usize) -> PolicyRequest {
        PolicyRequest { workload: format!("service-{number}"), ..request() }
    }

    #[test]
    fn what_does_not_match_is_not_reached() {
        let glob = |text: &str| Some(Glob::new(text).unwrap());
        let all = of(100.0);
        let mut with_env = request();
        with_env.attributes.insert("env".into(), "prod".into());
        let prod = BTreeMap::from([("env".to_owned(), Glob::new("prod").unwrap())]);
        assert!(Rollout { attributes: prod.clone(), ..all.clone() }.reaches(Some(&key(1)), "p", &with_env));
        assert!(
            !Rollout { attributes: prod, ..all.clone() }.reaches(Some(&key(1)), "p", &request()),
            "the attribute is missing"
        );
        assert!(Rollout { workload: glob("payment-*"), ..all.clone() }.reaches(Some(&key(1)), "p", &request()));
        assert!(!Rollout { workload: glob("reporting"), ..all.clone() }.reaches(Some(&key(1)), "p", &request()));
        assert!(!Rollout { target: glob("other"), ..all.clone() }.reaches(Some(&key(1)), "p", &request()));
        assert!(!Rollout { issuer: glob("other"), ..all }.reaches(Some(&key(1)), "p", &request()));
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!(Share::from_percent(100.0), Some(Share::ALL));
        assert!([-0.1, 100.1, f64::NAN, f64::INFINITY].into_iter().all(|bad| Share::from_percent(bad).is_none()));
    }
}
