//! The policy's configuration: texts in Cedar, held against the schema.

use std::collections::BTreeSet;

use cedar_policy::{Effect, Entities, Entity, PolicySet, Schema, ValidationMode, Validator};
use jit_plugin::testing::request;
use jit_plugin::{ConfigProblem, Request};
use serde::Deserialize;

use crate::mistake::{self, tame};
use crate::model::{self, Asked};
use crate::reads::Reads;
use crate::{obligation, verdict};

/// What a request is to Cedar, where the configuration does not say it itself.
const SCHEMA: &str = include_str!("schema.cedarschema");

/// The longest text of policies, in bytes. Each decision reads it.
const MAX_POLICIES: usize = 64 << 10;

/// The longest schema, in bytes.
const MAX_SCHEMA: usize = 64 << 10;

/// The most entities. Each decision reads them.
const MAX_ENTITIES: usize = 500;

/// The policy's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Policies in Cedar.
    policies: String,
    /// Another schema than `schema.cedarschema`, in Cedar's schema language.
    schema: Option<String>,
    /// Hierarchies, as Cedar's JSON has them: `uid`, `parents`, and `attrs`.
    #[serde(default)]
    entities: Vec<EntityConfig>,
    /// What is made of all that, once.
    #[serde(skip)]
    prepared: Prepared,
}

/// What every decision needs and no request changes. Without policies, which deny, until it is prepared.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) policies: PolicySet,
    pub(crate) entities: Vec<Entity>,
    pub(crate) reads: Reads,
}

/// An entity as Cedar's JSON has it, with what may be left out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityConfig {
    uid: serde_json::Value,
    #[serde(default = "no_attributes")]
    attrs: serde_json::Value,
    #[serde(default)]
    parents: Vec<serde_json::Value>,
}

fn no_attributes() -> serde_json::Value {
    serde_json::json!({})
}

impl Config {
    /// The policies, parsed.
    ///
    /// # Errors
    /// Every mistake, with its line and column.
    pub(crate) fn policies(&self) -> Result<PolicySet, Vec<ConfigProblem>> {
        if self.policies.len() > MAX_POLICIES {
            let message = format!("is longer than {MAX_POLICIES} bytes: split it over several policies");
            return Err(vec![ConfigProblem::new("policies", message)]);
        }
        self.policies
            .parse::<PolicySet>()
            .map_err(|errors| errors.iter().map(|error| mistake::at("policies", &self.policies, error)).collect())
    }

    /// Parses it.
    ///
    /// # Errors
    /// Every mistake.
    pub(crate) fn prepare(&mut self) -> Result<(), Vec<ConfigProblem>> {
        let (policies, entities) = (self.policies()?, self.entities()?);
        self.prepared = Prepared { policies, entities, reads: Reads::of(&self.policies) };
        Ok(())
    }

