//! Giving leases back: one, several in one request, or all of the workload's.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::client::Client;
use crate::credential::{LeaseState, Seen};
use crate::error::Error;

/// The most leases that one request names.
const MOST_NAMED: usize = 1_000;
/// The most requests for all leases of a workload: each gives back thousands.
const MOST_REQUESTS: usize = 100;

/// What became of a lease that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct GivenBack {
    /// The lease.
    pub lease_id: String,
    /// Its state: `Revoked` when its account is gone, otherwise it is being removed. None with a `code`, and where an
    /// older broker did not tell.
    #[serde(default)]
    pub state: Option<LeaseState>,
    /// `unknown-lease` where the workload has no such lease, any more or ever.
    #[serde(default)]
    pub code: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    leases: Vec<GivenBack>,
    #[serde(default)]
    more: bool,
}

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
    pub async fn revoke_all(&self, lease_ids: &[String]) -> Result<Vec<GivenBack>, Error> {
        let mut given = Vec::with_capacity(lease_ids.len());
        for some in lease_ids.chunks(MOST_NAMED) {
            match self.give_back(&json!({ "leases": some })).await {
                Ok(answer) => given.extend(answer.leases),
                // A broker from before there was such a request.
                Err(Error::Refused(problem)) if matches!(problem.status, 404 | 405) => {
                    given.extend(self.one_by_one(some).await?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(given)
    }

    async fn one_by_one(&self, lease_ids: &[String]) -> Result<Vec<GivenBack>, Error> {
        let mut given = Vec::with_capacity(lease_ids.len());
        let mut failed = None;
        for lease_id in lease_ids {
            // One that fails does not keep the others.
            let code = match self.revoke(lease_id).await {
                Ok(()) => None,
                Err(error) if error.code() == "unknown-lease" => Some(error.code().to_owned()),
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            given.push(GivenBack { lease_id: lease_id.clone(), state: None, code });
        }
        failed.map_or(Ok(given), Err)
    }

    /// Gives back all leases of this workload, those of its other instances too: for the end of a whole service.
    ///
    /// # Errors
    /// [`Error`]; some of the leases may have been given back all the same.
    pub async fn revoke_everything(&self) -> Result<Vec<GivenBack>, Error> {
        let mut given = Vec::new();
        for _ in 0..MOST_REQUESTS {
            let answer = self.give_back(&json!({"all": true})).await?;
            given.extend(answer.leases);
            if !answer.more {
                break;
            }
        }
        Ok(given)
    }

    async fn give_back(&self, body: &serde_json::Value) -> Result<Answer, Error> {
        let (_, answer): (Seen, Answer) = self.ask(Method::POST, &["v1", "leases", "revoke"], None, Some(body)).await?;
        Ok(answer)
    }
}
