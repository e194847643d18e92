//! What can happen: the word for it in a record, and what only a record of that kind says.

use serde::Serialize as _;

use super::payload::{
    ArchiveAsked, Archived, Attempted, Braked, ClockJump, Decided, Denied, Doubtful, Ended, Failed, FencedBroker,
    Granted, Plain, PluginRejected, PluginServed, Process, ReconcileAsked, Reloaded, Replayed, Rotated,
    RotatingAccount, RotationAsked, RotationFailed, ShadowDiff,
};

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident($payload:ty) = $word:literal,)+) => {
        /// What happened.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $variant($payload),)+
        }

        impl Event {
            /// The words of all events.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The event's word in the record.
            #[must_use]
            pub fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word,)+
                }
            }

            /// What only this kind of event says: an object whose keys are sorted, at every depth.
            pub(super) fn payload(&self) -> Result<serde_json::Value, serde_json::Error> {
                match self {
                    $(Self::$variant(payload) => payload.serialize(serde_json::value::Serializer),)+
                }
            }
        }
    };
}

events! {
    /// A secret may leave the broker.
    IssueGranted(Granted) = "issue.granted",
    /// A policy said no.
    IssueDenied(Denied) = "issue.denied",
    /// The backend refused, or its answer is unknown.
    IssueFailed(Failed) = "issue.failed",
    /// A retry with the same Idempotency-Key got the credential of its live lease again.
    IssueReplayed(Replayed) = "issue.replayed",
    /// A later expiry.
    LeaseRenewed(Decided) = "lease.renewed",
    /// A policy said no to a renewal, or the account is at another backend or server.
    RenewDenied(Denied) = "renew.denied",
    /// The account is gone, on request.
    LeaseRevoked(Ended) = "lease.revoked",
    /// The account is gone, its time was over.
    LeaseExpired(Ended) = "lease.expired",
    /// Nobody knows whether the account exists.
    LeaseDoubtful(Doubtful) = "lease.doubtful",
    /// An attempt to remove an account failed.
    RevokeFailed(Attempted) = "revoke.failed",
    /// An account could not be removed: what answers is not the server that has it.
    WrongPlace(Attempted) = "removal.wrong_place",
    /// Accounts without a lease were not removed: an operator has to decide.
    RemovalBraked(Braked) = "removal.braked",
    /// An operator decided that they go.
    RemovalConfirmed(Braked) = "removal.confirmed",
    /// The clock jumped, or an operator took a jump for right.
    ClockJumped(ClockJump) = "clock.jumped",
    /// An account without a lease was removed.
    GhostRemoved(Ended) = "reconcile.ghost_removed",
    /// A lease without an account, or an account that differs from its lease.
    Drift(Plain) = "reconcile.drift",
    /// A rotating account has a new password.
    AccountRotated(Rotated) = "account.rotated",
    /// Somebody else changed a rotating account's password; it is taken back.
    AccountTampered(RotatingAccount) = "account.tampered",
    /// A rotating account's old password works no longer.
    OverlapEnded(RotatingAccount) = "rotation.overlap_ended",
    /// A step of a rotation failed; it is tried again.
    RotationFailed(RotationFailed) = "rotation.failed",
    /// A policy in shadow mode would have decided otherwise.
    ShadowDiff(ShadowDiff) = "policy.shadow_diff",
    /// A plugin is serving.
    PluginLoaded(PluginServed) = "plugin.loaded",
    /// A plugin was refused; the last good one serves on.
    PluginRejected(PluginRejected) = "plugin.rejected",
    /// A plugin serves no longer.
    PluginUnloaded(PluginServed) = "plugin.unloaded",
    /// A new configuration holds.
    ConfigReloaded(Reloaded) = "config.reloaded",
    /// An operator revoked a lease.
    AdminRevoke(Plain) = "admin.revoke",
    /// An operator asked for a reconciliation.
    AdminReconcile(ReconcileAsked) = "admin.reconcile",
    /// An operator asked for a rotation before its time.
    AdminRotate(RotationAsked) = "admin.rotate",
    /// An operator asked to archive the oldest records.
    AdminArchive(ArchiveAsked) = "admin.archive",
    /// The oldest records left the store for a file.
    LogArchived(Archived) = "audit.archived",
    /// The broker serves.
    BrokerStarted(Process) = "broker.started",
    /// The broker stopped in order.
    BrokerStopped(Process) = "broker.stopped",
    /// Another broker of the store was silent; it writes nothing more, and its work is taken over.
    BrokerFenced(FencedBroker) = "broker.fenced",
}
