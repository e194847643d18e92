//! What a chain of policies comes to: obligations, roll-out, shadows, counts, and the explanation of a
//! decision.

use std::collections::BTreeSet;

use jit_tests::{Settings, World, surroundings};
use serde_json::{Value, json};

fn plugin(name: &str, file: &str) -> String {
    format!("[plugins.{name}]\npath = \"{}/{file}.wasm\"\n", surroundings("JIT_TEST_PLUGINS"))
}

/// A policy `scripted` beside `allow`, in that mode and with those keys and rules.
fn scripted(keys: &str, rules: &str) -> Settings {
    let more =
        format!("{}[policies.scripted]\nplugin = \"scripted\"\n{keys}\n{rules}", plugin("scripted", "policy-scripted"));
    Settings { policies: vec!["allow".into(), "scripted".into()], more, ..Settings::default() }
}

#[tokio::test]
async fn every_obligation_holds_and_is_on_record() {
    let world = World::with(scripted(
        "",
        r#"
[[policies.scripted.config.rules]]
when = { role = "app_read_write" }
role = "app_read_only"
reason = "writers read here"
[[policies.scripted.config.rules]]
when = { workload = "payment-service" }
max_ttl_seconds = 120
requires = ["ticket"]
labels = { cost_centre = "42" }
reason = "with a ticket"
[[policies.scripted.config.rules]]
requires = ["approval"]
"#,
    ))
    .await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let asked = json!({"target": "inventory_db", "role": "app_read_write", "ttl": "1h", "ticket": "OPS-42"});
    let issued = client.issue(&token, &asked).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    assert_eq!((&issued.json["role"], &issued.json["ttl_seconds"]), (&json!("app_read_only"), &json!(120)));
    let record = &world.events("issue.granted")[0];
    assert_eq!((&record["role"], &record["narrowed_to"]), (&json!("app_read_only"), &json!("app_read_only")));
    assert_eq!(record["input"]["role"], "app_read_write", "what was asked for stands there too");
    assert_eq!(record["labels"], json!({"cost_centre": "42", "rule": "rules[0]"}), "those of all policies");
    let policy = &record["policies"][1];
    assert_eq!((&policy["verdict"], &policy["max_ttl_seconds"]), (&json!("allow"), &json!(120)));
    assert_eq!((&policy["requires"], &policy["labels"]), (&json!(["ticket"]), &json!({"cost_centre": "42"})));
    assert_eq!(policy["config_sha256"].as_str().unwrap().len(), 64);
    assert!(policy["micros"].as_u64().is_some());

    let no_ticket = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    no_ticket.assert_problem(403, "policy-denied");
    assert!(no_ticket.text_at("/detail").contains("send \"ticket\""), "{}", no_ticket.text);
    let worker = client.token("payment-worker").await.unwrap();
    let unapproved = client.issue(&worker, &json!({"target": "inventory_db"})).await.unwrap();
    unapproved.assert_problem(403, "policy-denied");
    assert!(unapproved.text_at("/detail").contains("approval"), "{}", unapproved.text);
    world.assert_log_is_intact();
}

/// Which of many workloads a rule that denies everybody has reached.
async fn reached(world: &World) -> BTreeSet<String> {
    let client = world.client();
    let mut reached = BTreeSet::new();
    for number in 0..40 {
        let workload = format!("payment-{number}");
        let token = client.token(&workload).await.unwrap();
        let reply = client.post("/v1/simulate", &token, &json!({"target": "inventory_db"})).await.unwrap();
        let policy = &reply.json["policies"][1];
        let is_reached = policy["rolled_out"] == true;
        assert_eq!(policy["mode"], if is_reached { "enforce" } else { "shadow" }, "{}", reply.text);
        assert_eq!(reply.text_at("/decision"), if is_reached { "deny" } else { "allow" }, "{}", reply.text);
        if is_reached {
            reached.insert(workload);
        }
    }
    reached
}

