//! The policy my-rule: a workload gets only what is of its own environment, and not for long.

use jit_plugin::{Allowance, ConfigProblem, Policy, Request, Seconds, Verdict, log};
use serde::Deserialize;

/// `config = { environments = ["prod"], max_ttl = "30m" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose workloads get something.
    environments: Vec<String>,
    /// The longest lease.
    #[serde(default)]
    max_ttl: Option<Seconds>,
    /// Roles that are given only with a ticket.
    #[serde(default)]
    need_ticket: Vec<String>,
}

/// The policy.
#[derive(Debug)]
pub struct MyRule;

impl Policy for MyRule {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        if config.environments.is_empty() {
            let message = "is empty, so nobody would get anything: name one, such as \"prod\"";
            return vec![ConfigProblem::new("environments", message)];
        }
        Vec::new()
    }

    fn decide(config: &Config, request: &Request) -> Verdict {
        let environment = request.attribute("env");
        let Some(environment) = environment.filter(|name| config.environments.iter().any(|one| one == name)) else {
            let all = config.environments.join(", ");
            let its = environment.unwrap_or("none");
            return Verdict::deny(format!("only workloads of {all}; {} is of {its}", request.workload()));
        };
        log::debug("allowed", &[("workload", request.workload()), ("environment", environment)]);
        let ticket = config.need_ticket.iter().any(|role| role == request.role()).then(|| "ticket".to_owned());
        Allowance {
            reason: format!("of {environment}"),
            max_ttl_seconds: config.max_ttl.map(Seconds::get),
            requires: ticket.into_iter().collect(),
            labels: vec![("environment".to_owned(), environment.to_owned())],
            ..Allowance::default()
        }
        .into()
    }
}

jit_plugin::register_policy!(MyRule);

#[cfg(test)]
mod tests {
    use jit_plugin::{config::parse, testing::request};

    use super::*;

    const CONFIG: &str = r#"{"environments": ["prod"], "max_ttl": "30m", "need_ticket": ["app_read_write"]}"#;

    fn decide(request: &Request) -> Verdict {
        MyRule::decide(&parse(CONFIG).expect("a good configuration"), request)
    }

    #[test]
    fn a_workload_of_the_environment_is_allowed() {
        let Verdict::Allow(allowance) = decide(&request().with_attribute("env", "prod")) else {
            panic!("it is denied")
        };
        assert_eq!(allowance.max_ttl_seconds, Some(1800));
        assert!(allowance.requires.is_empty());
    }

    #[test]
    fn others_are_denied_and_told_why() {
        for environment in ["", "dev", "prod\n", "PROD"] {
            let Verdict::Deny(reason) = decide(&request().with_attribute("env", environment)) else {
                panic!("{environment:?} is allowed")
            };
            assert!(reason.contains("only workloads of prod"), "{reason}");
        }
        assert!(matches!(decide(&request()), Verdict::Deny(_)));
    }

    #[test]
    fn a_configuration_is_checked() {
        let config = parse(r#"{"environments": []}"#).expect("its type is right");
        assert_eq!(MyRule::validate(&config)[0].path, "environments");
        assert!(parse::<Config>(r#"{"environment": []}"#).unwrap_err()[0].message.contains("write `environments`"));
    }
}
