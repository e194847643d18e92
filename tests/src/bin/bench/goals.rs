//! The figures that were asked for, and what was reached.

use crate::decisions::{Evaluation, FLOOR, RULES};
use crate::load::Measured;
use crate::report::{Report, System, grouped};

/// A replay of fewer decisions is mostly its start.
const ENOUGH: u64 = 10_000;

/// One figure that was asked for.
pub(crate) struct Goal {
    /// What is measured.
    pub(crate) what: &'static str,
    /// What it should be.
    pub(crate) wanted: &'static str,
    /// What came out, and whether that is met; none when it was not measured.
    pub(crate) got: Option<(String, bool)>,
    /// What the database alone reaches, without any broker in front of it.
    pub(crate) limit: Option<String>,
}

fn seconds(ms: f64, most: f64) -> (String, bool) {
    (format!("{:.2} s", ms / 1e3), ms / 1e3 <= most)
}

impl Report {
    /// All of them.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let goal = |what, wanted, got| Goal { what, wanted, got, limit: None };
        vec![
            self.to_database(),
            self.speed_to_openbao(),
            self.p99_to_openbao(),
            goal(
                "issues/s at 64 clients, driver that does nothing",
                "≥ 5,000",
                self.cell(System::Noop, 64).map(|cell| {
                    let speed = cell.per_second();
                    (format!("{speed:.0}"), speed >= 5_000.0)
                }),
            ),
            goal(
                "p50 at one client, driver that does nothing",
                "≤ 1 ms",
                self.cell(System::Noop, 1).map(|cell| {
                    let ms = cell.percentile(0.5);
                    (format!("{ms:.2} ms"), ms <= 1.0)
                }),
            ),
            self.to_floor("decision on a fresh copy, to the floor: allow-list of 20 rules", RULES, "≤ 1.5 ×", 1.5),
            self.to_floor("the same: Cedar", "policy-cedar", "≤ 10 ×", 10.0),
            self.to_floor("the same: JavaScript", "policy-javascript", "≤ 20 ×", 20.0),
            self.to_floor("the same: Python", "policy-python", "≤ 100 ×", 100.0),
            goal(
                "first load of a Python policy",
                "≤ 10 s",
                self.policy("policy-python").map(|of| seconds(of.first_load_ms, 10.0)),
            ),
            goal(
                "the same with another configuration, to its first answer",
                "≤ 0.5 s",
                self.policy("policy-python").map(|of| seconds(of.other_config_ms, 0.5)),
            ),
            goal(
                "p50 of a remembered decision, the slowest of all policies",
                "≤ 3 µs",
                self.evaluations
                    .iter()
                    .filter_map(|of| of.remembered_us)
                    .max_by(f64::total_cmp)
                    .map(|us| (format!("{us:.1} µs"), us <= 3.0)),
            ),
            goal(
                "recorded decisions replayed in a minute",
                "≥ 100,000",
                self.replayed.as_ref().filter(|of| of.decisions >= ENOUGH).map(|of| {
                    let in_a_minute = of.per_second() * 60.0;
                    (grouped(in_a_minute), in_a_minute >= 100_000.0)
                }),
            ),
            goal(
                "resident memory, ten plugins and 2,000 leases",
                "≤ 60 MB",
                Some((format!("{:.0} MB", self.memory.resident), self.memory.resident <= 60.0)),
            ),
            goal(
                "start to ready, warm compile cache (median)",
                "≤ 300 ms",
                Some((format!("{:.0} ms", self.start_ms()), self.start_ms() <= 300.0)),
            ),
            goal(
                "jit-agent: resident memory, one credential",
                "≤ 10 MB",
                self.agent.as_ref().map(|agent| (format!("{:.1} MB", agent.resident_mb), agent.resident_mb <= 10.0)),
            ),
            goal(
                "jit-agent: start to file written and process ended (median)",
                "≤ 50 ms",
                self.agent.as_ref().map(|agent| {
                    let ms = agent.fetch_median();
                    (format!("{ms:.1} ms"), ms <= 50.0)
                }),
            ),
            goal(
                "jit-agent: processor time between renewals",
                "none measurable",
                self.agent.as_ref().map(|agent| {
                    let got = format!("{:.0} ms in {:.0} s", agent.idle_cpu_ms, agent.idle_seconds);
                    (got, agent.idle_cpu_ms < 10.0)
                }),
            ),
        ]
    }

    fn policy(&self, name: &str) -> Option<&Evaluation> {
        self.evaluations.iter().find(|of| of.policy == name)
    }

    fn to_floor(&self, what: &'static str, policy: &str, wanted: &'static str, most: f64) -> Goal {
        let ratio = self.policy(FLOOR).zip(self.policy(policy)).map(|(floor, of)| of.p50_us / floor.p50_us);
        Goal { what, wanted, got: ratio.map(|ratio| (format!("{ratio:.1} ×"), ratio <= most)), limit: None }
    }

    fn to_database(&self) -> Goal {
        let ratio = self.ratio(System::Broker, System::Ceiling, 16, Measured::per_second);
        Goal {
            what: "issues/s at 16 clients, to the database alone",
            wanted: "≥ 90 %",
            got: ratio.map(|ratio| (format!("{:.0} %", ratio * 100.0), ratio >= 0.9)),
            limit: Some("100 %".to_owned()),
        }
    }

    fn speed_to_openbao(&self) -> Goal {
        let of = |system| self.ratio(system, System::OpenBao, 16, Measured::per_second);
        Goal {
            what: "issues/s at 16 clients, to OpenBao",
            wanted: "≥ 2 ×",
            got: of(System::Broker).map(|ratio| (format!("{ratio:.2} ×"), ratio >= 2.0)),
            limit: of(System::Ceiling).map(|ratio| format!("{ratio:.2} ×")),
        }
    }

    fn p99_to_openbao(&self) -> Goal {
        let of = |system| self.ratio(system, System::OpenBao, 64, |measured| measured.percentile(0.99));
        Goal {
            what: "p99 at 64 clients, to OpenBao's",
            wanted: "≤ ⅓",
            got: of(System::Broker).map(|ratio| (format!("{ratio:.2}"), ratio <= 1.0 / 3.0)),
            limit: of(System::Ceiling).map(|ratio| format!("{ratio:.2}")),
        }
    }
}
