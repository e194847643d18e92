//! What the figures were measured on, and which process spent the processor's time.

use std::fs;

use serde::Serialize;

/// Ticks of /proc/PID/stat in a second: 100 on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Who spends processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Party {
    /// The broker's process.
    Broker,
    /// PostgreSQL with all its processes.
    Postgres,
    /// OpenBao's process.
    Openbao,
    /// The bench itself: it makes the load.
    Load,
}

/// Processor time until now.
pub(crate) struct CpuTime(Vec<(Party, f64)>);

impl CpuTime {
    /// Of these processes and their children, and of this process.
    pub(crate) fn of(processes: &[(Party, u32)]) -> Self {
        let children = children();
        let mut spent = vec![(Party::Load, seconds(std::process::id(), false))];
        for (party, pid) in processes {
            let own = seconds(*pid, true);
            let of_children: f64 =
                children.iter().filter(|(_, parent)| parent == pid).map(|(child, _)| seconds(*child, false)).sum();
            spent.push((*party, own + of_children));
        }
        Self(spent)
    }

    /// What was spent between the two.
    pub(crate) fn since(&self, before: &Self) -> Vec<(Party, f64)> {
        self.0.iter().zip(&before.0).map(|((party, now), (_, then))| (*party, (now - then).max(0.0))).collect()
    }
}

/// The fields of /proc/PID/stat after the name: the first is field 3 of proc(5).
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
}

fn seconds(pid: u32, with_ended_children: bool) -> f64 {
    let Some(stat) = stat(pid) else { return 0.0 };
    // utime, stime; cutime, cstime.
    let last = if with_ended_children { 14 } else { 12 };
    stat.iter().take(last + 1).skip(11).sum::<u64>() as f64 / TICKS
}

/// All processes with their parents.
fn children() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, u32::try_from(*stat(pid)?.get(1)?).ok()?))).collect()
}

/// A line of /proc/PID/status such as `VmRSS`, in MB (10⁶ bytes would flatter: these are 2²⁰).
pub(crate) fn memory_mb(pid: u32, field: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// The machine, without a name.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// How many there are for us.
    pub(crate) processors: usize,
    /// In GiB.
    pub(crate) memory_gib: f64,
    /// Linux's version.
    pub(crate) kernel: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: f64 = memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: kilobytes / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().split('.').take(2).collect::<Vec<_>>().join("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted() {
        let before = CpuTime::of(&[]);
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed().as_millis() < 60 {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let spent = CpuTime::of(&[]).since(&before);
        assert!(sum > 0 && spent[0].1 > 0.0, "{spent:?}");
    }

    #[test]
    fn this_process_has_memory() {
        assert!(memory_mb(std::process::id(), "VmRSS:").is_some_and(|mb| mb > 0.1));
    }
}
