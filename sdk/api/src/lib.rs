//! The wire types of jit-broker: what stands in a request and in a reply.
//!
//! In scope: the bodies of the HTTP API and of administration, with serde in both directions, so that the
//! server, the client library, the agent and the command line read and write the same types; and, with the
//! feature `openapi`, their schemas.
//! Out of scope: checking a request (the broker does), asking (`jit-client` does), and how a lease works
//! (`jit-core`). A field is added here, never renamed: programs are written against these names.
//!
//! A secret is a [`secrecy::SecretString`] on both sides. A reply's is written out by one private function,
//! `issue::disclosed`, which only the two secret fields of [`IssueReply`] use; a request's verifier by
//! [`VerifierText`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`issue`] | `POST /issue`: [`IssueRequest`], [`IssueReply`], [`Credential`], [`Connection`], [`Term`] |
//! | [`credential`] | [`CredentialRequest`]: the type of credential that is asked for; [`TargetView`]: what is offered |
//! | [`lease`] | [`LeaseView`], [`LeaseState`], renewing and giving back |
//! | [`length`] | [`Length`]: a duration in a request, before the broker has checked it |
//! | [`problem`] | [`Problem`] and its [`ProblemCode`]s |
//! | [`admin`] | the admin socket |
//! | [`status`] | the admin socket: what a running broker says of itself |
//! | [`certificate`] | what is wrong with a server's certificate, in words for the person who mends it |
//! | [`url`] | percent-encoding of one part of a URL |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

pub mod admin;
pub mod certificate;
pub mod credential;
pub mod issue;
pub mod lease;
pub mod length;
pub mod problem;
pub mod status;
pub mod url;

pub use credential::{
    CredentialRequest, CredentialType, MadeByCaller, OfferedCredential, TargetPage, TargetView, VerifierText,
};
pub use issue::{Connection, Credential, IssueReply, IssueRequest, Password, Term};
pub use lease::{
    GiveBackRequest, GivenBackLease, GivenBackReply, LeasePage, LeaseState, LeaseView, MAX_NAMED, RenewRequest,
};
pub use length::Length;
pub use problem::{Code, Problem, ProblemCode};
