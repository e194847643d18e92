//! The cases, a row each. Groups are files.

mod crash;
mod hostile;
mod lifecycle;
mod load;
mod names;
mod outage;
mod refusals;
mod rotation;
mod verifiers;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::stand::Stand;

/// One promise, and how it is tried.
pub struct Case {
    /// `group::what-it-shows`.
    pub name: &'static str,
    /// In a sentence.
    pub promise: &'static str,
    /// Gives what was seen, for the report; an error is a failure.
    pub run: for<'a> fn(&'a Stand) -> BoxFuture<'a, Result<String>>,
}

macro_rules! cases {
    ($($group:ident::$case:ident: $promise:literal;)*) => {
        /// Every case, in the order in which they are run.
        pub const CASES: &[Case] = &[$(Case {
            name: concat!(stringify!($group), "::", stringify!($case)),
            promise: $promise,
            run: |stand| Box::pin($group::$case(stand)),
        }),*];
    };
}

cases! {
    refusals::the_fixture_is_valid: "validate accepts the target and its roles";
    lifecycle::an_account_logs_in: "create makes an account that can log in with its password and with no other";
    lifecycle::it_may_do_what_its_role_may: "an account has its role's privileges and no others";
    lifecycle::it_is_seen: "inspect and list-accounts show the account, with its expiry";
    lifecycle::it_is_renewed: "renew moves the backend's expiry and never past what was asked";
    lifecycle::it_ends: "revoke removes the account, whatever way one looks";
    lifecycle::a_second_revocation_succeeds: "revoke of what is gone, or never was, is a success";
    lifecycle::a_session_ends_with_it: "revoke ends the account's open sessions";
    lifecycle::it_expires_by_itself: "the backend refuses the account after its expiry, without the broker (BACKSTOP)";
    lifecycle::a_name_alone_is_enough: "revoke needs no more than the name: a ghost can be removed";
    hostile::one_that_comes_back_stays_out: "an account that logs in again and again while it is removed has no session left and cannot log in";
    hostile::one_that_holds_all_it_may_is_gone: "an account that holds what it may against its removal is gone, with its sessions";
    hostile::one_that_changes_its_password_is_gone: "an account that changed its own password is gone, whichever password is tried";
    verifiers::the_callers_password_logs_in: "an account made with a caller's verifier takes the caller's password and no other, and no secret comes back";
    verifiers::another_kind_is_refused: "a verifier of a kind that the backend does not store is refused, and no account is left";
    rotation::a_new_password_replaces_the_old: "after a rotation the new password works and the old one ends";
    rotation::each_step_can_be_repeated: "a step of a rotation that is done again changes nothing";
    names::the_longest_name_works: "a name of the length that the driver claims works";
    names::a_taken_name_is_a_conflict: "create of a name that exists is a conflict, and leaves that account alone";
    names::hostile_names_reach_nothing: "names made to break out of statements, filters and paths find nothing and change nothing";
    names::hostile_workloads_reach_nothing: "a workload's name cannot break out of anything";
    names::listing_is_by_prefix: "list-accounts gives names with the prefix, each once, over all pages";
    refusals::a_role_that_is_missing_is_refused: "a role that the backend lacks is refused, and no account is left";
    refusals::wrong_credentials_are_told: "credentials that the backend does not take are told, not a doubt";
    refusals::a_strange_authority_is_not_trusted: "a certificate of another authority ends the connection before anything is sent";
    refusals::missing_permission_is_told: "an account of the broker's that may not make accounts is refused, and nothing is left";
    crash::create_can_be_cut_off_anywhere: "after any lost answer of create, revoke leaves no account";
    crash::revoke_can_be_cut_off_anywhere: "after any lost answer of revoke, the next revoke finishes";
    crash::renew_can_be_cut_off_anywhere: "after any lost answer of renew, the account still works and can be renewed";
    crash::rotate_can_be_cut_off_anywhere: "after any lost answer of rotate, the step done again leads to the new password";
    outage::a_backend_that_is_away_is_told: "while the backend is away, calls are refused as unavailable, and work again without a restart";
    outage::a_silent_backend_ends_with_the_deadline: "a backend that does not answer ends in an unknown outcome, and the account can be removed later";
    load::accounts_are_made_at_once: "sixteen accounts at once are all made, work, and are all removed";
    load::creation_and_removal_do_not_disturb_each_other: "accounts are made while others are removed";
    refusals::nothing_told_a_secret: "no answer of the whole run holds a password";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_and_a_promise_of_its_own() {
        let names: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        let promises: std::collections::BTreeSet<_> = CASES.iter().map(|case| case.promise).collect();
        assert_eq!((names.len(), promises.len()), (CASES.len(), CASES.len()));
    }
}
