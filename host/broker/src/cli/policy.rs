//! `policy simulate`: a decision, explained step by step; `policy replay` is in a file of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use jit_api::IssueRequest;
use jit_core::policy::{ContextOutcome, Mode, Operation, PolicyRecord};
use jit_core::ttl::Ttl;

use super::client::{AdminClient, SocketArg};
use super::progress::Compilations;
use super::relative::length;
use super::{Format, Stop, block_on, policy_replay};
use jit_assembly::compose;
use jit_config::Config;
use jit_pipeline::simulate::{Explanation, Question, explain};

const EXAMPLES: &str = "\
Examples:
  jit-broker policy simulate --workload payment-service --target inventory_db
  jit-broker policy simulate --workload payment-service --target inventory_db --attribute env=prod \\
      --role app_read_write --ttl 2h --reason 'nightly export' --at 2026-12-24T22:30:00Z
  jit-broker policy simulate --workload payment-service --target inventory_db --credential verifier
  jit-broker policy simulate --offline broker.toml --workload w --target t --fact usage.workload.leases=3

It asks the running broker, by its admin socket, and nothing follows: no account, no record, no count.
It decides as POST /v1/simulate does for a token of that issuer with that workload and those attributes, and
says which attributes of the issuer's tokens were not given.
With --offline the configuration is loaded here and no broker is needed; context providers are asked,
and counts have to be given as facts.

Exit codes: 0 allowed · 3 denied · 1 failed · 4 no broker answers.";

#[derive(clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Explain, step by step, what would be decided.
    #[command(after_help = EXAMPLES)]
    Simulate(Box<SimulateArgs>),
    /// Ask a candidate about recorded decisions, and show which would be different.
    #[command(after_help = policy_replay::EXAMPLES)]
    Replay(Box<policy_replay::ReplayArgs>),
}

#[derive(clap::Args)]
pub(super) struct SimulateArgs {
    #[command(flatten)]
    socket: SocketArg,
    /// Load this configuration here, and ask no broker.
    #[arg(long, value_name = "FILE")]
    offline: Option<PathBuf>,
    /// The workload's name, as the issuer's `workload` template gives it.
    #[arg(long)]
    workload: String,
    /// The issuer's name in the configuration; needed where there are several. Counts, roll-outs and rules
    /// depend on it.
    #[arg(long)]
    issuer: Option<String>,
    /// The token's `sub`: whose requests and leases are counted. Without it, all of that name.
    #[arg(long, default_value = "")]
    subject: String,
    /// An attribute of the identity; repeat for more.
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// The target.
    #[arg(long)]
    target: String,
    /// The role; by default the target's.
    #[arg(long)]
    role: Option<String>,
    /// The length; by default the target's.
    #[arg(long)]
    ttl: Option<Ttl>,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    /// A ticket.
    #[arg(long)]
    ticket: Option<String>,
    /// Something that the caller attaches; repeat for more.
    #[arg(long = "metadata", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// A fact in place of what a provider or the broker's counts would say; repeat for more.
    #[arg(long = "fact", value_name = "NAME=VALUE", value_parser = pair)]
    facts: Vec<(String, String)>,
    /// The IP address that the caller connects from.
    #[arg(long, value_name = "ADDRESS")]
    caller_address: Option<IpAddr>,
    /// Who makes the password: `password` (the broker), `verifier` (the caller), or the kind of the caller's verifier,
    /// such as `scram_sha_256`.
    #[arg(long, value_name = "TYPE")]
    credential: Option<String>,
    /// What the operation is about, such as `lease=…` of a renewal; repeat for more.
    #[arg(long = "resource", value_name = "NAME=VALUE", value_parser = pair)]
    resource: Vec<(String, String)>,
    /// The moment (RFC 3339); by default now.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// A renewal in place of a new lease.
    #[arg(long)]
    renew: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

pub(super) fn run(command: PolicyCommand) -> Result<(), Stop> {
    match command {
        PolicyCommand::Simulate(args) => simulate(*args),
        PolicyCommand::Replay(args) => policy_replay::run(*args),
    }
}

fn simulate(args: SimulateArgs) -> Result<(), Stop> {
    let map = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let question = Question {
        operation: if args.renew { Operation::Renew } else { Operation::Issue },
        workload: args.workload,
        issuer: args.issuer.unwrap_or_default(),
        subject: args.subject,
        attributes: map(args.attributes),
        request: IssueRequest {
            target: args.target,
            role: args.role,
            ttl: args.ttl.map(Into::into),
            reason: args.reason,
            ticket: args.ticket,
            metadata: map(args.metadata),
            credential: None,
        },
        caller_address: args.caller_address,
        credential: args.credential,
        resource: map(args.resource),
        time: args.at,
        facts: map(args.facts),
    };
    let explanation = match &args.offline {
        None => {
            let client = AdminClient::new(&args.socket)?;
            block_on(async { Ok(client.post_json("/admin/simulate", &question).await) })??
        }
        Some(path) => {
            let config = Config::load(path)?;
            config.check_files()?;
            let runtime = compose::runtime(&config, compose::Mode::default(), Compilations::new(args.format))?;
            let serving = compose::serving(&config, &runtime, None, None)?.serving;
            let issuers = config.known_issuers();
            block_on(async { Ok(explain(&serving, None, &issuers, question).await?) })?
        }
    };
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Format::Table => print!("{}", for_people(&explanation)),
    }
    if explanation.decision == "allow" { Ok(()) } else { Err(Stop::FoundWrong) }
}

