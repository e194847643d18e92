//! The load of a storm: client tasks that ask all brokers, each by its own random numbers from the storm's seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::client::{Asker, FEW, Held, Issued};
use crate::wire::Wire;

/// Client tasks with a workload of their own, and more of them for each broker.
const CLIENTS: (u64, u64) = (6, 2);
/// Client tasks that share the workload with the quota.
const WITH_QUOTA: u64 = 3;
/// Seconds that most leases last: many end while the storm lasts.
const SHORT: std::ops::Range<u64> = 4..20;
/// Leases that are asked for with a key, and given back.
const KEYED: Duration = Duration::from_secs(30);
/// Leases that are to be there at the end.
const KEPT: Duration = Duration::from_secs(7_200);
/// How many of those one client has.
const MOST_KEPT: usize = 3;
/// For how long another broker refuses a key: five seconds, and what the clocks are read at.
const ANSWERING: Duration = Duration::from_millis(5_500);
/// Milliseconds between two things that a client does.
const PAUSE: std::ops::Range<u64> = 100..700;

/// The clients of a storm.
pub struct Load {
    ended: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins to ask the brokers at these URLs.
    #[must_use]
    pub fn begin(asker: &Arc<Asker>, urls: &[String], seed: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let brokers = urls.len() as u64;
        let clients = CLIENTS.0 + CLIENTS.1 * brokers;
        let tasks = (0..clients + WITH_QUOTA)
            .map(|number| {
                let client = Client {
                    number,
                    workload: if number < clients { format!("payment-{number}") } else { FEW.to_owned() },
                    asker: Arc::clone(asker),
                    urls: urls.to_vec(),
                    // Apart from the numbers that the faults are drawn with.
                    random: StdRng::seed_from_u64(seed ^ (number + 1).rotate_left(32)),
                    kept: 0,
                    keys: 0,
                };
                tokio::spawn(client.ask_on(Arc::clone(&ended)))
            })
            .collect();
        Self { ended, tasks }
    }

    /// Lets each client end what it is at.
    ///
    /// # Errors
    /// When a client failed for another reason than its answers.
    pub async fn end(self) -> Result<()> {
        self.ended.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

struct Client {
    number: u64,
    workload: String,
    asker: Arc<Asker>,
    urls: Vec<String>,
    random: StdRng,
    kept: usize,
    keys: u64,
}

impl Client {
    async fn ask_on(mut self, ended: Arc<AtomicBool>) -> Result<()> {
        while !ended.load(Ordering::SeqCst) {
            if self.workload == FEW {
                self.within_a_quota().await?;
            } else {
                match self.random.random_range(0..10_u32) {
                    0..=2 => self.let_it_expire().await?,
                    3 | 4 => self.renew_elsewhere().await?,
                    5 | 6 => self.revoke_elsewhere().await?,
                    7 => self.same_key_everywhere().await?,
                    8 => self.hang_up().await?,
                    _ => self.keep().await?,
                }
            }
            self.pause(PAUSE).await;
        }
        Ok(())
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random.random_range(milliseconds))).await;
    }

    fn any(&mut self) -> String {
        self.urls[self.random.random_range(0..self.urls.len())].clone()
    }

    /// A broker that is another one, where there is one.
    fn other_than(&mut self, url: &str) -> String {
        let others: Vec<&String> = self.urls.iter().filter(|other| *other != url).collect();
        if others.is_empty() { url.to_owned() } else { others[self.random.random_range(0..others.len())].clone() }
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("key-{}-{}", self.number, self.keys)
    }

    fn short(&mut self) -> Duration {
        Duration::from_secs(self.random.random_range(SHORT))
    }

    /// A lease, and the broker that granted it.
    async fn issue(&mut self, ttl: Duration) -> Result<Option<(Held, String)>> {
        let url = self.any();
        let Some(held) = self.asker.issue(&url, &self.workload, ttl, None).await?.held() else { return Ok(None) };
        self.asker.must_log_in(&held, "after its issue").await;
        Ok(Some((held, url)))
    }

