//! The context provider my-facts: which team a workload belongs to, for policies to judge.

use jit_plugin::{ConfigProblem, Context, Request};
use serde::Deserialize;

/// `config = { teams = [{ prefix = "payment-", team = "payments" }] }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The first whose prefix fits says the team.
    teams: Vec<Team>,
}

/// A team and its workloads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// How the names of its workloads begin.
    prefix: String,
    /// Its name.
    team: String,
}

/// The provider.
#[derive(Debug)]
pub struct MyFacts;

impl Context for MyFacts {
    type Config = Config;

    fn validate(config: &Config) -> Vec<ConfigProblem> {
        let empty = config.teams.iter().position(|team| team.prefix.is_empty());
        let problem =
            |index| ConfigProblem::new(format!("teams[{index}].prefix"), "is empty, which fits every workload");
        empty.map(problem).into_iter().collect()
    }

    /// Facts stand in the audit record: never put a secret into one. With a connection, and the grants `http`,
    /// `session` and `secrets`, a provider can ask a server: see `jit_plugin::http`.
    fn gather(config: &Config, request: &Request) -> Result<Vec<(String, String)>, String> {
        let team = config.teams.iter().find(|team| request.workload().starts_with(&team.prefix));
        Ok(team.map(|team| ("team".to_owned(), team.team.clone())).into_iter().collect())
    }
}

jit_plugin::register_context!(MyFacts);

#[cfg(test)]
mod tests {
    use jit_plugin::{config::parse, testing::request};

    use super::*;

    #[test]
    fn a_workload_gets_the_team_of_its_prefix() {
        let config = parse(r#"{"teams": [{"prefix": "payment-", "team": "payments"}]}"#).expect("a good configuration");
        assert!(MyFacts::validate(&config).is_empty());
        assert_eq!(MyFacts::gather(&config, &request()), Ok(vec![("team".to_owned(), "payments".to_owned())]));
        let stranger = request().with_workload("batch");
        assert_eq!(MyFacts::gather(&config, &stranger), Ok(vec![]));
    }

    #[test]
    fn a_prefix_that_fits_everybody_is_a_mistake() {
        let config = parse(r#"{"teams": [{"prefix": "", "team": "all"}]}"#).expect("its type is right");
        assert_eq!(MyFacts::validate(&config)[0].path, "teams[0].prefix");
    }
}