/// The way of the decision, from what is known to what holds.
fn for_people(explanation: &Explanation) -> String {
    let input = &explanation.input;
    let issuer = if input.issuer.is_empty() { "no issuer" } else { input.issuer.as_str() };
    let mut lines = vec![format!(
        "{} of issuer {issuer} asks to {} {} of {} for {}, at {}",
        input.workload,
        if input.operation == Operation::Renew { "renew" } else { "get" },
        input.role,
        input.target,
        length(input.ttl_seconds),
        i64::try_from(input.time).ok().and_then(|time| Timestamp::from_second(time).ok()).unwrap_or_default()
    )];
    lines.push("known:".to_owned());
    let known = input.attributes.iter().chain(&input.facts).map(|(name, value)| format!("  {name} = {value}"));
    lines.extend(known);
    lines.extend(input.resource.iter().map(|(name, value)| format!("  resource {name} = {value}")));
    lines.extend(input.caller_address.map(|address| format!("  caller's address = {address}")));
    if !explanation.lacks.is_empty() {
        lines.push("not known, so that a real request may be decided otherwise:".to_owned());
        lines.extend(explanation.lacks.iter().map(|lack| format!("  {lack}")));
    }
    for context in &explanation.contexts {
        let how = match (context.outcome, &context.error) {
            (ContextOutcome::Failed, Some(error)) if context.failed_open => {
                format!("failed, and is done without: {error}")
            }
            (ContextOutcome::Failed, Some(error)) => format!("failed, which denies: {error}"),
            (outcome, _) => outcome.as_str().to_owned(),
        };
        lines.push(format!("  context provider {}: {how} ({} µs)", context.name, context.micros));
    }
    if let Some(role) = &explanation.narrowed_to {
        lines.push(format!("narrowed to role {role}, and asked again:"));
    }
    lines.extend(explanation.policies.iter().enumerate().map(|(at, policy)| step(at + 1, policy)));
    for (policy, how) in &explanation.shadow_diffs {
        lines.push(format!("shadow {policy}: {how}"));
    }
    lines.push(match (&explanation.policy, &explanation.reason) {
        (Some(policy), Some(reason)) => format!("DENIED by {policy}: {reason}"),
        _ => format!("ALLOWED: {} for {}", explanation.role, length(explanation.ttl_seconds.into())),
    });
    lines.join("\n") + "\n"
}

fn step(number: usize, policy: &PolicyRecord) -> String {
    let counts = match (policy.mode, policy.rolled_out) {
        (Mode::Shadow, Some(false)) => " (not rolled out to this workload: without effect)",
        (Mode::Shadow, _) => " (shadow: without effect)",
        (_, Some(true)) => " (rolled out to this workload)",
        _ => "",
    };
    let mut text = format!("{number}. {}: {}{counts}", policy.name, policy.verdict);
    if !policy.reason.is_empty() {
        text.push_str(&format!(", {}", policy.reason));
    }
    let obligations = &policy.obligations;
    if let Some(seconds) = obligations.max_ttl_seconds {
        text.push_str(&format!("; at most {}", length(seconds)));
    }
    if let Some(role) = &obligations.role {
        text.push_str(&format!("; only role {role}"));
    }
    if !obligations.requires.is_empty() {
        let words: Vec<&str> = obligations.requires.iter().map(|need| need.as_str()).collect();
        text.push_str(&format!("; requires {}", words.join(", ")));
    }
    for (name, value) in &obligations.labels {
        text.push_str(&format!("; label {name}={value}"));
    }
    let short = |digest: &str| digest.chars().take(12).collect::<String>();
    text.push_str(&format!(
        "  [plugin {}, config {}, {} µs]",
        short(&policy.plugin_sha256),
        short(&policy.config_sha256),
        policy.micros
    ));
    let looked_at = policy.looked_at.join(", ");
    text.push_str(&match (looked_at.as_str(), policy.failed) {
        ("", _) => "\n   looked at nothing of the request".to_owned(),
        (looked_at, true) => format!("\n   looked at, before it failed: {looked_at}"),
        (looked_at, false) => format!("\n   decided by: {looked_at}"),
    });
    text
}
