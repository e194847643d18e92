//! The figures that were asked for, and what was reached.

use crate::decisions::{Evaluation, FLOOR, RULES};
use crate::load::Measured;
use crate::machine::Party;
use crate::report::{Report, grouped};
use crate::systems::System;

/// A replay of fewer decisions is mostly its start.
const ENOUGH: u64 = 10_000;

/// One figure that was asked for.
pub(crate) struct Goal {
    /// What is measured.
    pub(crate) what: &'static str,
    /// What it should be.
    pub(crate) wanted: String,
    /// What came out, and whether that is met; none when it was not measured.
    pub(crate) got: Option<(String, bool)>,
    /// What cannot be passed: what the database alone reaches, and where the broker makes the password, the database with
    /// the one hash that this takes.
    pub(crate) limit: Option<String>,
}

fn seconds(ms: f64, most: f64) -> (String, bool) {
    (format!("{:.2} s", ms / 1e3), ms / 1e3 <= most)
}

impl Report {
    /// All of them.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let goal = |what, wanted: &str, got| Goal { what, wanted: wanted.to_owned(), got, limit: None };
        vec![
            self.to_database(
                "issues/s at 16 clients, to the database alone: password by the broker",
                System::Broker,
                16,
                95,
            ),
            self.to_database("the same: verifier by the caller", System::Verifier, 16, 98),
            self.to_database(
                "issues/s at one client, to the database alone: password by the broker",
                System::Broker,
                1,
                80,
            ),
            self.to_database("the same: verifier by the caller", System::Verifier, 1, 88),
            self.to_openbao(
                "issues/s at 16 clients, to OpenBao: 4096 iterations",
                System::Broker,
                System::Ceiling,
                2.4,
            ),
            self.to_openbao("the same: 1 iteration", System::BrokerLight, System::CeilingLight, 10.0),
            self.p99("p99 at 64 clients, to OpenBao's", System::OpenBao, 0.4),
            self.p99("the same, to that of the database alone", System::Ceiling, 1.1),
            self.processor(
                "processor time of an issue at 16 clients, to OpenBao's: password by the broker",
                System::Broker,
                0.2,
            ),
            self.processor("the same: verifier by the caller", System::Verifier, 0.1),
            self.to_before(
                "driver that does nothing, issues/s at 64 clients, to the earlier broker",
                "≥ 2 ×",
                |this| {
                    let ratio = this.ratio(System::Noop, System::Before, 64, Measured::per_second)?;
                    Some((ratio, ratio >= 2.0))
                },
            ),
            self.to_before("the same: p50 at one client", "≤ 0.5 ×", |this| {
                let ratio = this.ratio(System::Noop, System::Before, 1, |measured| measured.percentile(0.5))?;
                Some((ratio, ratio <= 0.5))
            }),
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
                "`policy replay` of a million recorded decisions, by the rate of those that are there",
                "≤ 20 s",
                self.replayed.as_ref().filter(|of| of.decisions >= ENOUGH).map(|of| {
                    let of_a_million = 1e6 / of.per_second();
                    (format!("{of_a_million:.0} s (of {})", grouped(of.decisions as f64)), of_a_million <= 20.0)
                }),
            ),
            goal(
                "resident memory, ten plugins and 2,000 leases",
                "≤ 50 MB",
                Some((format!("{:.0} MB", self.memory.resident), self.memory.resident <= 50.0)),
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
        let got = ratio.map(|ratio| (format!("{ratio:.1} ×"), ratio <= most));
        Goal { what, wanted: wanted.to_owned(), got, limit: None }
    }

    fn to_database(&self, what: &'static str, system: System, clients: usize, percent: u8) -> Goal {
        let ratio = self.ratio(system, System::Ceiling, clients, Measured::per_second);
        Goal {
            what,
            wanted: format!("≥ {percent} %"),
            got: ratio.map(|ratio| (format!("{:.0} %", ratio * 100.0), ratio * 100.0 >= f64::from(percent))),
            limit: self.ceiling(system, clients).map(|share| format!("{:.0} %", share * 100.0)),
        }
    }

    /// Which share of the database's speed cannot be passed. With many clients the processors are the limit, and who
    /// makes the password hashes once more; with one client that hash can be made before the request.
    fn ceiling(&self, system: System, clients: usize) -> Option<f64> {
        if system != System::Broker || clients == 1 {
            return Some(1.0);
        }
        let alone: f64 = self.cell(System::Ceiling, clients)?.cpu_ms_each().iter().map(|(_, ms)| ms).sum();
        Some(alone / (alone + self.hash_ms))
    }

    fn to_openbao(&self, what: &'static str, system: System, ceiling: System, least: f64) -> Goal {
        let of = |system| self.ratio(system, System::OpenBao, 16, Measured::per_second);
        let limit = of(ceiling).zip(self.ceiling(system, 16)).map(|(ratio, share)| ratio * share);
        let met = |ratio: f64| ratio >= least || limit.is_some_and(|limit| ratio >= 0.95 * limit);
        Goal {
            what,
            wanted: format!("≥ {least} × or 95 % of the ceiling"),
            got: of(system).map(|ratio| (format!("{ratio:.2} ×"), met(ratio))),
            limit: limit.map(|ratio| format!("{ratio:.2} ×")),
        }
    }

    fn p99(&self, what: &'static str, to: System, most: f64) -> Goal {
        let of = |system| self.ratio(system, to, 64, |measured| measured.percentile(0.99));
        Goal {
            what,
            wanted: format!("≤ {most}"),
            got: of(System::Broker).map(|ratio| (format!("{ratio:.2}"), ratio <= most)),
            limit: of(System::Ceiling).map(|ratio| format!("{ratio:.2}")),
        }
    }

    fn processor(&self, what: &'static str, system: System, most: f64) -> Goal {
        let of = |system, party| -> Option<f64> {
            let each = self.cell(system, 16)?.cpu_ms_each();
            each.into_iter().find(|(of, _)| *of == party).map(|(_, ms)| ms)
        };
        let openbao = of(System::OpenBao, Party::Openbao);
        let ratio = of(system, Party::Broker).zip(openbao).map(|(ms, openbao)| ms / openbao);
        let hash = openbao.filter(|_| system == System::Broker).map(|openbao| self.hash_ms / openbao);
        Goal {
            what,
            wanted: format!("≤ {most}"),
            got: ratio.map(|ratio| (format!("{ratio:.2}"), ratio <= most)),
            limit: hash.map(|ratio| format!("{ratio:.2}: the hash alone")),
        }
    }

    fn to_before(
        &self,
        what: &'static str,
        wanted: &'static str,
        ratio: impl Fn(&Self) -> Option<(f64, bool)>,
    ) -> Goal {
        let got = ratio(self).map(|(ratio, met)| (format!("{ratio:.2} ×"), met));
        Goal { what, wanted: wanted.to_owned(), got, limit: None }
    }
}
