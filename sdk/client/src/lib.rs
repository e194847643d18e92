//! The client library of jit-broker: an application gets a credential, and it stays good.
//!
//! ```no_run
//! use jit_client::{Client, CredentialWatch, Request, TokenSource};
//!
//! # async fn run() -> Result<(), jit_client::Error> {
//! let client = Client::builder("https://jit-broker.jit-system.svc:8700")
//!     .token(TokenSource::file("/var/run/secrets/tokens/jit-broker"))
//!     .build()?;
//! let watch = CredentialWatch::builder(client, Request::new("inventory_db")).start().await?;
//! let credential = watch.credential();
//! println!("{} until {}", credential.username, watch.lease().term.expires_at);
//! // … connect with `credential`; follow `watch.subscribe()` for the next one.
//! watch.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! In scope: asking the broker ([`Client`]), getting the workload's token ([`TokenSource`]), keeping a
//! credential good ([`CredentialWatch`]: renewal at 80 % of its term, retries, a new account where
//! the old one cannot be prolonged, alerts), and, with the feature `sqlx`, pools that follow it.
//! Not in scope: files and processes, which are `jit-agent`'s.
//!
//! # What happens when
//!
//! - **Start**: [`Client::fetch`] tries for at most two minutes and then fails; an answer that no retry
//!   betters (denied, unknown target, a bad request) fails at once. Nothing stands in for a credential.
//! - **80 % of the term**, up to a tenth of it earlier so that clients do not move in step: the lease
//!   is renewed, which keeps the account, or a new account is made ([`Rotation`]).
//! - **The broker does not answer**: five attempts 2, 4, 8 and 16 seconds apart at most (full jitter), an alert
//!   `jit-broker-unreachable`, half a minute at most, five attempts more, and so on until it answers, also
//!   beyond the expiry. `Retry-After` is honoured. One Idempotency-Key goes with all attempts at one new
//!   account, so that a lost answer does not make two.
//! - **The clock jumps**: times are counted from the broker's answer by a clock that cannot be set.
//! - **The password**: the client makes it where the target takes a verifier, so that the broker never holds it
//!   ([`CredentialChoice`]). Elsewhere the broker makes it, and the log says so.
//! - **The end**: [`CredentialWatch::close`] gives its leases back in one request; dropped, it does so in the background
//!   as far as the runtime lets it.

mod backoff;
pub mod children;
mod client;
mod clock;
mod credential;
mod error;
mod give_back;
mod own;
pub mod token;
mod watch;

#[cfg(feature = "sqlx")]
pub mod pool;

pub use backoff::Schedule;
pub use client::{Client, ClientBuilder, FetchOptions, IdempotencyKey};
pub use clock::{Clock, Sleep, SystemClock};
pub use credential::{Credential, Lease};
pub use error::Error;
pub use jit_api::{
    Code, Connection, GivenBackLease as GivenBack, IssueRequest as Request, LeaseState, LeaseView, Length, Problem,
    ProblemCode, Term,
};
pub use own::CredentialChoice;
pub use token::{TokenError, TokenSource};
pub use watch::{Alert, AlertKind, CredentialWatch, LeaseWatch, Retire, Rotation, Snapshot, State, WatchBuilder};