fn rewrite(world: &World, from: &str, to: &str) {
    let text = std::fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{from:?} is not in the configuration");
    std::fs::write(world.config(), text.replace(from, to)).unwrap();
    let reloaded = world.cli(&["config", "reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
}

#[tokio::test]
async fn a_roll_out_reaches_the_same_workloads_and_only_more_of_them() {
    let rules = "[[policies.scripted.config.rules]]\ndeny = \"closed\"";
    let world = World::with(scripted("rollout = { percent = 25 }", rules)).await;
    let quarter = reached(&world).await;
    assert!((3..20).contains(&quarter.len()), "{quarter:?}");
    assert_eq!(reached(&world).await, quarter, "stable by workload");
    // An operator who asks for a workload is told what the workload is told.
    let (inside, outside) = (0..40).map(|n| format!("payment-{n}")).partition::<Vec<_>, _>(|w| quarter.contains(w));
    for workload in inside.iter().take(3).chain(outside.iter().take(3)) {
        let told = world.cli(&["policy", "simulate", "--workload", workload, "--target", "inventory_db"]);
        let expected = if quarter.contains(workload) { 3 } else { 0 };
        let text = String::from_utf8_lossy(&told.stdout);
        assert_eq!(told.status.code(), Some(expected), "{workload}: {text}");
        assert!(text.starts_with(&format!("{workload} of issuer dev asks")), "{text}");
    }

    // Whom it has not reached gets what it asks for, and the difference is on record.
    let client = world.client();
    let outside = (0..40).map(|number| format!("payment-{number}")).find(|name| !quarter.contains(name)).unwrap();
    let token = client.token(&outside).await.unwrap();
    let issued = client.issue(&token, &json!({"target": "inventory_db"})).await.unwrap();
    assert_eq!(issued.status, 201, "{}", issued.text);
    let diff = &world.events("policy.shadow_diff")[0];
    assert_eq!((&diff["policy"], &diff["workload"]), (&json!("scripted"), &json!(outside)));
    assert_eq!(diff["error"], "would deny: closed");
    let counted = client.metric("jit_policy_shadow_diff_total", &["policy=\"scripted\""]).await.unwrap();
    assert!(counted >= 1.0);

    rewrite(&world, "percent = 25", "percent = 60");
    let more = reached(&world).await;
    assert!(more.is_superset(&quarter) && more.len() > quarter.len(), "{more:?}");
    rewrite(&world, "percent = 60", "match = { workload = \"payment-1*\" }");
    let matched = reached(&world).await;
    assert_eq!(matched.len(), 11, "payment-1 and payment-10 to 19: {matched:?}");
    rewrite(&world, "match = { workload = \"payment-1*\" }", "percent = 100");
    assert_eq!(reached(&world).await.len(), 40);
    // Back with one reload.
    rewrite(&world, "percent = 100", "percent = 0");
    assert!(reached(&world).await.is_empty());
}

#[tokio::test]
async fn a_simulation_is_for_one_issuer_that_there_is() {
    let rules = "[[policies.scripted.config.rules]]\ndeny = \"closed\"";
    let mut settings = scripted("", rules);
    settings.more.push_str(
        "\n[[identity.jwt]]\nname = \"cluster\"\nissuer = \"https://issuer.invalid\"\naudiences = [\"jit-broker\"]\n\
         workload = \"{sub}\"\nattributes = { team = \"team\" }\n",
    );
    let world = World::with(settings).await;
    let ask = |more: &[&str]| {
        let mut args = vec!["policy", "simulate", "--workload", "payment-1", "--target", "inventory_db"];
        args.extend(more);
        let told = world.cli(&args);
        let text = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
        (told.status.code(), text)
    };
    let (code, told) = ask(&[]);
    assert!(code == Some(1) && told.contains("cluster, dev"), "{told}");
    let (code, told) = ask(&["--issuer", "cluser"]);
    assert!(code == Some(1) && told.contains("did you mean `cluster`"), "{told}");
    let (code, told) = ask(&["--issuer", "cluster"]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.starts_with("payment-1 of issuer cluster asks"), "{told}");
    assert!(told.contains("not known") && told.contains("attribute team"), "{told}");
    let (code, told) = ask(&["--issuer", "cluster", "--attribute", "team=a"]);
    assert!(code == Some(3) && !told.contains("not known"), "{told}");
}

fn quota(rules: &str) -> Settings {
    let more = format!(
        "{}[policies.quota]\nplugin = \"quota\"\n[policies.quota.config]\n{rules}",
        plugin("quota", "policy-quota")
    );
    Settings { policies: vec!["allow".into(), "quota".into()], more, ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_moment_do_not_slip_through_a_quota() {
    let mut world = World::with(quota("limits = [{ per = \"workload_target\", leases = 5 }]")).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db", "ttl": "10m"});
    let asks = (0..40).map(|_| {
        let (client, token, body) = (client.clone(), token.clone(), body.clone());
        tokio::spawn(async move { client.issue(&token, &body).await.unwrap() })
    });
    let mut granted = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        let reply = ask.await.unwrap();
        match reply.status {
            201 => granted.push(reply),
            _ => {
                reply.assert_problem(403, "policy-denied");
                assert_eq!(reply.json["policy"], "quota", "{}", reply.text);
            }
        }
    }
    assert_eq!(granted.len(), 5, "as many as the quota, and no fewer");
    assert_eq!(world.accounts().await.len(), 5);
    let numbers: BTreeSet<u64> = world
        .events("issue.granted")
        .iter()
        .map(|record| record["input"]["facts"]["usage.workload_target.leases"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (1..=5).collect(), "each saw itself and those before it");

    // What one asks without getting anything counts nowhere; another workload has its own quota.
    let simulated = client.post("/v1/simulate", &token, &body).await.unwrap();
    assert_eq!(simulated.text_at("/decision"), "deny", "{}", simulated.text);
    let other = client.token("payment-worker").await.unwrap();
    assert_eq!(client.issue(&other, &body).await.unwrap().status, 201);
    let renewed = client.post(&format!("/v1/leases/{}/renew", granted[0].lease()), &token, &json!({})).await.unwrap();
    assert_eq!(renewed.status, 200, "a renewal makes no further lease: {}", renewed.text);

    // A lease that is over makes room for exactly one more, also after a restart.
    let revoked = client.post(&format!("/v1/leases/{}/revoke", granted[0].lease()), &token, &json!({})).await.unwrap();
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    world.process().kill().unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    client.issue(&token, &body).await.unwrap().assert_problem(403, "policy-denied");
    world.assert_log_is_intact();
}

#[tokio::test]
async fn requests_are_counted_within_their_window_over_restarts() {
    let mut world = World::with(quota("limits = [{ per = \"workload\", requests = { 1h = 3 } }]")).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let body = json!({"target": "inventory_db"});
    for _ in 0..2 {
        assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    }
    world.process().kill().unwrap();
    world.start(&[]).await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    assert_eq!(client.issue(&token, &body).await.unwrap().status, 201);
    let denied = client.issue(&token, &body).await.unwrap();
    denied.assert_problem(403, "policy-denied");
    assert_eq!(denied.json["policy"], "quota", "{}", denied.text);
    // The same answer again is no further request.
    let worker = client.token("payment-worker").await.unwrap();
    for _ in 0..5 {
        assert_eq!(client.issue_with_key(&worker, "k", &body).await.unwrap().status, 201);
    }
    let record = world.events("issue.granted");
    assert_eq!(record.last().unwrap()["input"]["facts"]["usage.workload.requests.3600"], "1");
}

#[tokio::test]
async fn an_operator_is_told_how_a_decision_comes_about() {
    let world = World::with(scripted(
        "",
        r#"
[[policies.scripted.config.rules]]
when = { attributes = { env = "prod" }, facts = { "edr.score" = "90" } }
max_ttl_seconds = 300
reason = "prod and healthy"
[[policies.scripted.config.rules]]
when = { operation = "renew", caller_address = "192.0.2.7", resource = { lease = "lease_01" } }
reason = "of that lease"
"#,
    ))
    .await;
    let before = world.audit().len();
    let ask = |more: &[&str]| {
        let mut args = vec!["policy", "simulate", "--workload", "payment-service", "--target", "inventory_db"];
        args.extend(more);
        world.cli(&args)
    };
    let allowed = ask(&["--attribute", "env=prod", "--fact", "edr.score=90", "--ttl", "1h"]);
    let text = String::from_utf8_lossy(&allowed.stdout).into_owned();
    assert_eq!(allowed.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&allowed.stderr));
    for line in [
        "env = prod",
        "edr.score = 90",
        "2. scripted: allow, prod and healthy; at most 5 min",
        "\n   decided by: operation, attribute env, fact edr.score\n",
        "ALLOWED: app_read_only for 5 min",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let denied = ask(&["--attribute", "env=dev", "--format", "json"]);
    assert_eq!(denied.status.code(), Some(3));
    let explained: Value = serde_json::from_slice(&denied.stdout).unwrap();
    assert_eq!((&explained["decision"], &explained["policy"]), (&json!("deny"), &json!("scripted")));
    assert_eq!(explained["policies"][1]["looked_at"], json!(["operation", "attribute env"]));
    // What only a real request has is named where a policy looks at it, and can be given.
    let renewal = ask(&["--renew", "--format", "json"]);
    assert_eq!(renewal.status.code(), Some(3));
    let explained: Value = serde_json::from_slice(&renewal.stdout).unwrap();
    assert!(explained["lacks"].to_string().contains("--caller-address"), "{explained}");
    let whole = ["--renew", "--caller-address", "192.0.2.7", "--resource", "lease=lease_01"];
    let told = ask(&whole);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(0), "{text}");
    assert!(text.contains("caller's address = 192.0.2.7") && text.contains("resource lease = lease_01"), "{text}");
    assert!(text.contains("decided by: operation, caller_address, attribute env, resource lease\n"), "{text}");
    let verifier = ask(&["--attribute", "env=prod", "--fact", "edr.score=90", "--credential", "verifier"]);
    let text = String::from_utf8_lossy(&verifier.stdout).into_owned();
    assert!(text.contains("resource credential = verifier\n  resource verifier = scram_sha_256"), "{text}");
    let other = ask(&["--credential", "ssha"]);
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("offers password, verifier (scram_sha_256"), "{said}");
    let odd = ask(&["--caller-address", "nowhere"]);
    assert_eq!(odd.status.code(), Some(2), "{}", String::from_utf8_lossy(&odd.stderr));
    let denied = ask(&["--attribute", "env=dev", "--format", "json"]);
    let explained: Value = serde_json::from_slice(&denied.stdout).unwrap();
    // Without a broker it is the same.
    let config = world.config_with_issuer();
    let offline = ask(&["--offline", config.to_str().unwrap(), "--attribute", "env=dev", "--format", "json"]);
    let again: Value = serde_json::from_slice(&offline.stdout).unwrap();
    assert_eq!(offline.status.code(), Some(3), "{}", String::from_utf8_lossy(&offline.stderr));
    assert_eq!(again["reason"], explained["reason"]);
    let unknown = world.cli(&["policy", "simulate", "--workload", "w", "--target", "payroll"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("payroll"));
    assert_eq!(world.audit().len(), before, "nothing follows from it");
}
