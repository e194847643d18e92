//! `policy replay`: recorded decisions of a real broker, asked of candidates; and that the policies that
//! come with the broker answer exactly as is recorded.

use std::path::PathBuf;
use std::process::Output;

use jit_tests::world::eventually;
use jit_tests::{Client, Settings, World, surroundings};
use serde_json::{Value, json};

fn component(name: &str) -> String {
    format!("{}/{name}.wasm", surroundings("JIT_TEST_PLUGINS"))
}

fn plugin(name: &str, file: &str) -> String {
    format!("[plugins.{name}]\npath = \"{}\"\n", component(file))
}

/// A target without a backend, so that hundreds of decisions take a second.
fn without_backend(policies: &[&str], more: &str) -> Settings {
    let policies = json!(policies);
    let more = format!(
        "{}{more}[targets.nothing]\ndriver = \"noop\"\npolicies = {policies}\ndefault_ttl = \"1h\"\nmax_ttl = \"8h\"\n\
         default_role = \"reader\"\n[targets.nothing.roles.reader]\n[targets.nothing.roles.writer]\n",
        plugin("noop", "driver-noop")
    );
    Settings { more, ..Settings::default() }
}

fn file(world: &World, name: &str, text: &str) -> String {
    let path: PathBuf = world.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Replays with and without memory: both say the same.
fn replay(world: &World, args: &[&str]) -> (Option<i32>, Value, String) {
    let run = |memory: &[&str]| {
        let all = [&["policy", "replay", "--format", "json"], args, memory].concat();
        let Output { status, stdout, stderr } = world.cli(&all);
        let said = String::from_utf8_lossy(&stderr).into_owned();
        (status.code(), serde_json::from_slice::<Value>(&stdout).unwrap_or(Value::Null), said)
    };
    let (code, report, said) = run(&[]);
    let (without, asked_each, _) = run(&["--no-memory"]);
    assert_eq!((code, &report), (without, &asked_each), "{args:?}: {said}");
    (code, report, said)
}

async fn token(client: &Client, workload: &str, env: &str) -> String {
    let url = format!("{}/token?workload={workload}&namespace=shop&env={env}", client.issuer);
    client.raw().get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap().trim().to_owned()
}

const SCRIPTED: &str = r#"
[[rules]]
when = { workload = "payment-2" }
deny = "closed for 2 of 3"
[[rules]]
when = { workload = "payment-3" }
max_ttl_seconds = 60
[[rules]]
"#;

/// `payment-1` to `payment-3` get a lease twice each, `reporting` is denied by `allow`.
async fn eight_decisions(world: &World) {
    eight_decisions_of(world, false).await;
}

/// With the scripted policy in the chain, `payment-2` is denied, too.
async fn eight_decisions_of(world: &World, scripted: bool) {
    let client = world.client();
    for workload in ["payment-1", "payment-2", "payment-3", "reporting"] {
        let token = client.token(workload).await.unwrap();
        for _ in 0..2 {
            let reply = client.issue(&token, &json!({"target": "nothing"})).await.unwrap();
            let denied = workload == "reporting" || scripted && workload == "payment-2";
            assert_eq!(reply.status, if denied { 403 } else { 201 }, "{}", reply.text);
        }
    }
}

/// What each decision says, but for the time that it took, its place in the log, and the request's own name.
fn decisions(world: &World) -> Vec<Value> {
    let records = world.audit().into_iter().filter(|record| {
        record["event"].as_str().is_some_and(|event| ["issue.granted", "issue.denied"].contains(&event))
    });
    records
        .map(|record| {
            let mut policies = record["policies"].clone();
            for policy in policies.as_array_mut().into_iter().flatten() {
                policy.as_object_mut().unwrap().remove("micros");
            }
            let mut input = record["input"].clone();
            input.as_object_mut().unwrap().remove("time");
            json!([record["event"], record["workload"], record["reason"], record["role"], policies, input])
        })
        .collect()
}

#[tokio::test]
async fn answers_and_records_are_the_same_without_memory_and_from_snapshots() {
    let scripted = SCRIPTED.replace("[[rules]]", "[[policies.scripted.config.rules]]");
    let more = format!(
        "{}[policies.scripted]\nplugin = \"scripted\"\n{}",
        plugin("scripted", "policy-scripted"),
        scripted.replace("\nwhen", "\nlabels = { by = \"a rule\" }\nwhen")
    );
    let mut world = World::with(without_backend(&["allow", "scripted"], &more)).await;
    eight_decisions_of(&world, true).await;
    let remembering = decisions(&world);
    // Each workload asks twice, and no policy reads anything that differs.
    let counted =
        async |world: &World| world.client().metric("jit_policy_remembered_total", &["policy=\"allow\""]).await;
    assert!(counted(&world).await.unwrap() >= 4.0);

    world.process().stop().unwrap();
    world.start(&[("JIT_NO_MEMORY", "true")]).await;
    eight_decisions_of(&world, true).await;
    let all = decisions(&world);
    assert_eq!(all.len(), 2 * remembering.len());
    assert_eq!(&all[remembering.len()..], &remembering[..]);
    assert_eq!(counted(&world).await.unwrap_or_default(), 0.0);

    world.process().stop().unwrap();
    world.start(&[("JIT_NO_MEMORY", "true"), ("JIT_SNAPSHOTS", "background")]).await;
    let copied = async |policy: &str| {
        let labels = [format!("policy=\"{policy}\"")];
        let labels = labels.each_ref().map(String::as_str);
        world.client().metric("jit_policy_copied_total", &labels).await.unwrap_or_default() > 0.5
    };
    eventually("both policies decide on copies", async || {
        eight_decisions_of(&world, true).await;
        copied("allow").await && copied("scripted").await
    })
    .await;
    let before = decisions(&world).len();
    eight_decisions_of(&world, true).await;
    assert_eq!(&decisions(&world)[before..], &remembering[..]);
}

#[tokio::test]
async fn what_would_flip_is_told_grouped_beside_a_running_broker() {
    let world = World::with(without_backend(&["allow"], "")).await;
    eight_decisions(&world).await;
    let before = world.audit().len();
    let (policy, config) = (component("policy-scripted"), file(&world, "new.toml", SCRIPTED));
    // Added: it denies one workload, shortens another, and cannot allow whom `allow` denies.
    let added = ["--policy", &policy, "--config", &config, "--since", "1h"];
    let (code, report, said) = replay(&world, &added);
    assert_eq!(code, Some(3), "{said}");
    let totals = &report["totals"];
    assert_eq!(
        [&totals["decisions"], &totals["replayed"], &totals["unchanged"], &totals["allow_to_deny"]],
        [8, 8, 4, 2],
        "{totals}"
    );
    assert_eq!([&totals["deny_to_allow"], &totals["changed"]], [0, 2], "{totals}");
    let group = report["groups"].as_array().unwrap().iter().find(|group| group["kind"] == "allow_to_deny").unwrap();
    assert_eq!((&group["workload"], &group["target"]), (&json!("payment-2"), &json!("nothing")));
    assert_eq!((&group["reason"], &group["count"]), (&json!("closed for 2 of 3"), &json!(2)));
    let example = &group["examples"][0];
    let record = world.events("issue.granted").into_iter().find(|record| record["seq"] == example["seq"]).unwrap();
    assert_eq!((&record["workload"], &record["request_id"]), (&json!("payment-2"), &example["request_id"]));
    // In the place of `allow`: now `reporting` would be allowed.
    let (code, report, _) = replay(&world, &[&added[..], &["--name", "allow"]].concat());
    assert_eq!(code, Some(3));
    assert_eq!(report["totals"]["deny_to_allow"], 2, "{report}");
    let group = report["groups"].as_array().unwrap().iter().find(|group| group["kind"] == "deny_to_allow").unwrap();
    assert_eq!((&group["workload"], &group["policy"]), (&json!("reporting"), &json!("allow")));
    // Filters, and a gate that saw nothing does not pass.
    let (code, report, _) = replay(&world, &[&added[..], &["--workload", "payment-1"]].concat());
    assert_eq!((code, &report["totals"]["decisions"]), (Some(0), &json!(2)), "nothing flips");
    for nothing in [["--target", "other"], ["--until", "1h"], ["--name", "no-such"]] {
        let (code, _, said) = replay(&world, &[&added[..], &nothing].concat());
        assert!(code == Some(1) && said.contains("nothing was replayed"), "{nothing:?}: {said}");
    }
    // For people.
    let table = world.cli(&["policy", "replay", "--policy", &policy, "--config", &config, "--limit", "1"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("8 recorded decisions") && text.contains("more decisions in 1 more groups"), "{text}");
    assert_eq!(world.audit().len(), before, "nothing was written");
    world.assert_log_is_intact();
}

#[tokio::test]
async fn an_exported_file_is_replayed_and_junk_in_it_is_told() {
    let world = World::with(without_backend(&["allow"], "")).await;
    eight_decisions(&world).await;
    let export = world.folder.path().join("exported.jsonl").display().to_string();
    assert!(world.cli(&["audit", "export", "--out", &export]).status.success());
    let (policy, config) = (component("policy-scripted"), file(&world, "new.toml", SCRIPTED));
    let replayed = |audit: &str| replay(&world, &["--policy", &policy, "--config", &config, "--audit", audit]);
    let (code, report, said) = replayed(&export);
    assert_eq!((code, &report["totals"]["allow_to_deny"]), (Some(3), &json!(2)), "{said}");

    let lines = std::fs::read_to_string(&export).unwrap();
    let granted = lines.lines().find(|line| line.contains("issue.granted") && line.contains("payment-2")).unwrap();
    let (mut old, mut forged): (Value, Value) =
        (serde_json::from_str(granted).unwrap(), serde_json::from_str(granted).unwrap());
    old.as_object_mut().unwrap().remove("input");
    forged["policies"][0]["verdict"] = json!("deny");
    forged["workload"] = json!("\u{1b}[2Jevil");
    let hostile = format!(
        "{lines}not json\n{{\"event\":7}}\n\u{0}\u{0}\n[]\n{old}\n{forged}\n{}\n{}",
        "[".repeat(100_000),
        // The last line has no line break.
        granted
    );
    let (code, report, said) = replayed(&file(&world, "hostile.jsonl", &hostile));
    assert_eq!((code, &report["totals"]["allow_to_deny"]), (Some(3), &json!(3)), "{said}");
    let unfit: Vec<(&str, u64)> = report["not_replayable"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["reason"].as_str().unwrap(), group["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(unfit.iter().map(|(_, count)| count).collect::<Vec<_>>(), [&5, &1, &1], "{unfit:?}");
    assert!(unfit[0].0.contains("not a record") && unfit[1].0.contains("without") && unfit[2].0.contains("not what"));

    let huge = format!("{granted}\n{}\n", "x".repeat(3 << 20));
    let (code, _, said) = replayed(&file(&world, "huge.jsonl", &huge));
    assert!(code == Some(1) && said.contains("line 2") && said.contains("too long"), "{said}");
    for (name, text) in [("empty.jsonl", ""), ("junk.jsonl", "junk\n")] {
        let (code, _, said) = replayed(&file(&world, name, text));
        assert!(code == Some(1) && said.contains("nothing was replayed"), "{name}: {said}");
    }
    let (code, _, said) = replayed("/no/such/file");
    assert!(code == Some(1) && said.contains("/no/such/file"), "{said}");
}

#[tokio::test]
async fn mistakes_of_a_candidate_are_told_at_their_line() {
    let world = World::prepared(without_backend(&["allow"], "")).await;
    let policy = component("policy-time-window");
    let config = file(&world, "new.toml", "time_zone = \"Europe/Berlin\"\ndays = [\"someday\"]\n");
    let (code, _, said) = replay(&world, &["--policy", &policy, "--config", &config]);
    assert!(code == Some(1) && said.contains("new.toml:2"), "{said}");
    let broken = file(&world, "broken.toml", "a = 1\nb = [\n");
    let (code, _, said) = replay(&world, &["--policy", &policy, "--config", &broken]);
    assert!(code == Some(1) && said.contains("not TOML"), "{said}");
    let (code, _, said) = replay(&world, &["--policy", &component("driver-noop")]);
    assert!(code == Some(1) && said.contains("not a policy"), "{said}");
}

/// All policies that come with the broker, in one chain: each is asked about every request, whatever the
/// others say.
fn every_policy() -> Settings {
    let mut more = String::new();
    for (name, file) in [
        ("time-window", "policy-time-window"),
        ("environment", "policy-environment"),
        ("quota", "policy-quota"),
        ("scripted", "policy-scripted"),
    ] {
        more.push_str(&plugin(name, file));
    }
    more.push_str(
        r#"
[policies.readers]
plugin = "allow-list"
[[policies.readers.config.rules]]
name = "exports"
workload = "payment-*"
target = "nothing"
roles = ["writer"]
attributes = { env = "prod" }
max_ttl = "20m"
require_reason = true
[[policies.readers.config.rules]]
workload = "*"
target = "*"
roles = ["reader"]
max_ttl = "2h"
[policies.hours]
plugin = "time-window"
mode = "shadow"
[policies.hours.config]
time_zone = "Europe/Berlin"
cap_ttl = true
holidays = { "12-25" = "Christmas" }
[[policies.hours.config.windows]]
name = "even hours"
from = "08:00"
to = "20:00"
roles = ["writer"]
[[policies.hours.config.windows]]
days = ["mon-sun"]
roles = ["reader"]
[policies.environments]
plugin = "environment"
rollout = { percent = 50 }
[[policies.environments.config.targets]]
environment = "prod"
targets = ["nothing"]
[[policies.environments.config.targets]]
environment = "dev"
targets = ["*_dev"]
[[policies.environments.config.exceptions]]
name = "tests"
from = "dev"
to = "prod"
workloads = ["payment-1"]
[policies.fair-use]
plugin = "quota"
[[policies.fair-use.config.limits]]
name = "per service"
per = "workload"
requests = { 1h = 40, 1d = 100 }
leases = 25
[policies.narrow]
plugin = "scripted"
[[policies.narrow.config.rules]]
when = { workload = "payment-2", role = "writer" }
role = "reader"
labels = { narrowed = "yes" }
[[policies.narrow.config.rules]]
when = { workload = "payment-4" }
requires = ["ticket"]
[[policies.narrow.config.rules]]
reason = "as asked"
"#,
    );
    let mut names = vec!["readers", "hours", "environments", "fair-use", "narrow"];
    if PathBuf::from(component("policy-cedar")).exists() {
        more.push_str(&plugin("cedar", "policy-cedar"));
        more.push_str(
            "[policies.rules]\nplugin = \"cedar\"\n[policies.rules.config]\npolicies = '''\n\
             @id(\"everybody\") @max_ttl(\"3h\") permit (principal, action, resource);\n\
             @id(\"not-5\") forbid (principal == Workload::\"payment-5\", action, resource);\n'''\n",
        );
        names.push("rules");
    }
    without_backend(&names, &more)
}

/// Each workload asks in its own way, again and again, and renews what it got.
async fn asks(client: Client, number: usize) {
    let workload = if number == 6 { "reporting".to_owned() } else { format!("payment-{number}") };
    let token = token(&client, &workload, if number.is_multiple_of(2) { "prod" } else { "dev" }).await;
    let mut leases = Vec::new();
    for turn in 0..45 {
        let mut body =
            json!({"target": "nothing", "ttl": format!("{}m", 10 + turn), "metadata": {"turn": turn.to_string()}});
        if turn % 3 == 0 {
            body["role"] = json!("writer");
        }
        if turn % 2 == 0 {
            body["reason"] = json!("nightly export – „quoted“ \u{1F511}");
        }
        if turn % 4 == 0 {
            body["ticket"] = json!("OPS-42");
        }
        let reply = client.issue(&token, &body).await.unwrap();
        assert!([201, 403].contains(&reply.status), "{}", reply.text);
        if reply.status == 201 {
            leases.push(reply.lease().to_owned());
        }
        if turn % 5 == 4
            && let Some(lease) = leases.last()
        {
            let path = format!("/v1/leases/{lease}/renew");
            let renewed = client.post(&path, &token, &json!({"ttl": "30m"})).await.unwrap();
            assert!([200, 403].contains(&renewed.status), "{}", renewed.text);
        }
    }
}

#[tokio::test]
async fn the_policy_that_decided_decides_the_same_again() {
    let mut world = World::prepared(every_policy()).await;
    // Compiles them beside the store, which on a busy machine takes longer than a start may.
    let (config, key) = (world.config_with_issuer(), world.folder.path().join("audit.key"));
    assert!(world.cli(&["audit", "key", key.to_str().unwrap()]).status.success());
    let simulate = ["policy", "simulate", "--workload", "w", "--target", "nothing", "--offline"];
    let compiled = world.cli(&[&simulate[..], &[config.to_str().unwrap()]].concat());
    assert_eq!(compiled.status.code(), Some(3), "{}", String::from_utf8_lossy(&compiled.stderr));
    world.start(&[]).await;
    let client = world.client();
    let workloads: Vec<_> = (0..7).map(|number| tokio::spawn(asks(client.clone(), number))).collect();
    for workload in workloads {
        workload.await.unwrap();
    }
    let records = world.audit();
    let decided = |event: &str| records.iter().filter(|record| record["event"] == event).count();
    for event in ["issue.granted", "issue.denied", "lease.renewed", "renew.denied"] {
        assert!(decided(event) > 0, "no {event}: this would show little");
    }
    assert!(records.iter().any(|record| record["narrowed_to"] == "reader"), "nothing was narrowed");
    let decisions =
        decided("issue.granted") + decided("issue.denied") + decided("lease.renewed") + decided("renew.denied");
    assert!(decisions > 300, "{decisions}");
    let answers: usize = records
        .iter()
        .filter(|record| record["event"] != "policy.shadow_diff")
        .filter_map(|record| record["policies"].as_array())
        .map(Vec::len)
        .sum();

    let (code, report, said) = replay(&world, &["--reproduce"]);
    assert_eq!(code, Some(0), "{said}\n{report}");
    let totals = &report["totals"];
    assert_eq!((&totals["decisions"], &totals["replayed"]), (&json!(decisions), &json!(decisions)), "{totals}");
    assert_eq!((&totals["same_bytes"], &totals["other_bytes"]), (&json!(answers), &json!(0)), "{totals}");
    assert_eq!([&totals["not_reproduced"], &totals["not_replayable"]], [0, 0], "{totals}");

    // One of them by itself, in its own place: nothing is different, and that is held too.
    let quota = file(
        &world,
        "quota.toml",
        "[[limits]]\nname = \"per service\"\nper = \"workload\"\nrequests = { 1h = 40, 1d = 100 }\nleases = 25\n",
    );
    let own = ["--policy", &component("policy-quota"), "--config", &quota, "--name", "fair-use"];
    let (code, report, said) = replay(&world, &own);
    assert_eq!(code, Some(0), "{said}\n{report}");
    assert_eq!(report["totals"]["unchanged"], decisions);
    assert_eq!(report["totals"]["same_bytes"], decisions);
    // Counts that nobody counted cannot be made up.
    let other = file(&world, "other.toml", "[[limits]]\nper = \"target\"\nrequests = { 2h = 1 }\n");
    let (code, report, said) = replay(&world, &["--policy", &component("policy-quota"), "--config", &other]);
    assert!(code == Some(1) && said.contains("nothing was replayed"), "{said}");
    assert_eq!(report["totals"]["not_replayable"], decisions);
    // A record that was changed is found, as would be a policy that is no function of its input.
    let mut changed = records.iter().find(|record| record["event"] == "issue.granted").unwrap().clone();
    let answer = changed["policies"].as_array_mut().unwrap().iter_mut().find(|policy| policy["name"] == "fair-use");
    answer.unwrap()["reason"] = json!("within reason");
    let changed = file(&world, "changed.jsonl", &format!("{changed}\n"));
    let (code, report, said) = replay(&world, &["--reproduce", "--audit", &changed]);
    assert_eq!((code, &report["totals"]["not_reproduced"]), (Some(1), &json!(1)), "{said}");
    assert!(said.contains("no function of its input"), "{said}");
}
