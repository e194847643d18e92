//! From a request to Cedar's entities and context. `schema.cedarschema` says what there is; a test and
//! each load hold this module against it.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request as CedarRequest, RestrictedExpression,
    Schema,
};
use jit_plugin::Request;

use crate::reads::Reads;
use crate::time::Moment;

/// Types whose entities a configuration cannot make: they are of the request itself.
const OF_THE_REQUEST: [&str; 5] = ["Issuer", "Facts", "Numbers", "Metadata", "Action"];

/// Types whose entities a configuration begins and a request completes. Those of other requests are left
/// out of a decision: nothing of it is in them.
const COMPLETED: [&str; 3] = ["Workload", "Target", "Role"];

/// A request as Cedar is asked it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: CedarRequest,
    pub(crate) entities: Entities,
}

impl Asked {
    /// With the entities of the configuration, and of the request with what the policies can read; with a
    /// schema, everything is held against it.
    ///
    /// # Errors
    /// What cannot be said in Cedar, or does not fit the schema.
    pub(crate) fn new(
        request: &Request,
        configured: Vec<Entity>,
        reads: &Reads,
        schema: Option<&Schema>,
    ) -> Result<Self, String> {
        let moment = match reads.moment() {
            true => Some(Moment::new(request.time()).ok_or("the time of the request is none that a calendar has")?),
            false => None,
        };
        let named = Named::of(request)?;
        let mut hierarchy = Hierarchy::default();
        let mut entities = Vec::new();
        for entity in configured {
            let uid = entity.uid();
            if uid == named.workload || uid == named.target || uid == named.role {
                let (uid, attributes, parents) = entity.into_inner();
                hierarchy.0.insert(uid, (attributes, parents));
            } else if !COMPLETED.contains(&uid.type_name().to_string().as_str()) {
                entities.push(entity);
            }
        }
        entities.extend(named.entities(request, reads, &mut hierarchy)?);
        let odd = |error: &dyn std::fmt::Display| error.to_string();
        let context =
            Context::from_pairs(context(request, moment.as_ref(), &named, reads)).map_err(|error| odd(&error))?;
        let Named { workload, action, role, .. } = named;
        let entities = Entities::from_entities(entities, schema).map_err(|error| chain(&error))?;
        let request = CedarRequest::new(workload, action, role, context, schema).map_err(|error| chain(&error))?;
        Ok(Self { request, entities })
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why a configured entity cannot be.
pub(crate) fn misplaced(entity: &Entity) -> Option<String> {
    let type_name = entity.uid().type_name().to_string();
    if OF_THE_REQUEST.contains(&type_name.as_str()) {
        return Some(format!("is of type {type_name}, whose entities are made of each request: leave it out"));
    }
    let is_bare = || {
        let (_, attributes, _) = entity.clone().into_inner();
        attributes.is_empty() && entity.tags().next().is_none()
    };
    match type_name.as_str() {
        "Workload" | "Role" if !is_bare() => {
            Some(format!("is of type {type_name}, whose attributes are made of each request: give it parents only"))
        }
        "Target" if entity.attr("name").is_some() || entity.tags().next().is_some() => {
            Some("is of type Target, whose name is made of each request: leave it and tags out".to_owned())
        }
        _ => None,
    }
}

/// A configured entity as a request of it would complete it, to be held against the schema.
///
/// # Errors
/// What is wrong with its name.
pub(crate) fn completed(entity: Entity) -> Result<Entity, String> {
    let (uid, mut attributes, parents) = entity.into_inner();
    let id = uid.id().unescaped();
    let mut set = |name: &str, value| drop(attributes.insert(name.to_owned(), value));
    match uid.type_name().to_string().as_str() {
        "Workload" => {
            set("name", text(id));
            set("issuer", text("sample"));
        }
        "Target" => set("name", text(id)),
        "Role" => {
            let (target, role) = id.split_once('/').ok_or("is a Role whose name is not `target/role`")?;
            set("name", text(role));
            set("target", RestrictedExpression::new_entity_uid(self::uid("Target", target)?));
        }
        _ => {}
    }
    Entity::new_with_tags(uid, attributes, parents, []).map_err(|error| chain(&error))
}

/// What a configuration adds to the request's own entities.
#[derive(Default)]
struct Hierarchy(HashMap<EntityUid, (HashMap<String, RestrictedExpression>, HashSet<EntityUid>)>);

impl Hierarchy {
    fn of(&mut self, uid: &EntityUid) -> (HashMap<String, RestrictedExpression>, HashSet<EntityUid>) {
        self.0.remove(uid).unwrap_or_default()
    }
}

/// The request's own entities, by name.
struct Named {
    issuer: EntityUid,
    workload: EntityUid,
    action: EntityUid,
    target: EntityUid,
    role: EntityUid,
    facts: EntityUid,
    numbers: EntityUid,
    metadata: EntityUid,
}

impl Named {
    fn of(request: &Request) -> Result<Self, String> {
        Ok(Self {
            issuer: uid("Issuer", request.issuer())?,
            workload: uid("Workload", request.workload())?,
            action: uid("Action", request.operation())?,
            target: uid("Target", request.target())?,
            // No name of a target has a `/`.
            role: uid("Role", &format!("{}/{}", request.target(), request.role()))?,
            facts: uid("Facts", "request")?,
            numbers: uid("Numbers", "request")?,
            metadata: uid("Metadata", "request")?,
        })
    }

    fn entities(&self, request: &Request, reads: &Reads, hierarchy: &mut Hierarchy) -> Result<Vec<Entity>, String> {
        type Pairs<N> = Vec<(N, RestrictedExpression)>;
        let with = |uid: &EntityUid, attributes: Pairs<&str>, parents: Vec<&EntityUid>, tags: Pairs<String>| {
            let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
            Entity::new_with_tags(uid.clone(), attributes, parents.into_iter().cloned(), tags)
                .map_err(|error| error.to_string())
        };
        let facts = reads.facts(request);
        let numbers = facts
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), RestrictedExpression::new_long(whole_number(value)?))));
        let (_, mut workload_parents) = hierarchy.of(&self.workload);
        workload_parents.insert(self.issuer.clone());
        let (target_attributes, target_parents) = hierarchy.of(&self.target);
        let (_, mut role_parents) = hierarchy.of(&self.role);
        role_parents.insert(self.target.clone());
        let target_attributes = target_attributes.iter().map(|(name, value)| (name.as_str(), value.clone()));
        Ok(vec![
            Entity::with_uid(self.issuer.clone()),
            with(
                &self.workload,
                vec![("name", text(request.workload())), ("issuer", text(request.issuer()))],
                workload_parents.iter().collect(),
                texts(&reads.attributes(request)),
            )?,
            with(
                &self.target,
                target_attributes.chain([("name", text(request.target()))]).collect(),
                target_parents.iter().collect(),
                Vec::new(),
            )?,
            with(
                &self.role,
                vec![
                    ("name", text(request.role())),
                    ("target", RestrictedExpression::new_entity_uid(self.target.clone())),
                ],
                role_parents.iter().collect(),
                Vec::new(),
            )?,
            with(&self.facts, Vec::new(), Vec::new(), texts(&facts))?,
            with(&self.numbers, Vec::new(), Vec::new(), numbers.collect())?,
            with(&self.metadata, Vec::new(), Vec::new(), texts(&reads.metadata(request)))?,
        ])
    }
}