    async fn within_a_quota(&mut self) -> Result<()> {
        let ttl = self.short();
        let Some((held, _)) = self.issue(ttl).await? else { return Ok(()) };
        if self.random.random_range(0..3_u32) == 0 {
            let url = self.any();
            self.asker.revoke(&url, &held).await?;
        }
        Ok(())
    }

    async fn let_it_expire(&mut self) -> Result<()> {
        let ttl = self.short();
        let Some((held, _)) = self.issue(ttl).await? else { return Ok(()) };
        self.pause(0..4_000).await;
        self.asker.must_log_in(&held, "before its end").await;
        Ok(())
    }

    /// What one broker issued, another one renews: nobody removes the account at its first end.
    async fn renew_elsewhere(&mut self) -> Result<()> {
        let ttl = Duration::from_secs(self.random.random_range(4..8));
        let Some((mut held, url)) = self.issue(ttl).await? else { return Ok(()) };
        let other = self.other_than(&url);
        if self.asker.renew(&other, &mut held, ttl + Duration::from_secs(15)).await? {
            self.asker.must_log_in(&held, "after its renewal").await;
            sleep(ttl + Duration::from_secs(1)).await;
            self.asker.must_log_in(&held, "after its first end").await;
        }
        Ok(())
    }

    async fn revoke_elsewhere(&mut self) -> Result<()> {
        let Some((held, url)) = self.issue(KEYED).await? else { return Ok(()) };
        self.pause(0..2_000).await;
        let other = self.other_than(&url);
        self.asker.revoke(&other, &held).await
    }

    /// All brokers are asked with one key at once. Then one after the other: each secret that comes works.
    async fn same_key_everywhere(&mut self) -> Result<()> {
        let key = self.key();
        let asks = self.urls.iter().map(|url| self.asker.issue(url, &self.workload, KEYED, Some(&key)));
        let answers = futures_util::future::try_join_all(asks).await?;
        // What is unclear may still be under way, and change the password when nobody looks.
        let clear = !answers.iter().any(|answer| matches!(answer, Issued::Unclear));
        let mut held = answers.into_iter().find_map(Issued::held);
        if clear && held.is_some() {
            // Until then another broker refuses: the first answer may still be on its way.
            sleep(ANSWERING).await;
            for url in &self.urls {
                let again = self.asker.issue(url, &self.workload, KEYED, Some(&key)).await?;
                let Some(again) = again.held() else { break };
                self.asker.must_log_in(&again, &format!("after a retry with its key at {url}")).await;
                held = Some(again);
            }
        }
        if let Some(held) = held {
            let url = self.any();
            self.asker.revoke(&url, &held).await?;
        }
        Ok(())
    }

    /// Sends a request and goes away in the middle. With a key, comes back for the answer at another broker.
    async fn hang_up(&mut self) -> Result<()> {
        let (url, comes_back) = (self.any(), self.random.random_range(0..2_u32) == 0);
        let (key, ttl) = (self.key(), if comes_back { KEPT } else { self.short() });
        let body = Asker::body(ttl, comes_back.then_some(key.as_str())).to_string();
        let token = self.asker.token(&self.workload)?;
        let header = if comes_back { format!("idempotency-key: {key}\r\n") } else { String::new() };
        let request = format!(
            "POST /issue HTTP/1.1\r\nhost: broker\r\nauthorization: Bearer {token}\r\n{header}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let Ok(mut wire) = Wire::connect(&url).await else { return Ok(()) };
        let sent = wire.send(request.as_bytes()).await.is_ok();
        self.pause(0..200).await;
        drop(wire);
        if !sent {
            return Ok(());
        }
        self.asker.diary.hung_up();
        if comes_back {
            let other = self.other_than(&url);
            if let Some(held) = self.asker.issue(&other, &self.workload, ttl, Some(&key)).await?.held() {
                self.asker.known().kept.push(held);
            }
        }
        Ok(())
    }

    /// A lease for the whole storm.
    async fn keep(&mut self) -> Result<()> {
        if self.kept == MOST_KEPT {
            return self.let_it_expire().await;
        }
        if let Some((held, _)) = self.issue(KEPT).await? {
            self.kept += 1;
            self.asker.known().kept.push(held);
        }
        Ok(())
    }
}