    /// What was prepared.
    pub(crate) fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The configured entities.
    ///
    /// # Errors
    /// Every mistake, with its place in the list.
    pub(crate) fn entities(&self) -> Result<Vec<Entity>, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let mut entities = Vec::new();
        for (index, entity) in self.entities.iter().enumerate() {
            let json = serde_json::json!({"uid": entity.uid, "attrs": entity.attrs, "parents": entity.parents});
            match Entity::from_json_value(json, None) {
                Ok(entity) => entities.push(entity),
                Err(error) => {
                    let message = tame(&model::chain(&error));
                    problems.push(ConfigProblem::new(format!("entities[{index}]"), message));
                }
            }
        }
        if problems.is_empty() { Ok(entities) } else { Err(problems) }
    }

    /// Everything that a load can find.
    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        let found = self.policies().and_then(|policies| {
            let schema = self.schema()?;
            let mut problems = self.policy_problems(&policies, schema.clone());
            problems.extend(self.entity_problems(&schema));
            Ok(problems)
        });
        found.unwrap_or_else(|problems| problems)
    }

    fn schema(&self) -> Result<Schema, Vec<ConfigProblem>> {
        let text = self.schema.as_deref().unwrap_or(SCHEMA);
        if text.len() > MAX_SCHEMA {
            let message = format!("is longer than {MAX_SCHEMA} bytes");
            return Err(vec![ConfigProblem::new("schema", message)]);
        }
        let (schema, warnings) =
            Schema::from_cedarschema_str(text).map_err(|error| vec![mistake::at("schema", text, &error)])?;
        let warnings: Vec<_> = warnings.map(|warning| mistake::at("schema", text, &warning)).collect();
        if warnings.is_empty() { Ok(schema) } else { Err(warnings) }
    }

    fn policy_problems(&self, policies: &PolicySet, schema: Schema) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if policies.templates().next().is_some() {
            let message = "has a template (`?principal` or `?resource`), which nothing fills: write the names";
            problems.push(ConfigProblem::new("policies", message));
        }
        if !policies.policies().any(|policy| policy.effect() == Effect::Permit) {
            let message = "permits nothing, which denies everything: add a `permit`";
            problems.push(ConfigProblem::new("policies", message));
        }
        let mut names = BTreeSet::new();
        for policy in policies.policies() {
            let name = verdict::name(policy);
            let told = obligation::problems(policy).into_iter();
            problems.extend(told.map(|what| ConfigProblem::new("policies", tame(&format!("policy `{name}` {what}")))));
            if !names.insert(name.clone()) {
                let message = format!("has two policies with the @id `{name}`: a reason could not tell which");
                problems.push(ConfigProblem::new("policies", message));
            }
        }
        let result = Validator::new(schema).validate(policies, ValidationMode::Strict);
        let at = |error: &dyn miette::Diagnostic| mistake::at("policies", &self.policies, error);
        problems.extend(result.validation_errors().map(|error| at(error)));
        // A policy that can never hold, or one that is not what it looks like: nobody meant that.
        problems.extend(result.validation_warnings().map(|warning| at(warning)));
        problems
    }

    /// Whether what each decision makes fits the schema: then no decision needs to look at it.
    fn entity_problems(&self, schema: &Schema) -> Vec<ConfigProblem> {
        if self.entities.len() > MAX_ENTITIES {
            let message = format!("has more than {MAX_ENTITIES} entities: split them over several policies");
            return vec![ConfigProblem::new("entities", message)];
        }
        let entities = match self.entities() {
            Ok(entities) => entities,
            Err(problems) => return problems,
        };
        let misplaced = entities.iter().enumerate().filter_map(|(index, entity)| {
            Some(ConfigProblem::new(format!("entities[{index}]"), model::misplaced(entity)?))
        });
        let mut problems: Vec<_> = misplaced.collect();
        if schema.action_entities().is_ok_and(|actions| actions.iter().any(|action| !is_alone(action))) {
            let message = "has groups of actions: write `action in [Action::\"issue\", Action::\"renew\"]` in policies";
            problems.push(ConfigProblem::new("schema", message));
        }
        if !problems.is_empty() {
            return problems;
        }
        let mut uids = BTreeSet::new();
        if let Some(twice) =
            entities.iter().map(|entity| entity.uid().to_string()).find(|uid| !uids.insert(uid.clone()))
        {
            return vec![ConfigProblem::new("entities", tame(&format!("has {twice} twice")))];
        }
        let unfit = |key: &str, why: String| {
            vec![ConfigProblem::new(key, tame(&format!("does not fit what requests are made of: {why}")))]
        };
        for sample in samples() {
            if let Err(why) = Asked::new(&sample, Vec::new(), &Reads::all(), Some(schema)) {
                return unfit("schema", why);
            }
        }
        let completed = entities.into_iter().map(model::completed).collect::<Result<Vec<_>, _>>();
        let fit = completed.and_then(|completed| {
            Entities::from_entities(completed, Some(schema)).map_err(|error| model::chain(&error))
        });
        fit.err().map(|why| unfit("entities", why)).unwrap_or_default()
    }
}

fn is_alone(action: &Entity) -> bool {
    let (_, _, parents) = action.clone().into_inner();
    parents.is_empty()
}

/// Requests with everything that one can have, and with as little.
fn samples() -> Vec<Request<'static>> {
    let bare = |operation: &str| {
        let named = request().with_workload("sample").with_target("sample").with_role("sample");
        named.with_operation(operation).with_ttl(1)
    };
    let whole = bare("issue").with_attribute("env", "sample").with_reason("sample").with_ticket("sample");
    let whole = whole.with_metadata("build", "sample").with_fact("sample.score", "1");
    let whole = whole.with_resource("credential", "verifier").with_resource("verifier", "sample");
    vec![bare("issue"), bare("renew"), whole]
}