/// What no policy can read is left out: making it takes as long as deciding.
fn context(
    request: &Request,
    moment: Option<&Moment>,
    named: &Named,
    reads: &Reads,
) -> Vec<(String, RestrictedExpression)> {
    let long = RestrictedExpression::new_long;
    let entity = |uid: &EntityUid| RestrictedExpression::new_entity_uid(uid.clone());
    let mut pairs = vec![
        ("facts", entity(&named.facts)),
        ("numbers", entity(&named.numbers)),
        ("metadata", entity(&named.metadata)),
    ];
    if let Some(moment) = moment {
        pairs.extend([
            ("time", long(moment.seconds)),
            ("weekday", text(moment.weekday)),
            ("hour", long(moment.hour)),
            ("minute", long(moment.minute)),
        ]);
        pairs.extend(reads.word("now").then(|| ("now", RestrictedExpression::new_datetime(&moment.datetime))));
    }
    let ttl = || long(i64::try_from(request.ttl_seconds()).unwrap_or(i64::MAX));
    pairs.extend(reads.word("ttl").then(|| ("ttl", ttl())));
    // A request that does not say it (a record of an earlier release) is one for a password.
    let credential = || text(request.resource("credential").unwrap_or("password"));
    pairs.extend(reads.word("credential").then(|| ("credential", credential())));
    if reads.word("verifier") {
        pairs.extend(request.resource("verifier").map(|kind| ("verifier", text(kind))));
    }
    if reads.word("reason") {
        pairs.extend(request.reason().map(|reason| ("reason", text(reason))));
    }
    if reads.word("ticket") {
        pairs.extend(request.ticket().map(|ticket| ("ticket", text(ticket))));
    }
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn uid(type_name: &str, id: &str) -> Result<EntityUid, String> {
    let parsed = type_name.parse::<EntityTypeName>().map_err(|error| format!("{type_name}: {error}"))?;
    Ok(EntityUid::from_type_name_and_id(parsed, EntityId::new(id)))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn texts(pairs: &[(String, String)]) -> Vec<(String, RestrictedExpression)> {
    pairs.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// `-12` and `34`, and nothing that only looks like a number.
fn whole_number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}
