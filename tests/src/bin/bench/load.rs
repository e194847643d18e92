//! Closed-loop load: so many clients, each of which asks again as soon as it has its answer.
//!
//! Everything runs on one thread, and HTTP is spoken by as little code as it takes: on a machine of
//! two processors the load takes from what it measures.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::machine::{CpuTime, Party};

/// How long clients run before anything is measured.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// What one cell measured, in one or more rounds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    /// Microseconds of each answer.
    latencies: Vec<u32>,
    seconds: f64,
    cpu: Vec<(Party, f64)>,
    /// Answers in a second, of each round.
    rounds: Vec<f64>,
}

impl Measured {
    /// Another round of the same cell.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.seconds += other.seconds;
        self.rounds.extend(other.rounds);
        for (party, seconds) in other.cpu {
            match self.cpu.iter_mut().find(|(known, _)| *known == party) {
                Some((_, sum)) => *sum += seconds,
                None => self.cpu.push((party, seconds)),
            }
        }
    }

    /// How many answers.
    pub(crate) fn count(&self) -> usize {
        self.latencies.len()
    }

    /// Answers in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.count() as f64 / self.seconds
    }

    /// Answers in a second, of each round.
    pub(crate) fn rounds(&self) -> &[f64] {
        &self.rounds
    }

    /// How far its rounds differ: the largest and the smallest, to the median. None for one round.
    pub(crate) fn spread(&self) -> Option<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (&[first, .., last], median) = (sorted.as_slice(), sorted.get(sorted.len() / 2)?) else { return None };
        Some((last - first) / median)
    }

    /// The latency in milliseconds that this share of answers stayed below.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        quantile(&sorted, share) / 1e3
    }

    /// Milliseconds of processor time for each answer, by who spent it.
    pub(crate) fn cpu_ms_each(&self) -> Vec<(Party, f64)> {
        self.cpu.iter().map(|(party, seconds)| (*party, seconds * 1e3 / self.count().max(1) as f64)).collect()
    }
}

/// A quantile of sorted values; the nearest rank.
pub(crate) fn quantile(sorted: &[u32], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().map_or(f64::NAN, f64::from)
}

/// Something that asks and waits for the answer.
pub(crate) trait Asks {
    /// Asks once.
    async fn ask(&mut self) -> Result<()>;
}

/// How long one round of a cell is: whichever comes first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// So long.
    pub(crate) length: Duration,
    /// So many answers.
    pub(crate) answers: usize,
}

/// Lets the clients ask, after a warm-up, and measures.
pub(crate) async fn run<A: Asks + 'static>(
    clients: Vec<A>,
    bound: Bound,
    processes: &[(Party, u32)],
) -> Result<Measured> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + bound.length;
    let left = Rc::new(Cell::new(bound.answers));
    let local = tokio::task::LocalSet::new();
    let mut tasks = Vec::new();
    for mut client in clients {
        let left = Rc::clone(&left);
        tasks.push(local.spawn_local(async move {
            let mut latencies = Vec::new();
            let mut last = begin;
            while Instant::now() < end && left.get() > 0 {
                let asked = Instant::now();
                client.ask().await?;
                if asked >= begin {
                    latencies.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                    last = Instant::now();
                    left.set(left.get().saturating_sub(1));
                }
            }
            Ok::<_, anyhow::Error>((latencies, last, client))
        }));
    }
    let watched = processes.to_vec();
    let before = local.spawn_local(async move {
        tokio::time::sleep_until(begin.into()).await;
        CpuTime::of(&watched)
    });
    local
        .run_until(async move {
            let mut measured = Measured::default();
            let mut last = begin;
            // The clients are kept until all are done: an end closes connections, which costs.
            let mut kept = Vec::new();
            for task in tasks {
                let (latencies, client_last, client) = task.await??;
                measured.latencies.extend(latencies);
                last = last.max(client_last);
                kept.push(client);
            }
            measured.cpu = CpuTime::of(processes).since(&before.await?);
            measured.seconds = last.duration_since(begin).as_secs_f64();
            measured.rounds = vec![measured.per_second()];
            ensure!(measured.count() > 0, "not one answer in {:?}", bound.length);
            Ok(measured)
        })
        .await
}

/// What a client sends.
pub(crate) enum Requests {
    /// The same each time.
    Same(Vec<u8>),
    /// Another one each time.
    Each(Box<dyn FnMut() -> Result<Vec<u8>>>),
}

/// A connection that is kept, with one request after the other.
pub(crate) struct HttpClient {
    stream: TcpStream,
    requests: Requests,
    answer: Vec<u8>,
    status: u16,
}

impl HttpClient {
    /// Connects. Every answer must have that status.
    pub(crate) async fn connect(address: SocketAddr, requests: Requests, status: u16) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, requests, answer: Vec::with_capacity(8 << 10), status })
    }

    async fn exchange(&mut self) -> Result<()> {
        match &mut self.requests {
            Requests::Same(request) => self.stream.write_all(request).await?,
            Requests::Each(next) => self.stream.write_all(&next()?).await?,
        }
        self.answer.clear();
        let (head, length) = loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server closed the connection");
            if let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.answer[..end]).context("no HTTP")?;
                break (end + 4, content_length(head)?);
            }
            ensure!(self.answer.len() < MAX_ANSWER, "an endless head");
        };
        ensure!(length < MAX_ANSWER, "an answer of {length} bytes");
        while self.answer.len() < head + length {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server closed the connection");
        }
        let status = std::str::from_utf8(self.answer.get(9..12).unwrap_or_default()).unwrap_or_default();
        if status.parse() != Ok(self.status) {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

impl Asks for HttpClient {
    async fn ask(&mut self) -> Result<()> {
        tokio::time::timeout(ANSWER_DEADLINE, self.exchange()).await.context("no answer in time")?
    }
}

fn content_length(head: &str) -> Result<usize> {
    let header = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = header.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = lengths.next().with_context(|| format!("an answer without a length:\n{head}"))?;
    Ok(length.trim().parse()?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&sorted, 0.5), 50.0);
        assert_eq!(quantile(&sorted, 0.99), 99.0);
        assert_eq!(quantile(&[7], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn rounds_add_up() {
        let round = |us| Measured {
            latencies: vec![us; 2],
            seconds: 1.0,
            cpu: vec![(Party::Broker, 0.5)],
            rounds: vec![2_000.0 / f64::from(us)],
        };
        let mut measured = round(1_000);
        measured.add(round(3_000));
        assert_eq!(measured.per_second(), 2.0);
        assert_eq!(measured.percentile(0.99), 3.0);
        assert_eq!(measured.cpu_ms_each(), [(Party::Broker, 250.0)]);
        assert_eq!(round(1_000).spread(), None);
        assert_eq!(measured.spread(), Some((2.0 - 2.0 / 3.0) / 2.0));
    }

    #[test]
    fn lengths_are_found_whatever_their_case() {
        assert_eq!(content_length("HTTP/1.1 200 OK\r\nContent-Length: 12\r\na: b").unwrap(), 12);
        assert!(content_length("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_err());
    }
}
