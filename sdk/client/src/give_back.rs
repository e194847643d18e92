//! Giving leases back: one, several in one request, or all of the workload's.

use jit_api::{GiveBackRequest, GivenBackLease, GivenBackReply, MAX_NAMED, ProblemCode};
use reqwest::Method;
use serde_json::json;

use crate::client::Client;
use crate::credential::Seen;
use crate::error::Error;

/// The most requests for all leases of a workload: each gives back thousands.
const MOST_REQUESTS: usize = 100;

impl Client {
    /// Gives a lease back. That may be repeated; the account may still be on its way out after it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(&self, lease_id: &str) -> Result<(), Error> {
        let path = ["v1", "leases", lease_id, "revoke"];
        let _: (Seen, serde_json::Value) = self.ask(Method::POST, &path, None, Some(&json!({}))).await?;
        Ok(())
    }

    /// Gives several leases back, in one request for each thousand. That may be repeated; a lease that is gone
    /// already is no error.
    ///
    /// # Errors
    /// [`Error`]; some of the leases may have been given back all the same.
    pub async fn revoke_all(&self, lease_ids: &[String]) -> Result<Vec<GivenBackLease>, Error> {
        let mut given = Vec::with_capacity(lease_ids.len());
        for some in lease_ids.chunks(MAX_NAMED) {
            match self.give_back(&GiveBackRequest { leases: Some(some.to_vec()), all: None }).await {
                Ok(reply) => given.extend(reply.leases),
                // A broker from before there was such a request.
                Err(Error::Refused(problem)) if matches!(problem.status, 404 | 405) => {
                    given.extend(self.one_by_one(some).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(given)
    }

    async fn one_by_one(&self, lease_ids: &[String]) -> Result<Vec<GivenBackLease>, Error> {
        let mut given = Vec::with_capacity(lease_ids.len());
        let mut failed = None;
        for lease_id in lease_ids {
            // One that fails does not keep the others.
            let code = match self.revoke(lease_id).await {
                Ok(()) => None,
                Err(error) if error.is(ProblemCode::UnknownLease) => Some(ProblemCode::UnknownLease.into()),
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            given.push(GivenBackLease { lease_id: lease_id.clone(), state: None, code });
        }
        failed.map_or(Ok(given), Err)
    }

    /// Gives back all leases of this workload, those of its other instances too: for the end of a whole service.
    ///
    /// # Errors
    /// [`Error`]; some of the leases may have been given back all the same.
    pub async fn revoke_everything(&self) -> Result<Vec<GivenBackLease>, Error> {
        let mut given = Vec::new();
        for _ in 0..MOST_REQUESTS {
            let reply = self.give_back(&GiveBackRequest { leases: None, all: Some(true) }).await?;
            given.extend(reply.leases);
            if !reply.more {
                break;
            }
        }
        Ok(given)
    }

    async fn give_back(&self, body: &GiveBackRequest) -> Result<GivenBackReply, Error> {
        let path = ["v1", "leases", "revoke"];
        let (_, reply): (Seen, GivenBackReply) = self.ask(Method::POST, &path, None, Some(body)).await?;
        Ok(reply)
    }
}
