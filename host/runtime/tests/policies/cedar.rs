//! What policies in Cedar see, decide and refuse.

use super::*;

/// Cedar's policies in that text, on a component that was loaded.
struct Cedar(PolicyPlugin);

impl Cedar {
    fn load(bench: &Bench) -> Self {
        Self(bench.policy("policy-cedar"))
    }

    fn decide(&self, config: &Value, request: &PolicyRequest) -> Result<Verdict, Fault> {
        let config = config.to_string();
        self.0.validate(&config).unwrap_or_else(|error| panic!("{config}: {error}"));
        self.0.decide(&config, request)
    }

    fn allowed(&self, policies: &str, request: &PolicyRequest) -> Allowance {
        match self.decide(&json!({ "policies": policies }), request).unwrap() {
            Verdict::Allow(allowance) => allowance,
            Verdict::Deny(reason) => panic!("{reason}"),
        }
    }

    fn denied(&self, policies: &str, request: &PolicyRequest) -> String {
        self.denied_by(&json!({ "policies": policies }), request)
    }

    fn denied_by(&self, config: &Value, request: &PolicyRequest) -> String {
        match self.decide(config, request).unwrap() {
            Verdict::Deny(reason) => reason,
            Verdict::Allow(allowance) => panic!("{allowance:?}"),
        }
    }

    /// The mistakes in a configuration, each with its path and message.
    fn mistakes(&self, config: &Value) -> Vec<(String, String)> {
        match self.0.validate(&config.to_string()) {
            Err(ConfigFault::Invalid(problems)) => {
                problems.into_iter().map(|problem| (problem.path, problem.message)).collect()
            }
            other => panic!("{config}: {other:?}"),
        }
    }
}

#[test]
fn cedar_sees_the_whole_request() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let whole = PolicyRequest {
        time: 1_800_000_000, // Friday 2027-01-15 08:00 UTC
        ticket: Some("OPS-42".to_owned()),
        facts: BTreeMap::from([("posture.score".to_owned(), "87".to_owned())]),
        resource: about_credential(Some(VerifierKind::ScramSha256)),
        ..request()
    };
    for condition in [
        r#"context.credential == "verifier""#,
        r#"context has verifier && context.verifier == "scram_sha_256""#,
        r#"principal == Workload::"payment-service""#,
        r#"principal in Issuer::"cluster""#,
        r#"principal.name == "payment-service" && principal.issuer == "cluster""#,
        r#"principal.hasTag("env") && principal.getTag("env") == "prod""#,
        r#"resource == Role::"inventory_db/app_read_only""#,
        r#"resource in Target::"inventory_db""#,
        r#"resource.name == "app_read_only" && resource.target.name == "inventory_db""#,
        r#"action == Action::"issue""#,
        "context.time == 1800000000 && context.hour == 8 && context.minute == 0",
        r#"context.weekday == "fri" && context.now < datetime("2027-01-15T08:00:01Z")"#,
        r#"context.now >= datetime("2027-01-15T08:00:00Z")"#,
        "context.ttl == 3600",
        r#"context has reason && context.reason like "nightly*""#,
        r#"context has ticket && context.ticket like "OPS-*""#,
        r#"context.metadata.hasTag("pod") && context.metadata.getTag("pod") == "payment-1""#,
        r#"context.facts.hasTag("posture.score") && context.facts.getTag("posture.score") == "87""#,
        r#"context.numbers.hasTag("posture.score") && context.numbers.getTag("posture.score") >= 80"#,
    ] {
        let policy = format!("permit (principal, action, resource) when {{ {condition} }};");
        cedar.allowed(&policy, &whole);
        let contrary = format!("permit (principal, action, resource) unless {{ {condition} }};");
        let reason = cedar.denied(&contrary, &whole);
        assert_eq!(
            reason,
            "no Cedar policy permits workload `payment-service` to `issue` role `app_read_only` of target \
             `inventory_db`"
        );
    }
    // Only callers that make their own passwords; a record of an earlier release does not say who made it.
    let blind = r#"permit (principal, action, resource) when { context.credential == "verifier" };
                   forbid (principal, action, resource) when { context.credential == "password" };"#;
    cedar.allowed(blind, &whole);
    for resource in [about_credential(None), BTreeMap::new()] {
        assert!(cedar.denied(blind, &PolicyRequest { resource, ..request() }).contains("forbidden by Cedar policy"));
    }
    // The last second of a leap day.
    let leap = PolicyRequest { time: 1_835_481_599, ..request() };
    cedar.allowed(
        r#"permit (principal, action, resource) when {
               context.now == datetime("2028-02-29T23:59:59Z") && context.weekday == "tue" && context.minute == 59 };"#,
        &leap,
    );
    // A fact that is no whole number is none of the numbers.
    for text in ["8.5", "+8", "", "eight", "9223372036854775808"] {
        let odd = PolicyRequest {
            facts: BTreeMap::from([("n".to_owned(), text.to_owned())]),
            operation: Operation::Renew,
            ..request()
        };
        cedar.allowed(
            r#"permit (principal, action == Action::"renew", resource)
               when { context.facts.hasTag("n") && !context.numbers.hasTag("n") };"#,
            &odd,
        );
    }
}

#[test]
fn cedar_names_the_policies_that_decided_and_honours_their_obligations() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let policies = r#"
        @id("payments") @max_ttl("30m") @require("ticket, reason")
        permit (principal == Workload::"payment-service", action, resource);

        @max_ttl("10m")
        permit (principal, action, resource in Target::"inventory_db");

        @id("elsewhere") @require("approval")
        permit (principal, action, resource in Target::"crown_jewels");

        @id("no-owners") @advice("ask the database team")
        forbid (principal, action, resource) when { resource.name == "owner" };
    "#;
    let allowance = cedar.allowed(policies, &request());
    assert_eq!(allowance.reason, "permitted by Cedar policy `payments`, `policy1`");
    assert_eq!(allowance.max_ttl.map(|ttl| ttl.seconds()), Some(600));
    assert_eq!(allowance.requires, [Requirement::Reason, Requirement::Ticket]);
    assert_eq!(allowance.labels["cedar_policies"], "payments, policy1");

    let owner = PolicyRequest { role: "owner".to_owned(), ..request() };
    assert_eq!(cedar.denied(policies, &owner), "forbidden by Cedar policy `no-owners`; ask the database team");

    let narrower = r#"@role("app_read_only") permit (principal, action, resource);"#;
    assert_eq!(cedar.allowed(narrower, &owner).role.unwrap().as_str(), "app_read_only");
    let two = format!(r#"{narrower} @role("other") permit (principal, action, resource);"#);
    assert!(cedar.denied(&two, &owner).contains("one gives role `app_read_only` and another `other`"));
}

/// Cedar leaves out a policy that it cannot evaluate: a forbid would then be a yes.
#[test]
fn a_cedar_policy_that_cannot_be_evaluated_denies() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let policies = r#"
        @id("all") permit (principal, action, resource);
        @id("sums") forbid (principal, action, resource) when { context.ttl + 9223372036854775807 > 0 };
    "#;
    let reason = cedar.denied(policies, &request());
    assert!(reason.starts_with("a Cedar policy cannot be evaluated, so it denies: "), "{reason}");
    let late = PolicyRequest { time: u64::MAX, ..request() };
    let hourly = "permit (principal, action, resource) when { context.hour < 24 };";
    assert!(cedar.denied(hourly, &late).contains("none that a calendar has"));
    // A policy that does not look at the time is the same at any.
    cedar.allowed("permit (principal, action, resource);", &late);
}

#[test]
fn cedar_hierarchies_and_schemas_are_the_configurations() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let group = |id: &str| json!({"type": "Group", "id": id});
    let config = json!({
        "policies": r#"permit (principal in Group::"shop", action, resource in Group::"inventory");"#,
        "entities": [
            {"uid": {"type": "Workload", "id": "payment-service"}, "parents": [group("payments")]},
            {"uid": group("payments"), "parents": [group("shop")]},
            {"uid": {"type": "Target", "id": "inventory_db"}, "parents": [group("inventory")]},
        ],
    });
    assert!(matches!(cedar.decide(&config, &request()), Ok(Verdict::Allow(_))));
    cedar.denied_by(&config, &PolicyRequest { workload: "other".to_owned(), ..request() });
    cedar.denied_by(&config, &PolicyRequest { target: "other".to_owned(), ..request() });

    // A schema of one's own may give targets an attribute.
    let page = page("policy-cedar");
    let schema = include_str!("../../../../plugins/policy-cedar/src/schema.cedarschema");
    let schema = schema.replace("in [Group] = { name: String };", "in [Group] = { name: String, tier?: Long };");
    let config = json!({
        "policies": "permit (principal, action, resource) when { resource.target has tier && resource.target.tier < 2 };",
        "schema": schema,
        "entities": [{"uid": {"type": "Target", "id": "inventory_db"}, "attrs": {"tier": 1}}],
    });
    assert!(page.contains("schema.cedarschema"));
    assert!(matches!(cedar.decide(&config, &request()), Ok(Verdict::Allow(_))));
    cedar.denied_by(&config, &PolicyRequest { target: "other".to_owned(), ..request() });
}

#[test]
fn cedar_mistakes_are_told_at_load_with_their_place() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let policies = |text: &str| json!({ "policies": text });
    let all = "permit (principal, action, resource);";
    let entity = |uid: Value| json!({"policies": all, "entities": [uid]});
    for (config, path, words) in [
        (json!({}), "", &["`policies` is missing"][..]),
        (policies(""), "policies", &["permits nothing"]),
        (policies("permit (principal, action, resource)\nwhen { true }"), "policies", &["line 2, column 14"]),
        (policies("allow (principal, action, resource);"), "policies", &["line 1, column 1", "permit"]),
        (
            policies("permit (principal, action, resource)\nwhen {\n  principal.nam == \"x\" };"),
            "policies",
            &["line 3", "nam"],
        ),
        (policies("permit (principal, action, resource) when { context.ttl == \"1h\" };"), "policies", &["line 1"]),
        (policies("permit (principal == User::\"x\", action, resource);"), "policies", &["User"]),
        (policies("permit (principal, action == Action::\"isue\", resource);"), "policies", &["isue", "issue"]),
        // A tag that may not be there.
        (
            policies("permit (principal, action, resource) when { principal.getTag(\"env\") == \"prod\" };"),
            "policies",
            &["env"],
        ),
        // It can never hold.
        (policies("permit (principal, action, resource) when { 1 == 2 };"), "policies", &["line 1"]),
        (policies("permit (principal == ?principal, action, resource);"), "policies", &["template"]),
        (policies("forbid (principal, action, resource);"), "policies", &["permits nothing"]),
        (policies("@requires(\"ticket\") permit (principal, action, resource);"), "policies", &["@require"]),
        (policies("@require(\"tickets\") permit (principal, action, resource);"), "policies", &["`ticket`"]),
        (policies("@max_ttl(\"soon\") permit (principal, action, resource);"), "policies", &["`30m`"]),
        (policies("@role(\"a b\") permit (principal, action, resource);"), "policies", &["no role's name"]),
        (
            policies(&format!(
                "{all} @max_ttl(\"1h\") forbid (principal, action, resource) when {{ context.ttl > 5 }};"
            )),
            "policies",
            &["condition of nothing"],
        ),
        (policies(&format!("@id(\"a\") {all} @id(\"a\") {all}")), "policies", &["two policies"]),
        (policies(&" ".repeat(70_000)), "policies", &["longer than"]),
        (json!({"policies": all, "schema": "entity Workload"}), "schema", &["line 1, column 16"]),
        (json!({"policies": all, "schema": "entity Workload;"}), "policies", &[]),
        (json!({"policies": all, "polices": ""}), "polices", &["write `policies`"]),
        (entity(json!({"uid": {"type": "Team", "id": "x"}})), "entities", &["Team"]),
        (entity(json!({"uid": "x"})), "entities[0]", &[]),
        (entity(json!({"uid": {"type": "Facts", "id": "x"}})), "entities[0]", &["leave it out"]),
        (
            entity(json!({"uid": {"type": "Workload", "id": "x"}, "attrs": {"name": "y"}})),
            "entities[0]",
            &["parents only"],
        ),
        (entity(json!({"uid": {"type": "Target", "id": "x"}, "attrs": {"tier": 1}})), "entities", &["tier"]),
    ] {
        let mistakes = cedar.mistakes(&config);
        let (found, message) = &mistakes[0];
        assert_eq!(found, path, "{config} {mistakes:?}");
        for word in words {
            assert!(message.contains(word), "{config} {mistakes:?}");
        }
        assert!(mistakes.iter().all(|(_, message)| !message.contains(char::is_control)), "{mistakes:?}");
    }
}

#[test]
fn hostile_strings_are_names_to_cedar_and_tame_in_its_reasons() {
    let bench = bench();
    let cedar = Cedar::load(bench);
    let policies = r#"permit (principal == Workload::"payment-service", action, resource);"#;
    let long = "x".repeat(100_000);
    for hostile in
        ["", "payment-service\0", "\" || true || \"", "Workload::\"payment-service\"", "a\nb", "\u{202e}", "*", &long]
    {
        let named = PolicyRequest {
            workload: hostile.to_owned(),
            issuer: hostile.to_owned(),
            attributes: BTreeMap::from([(hostile.to_owned(), hostile.to_owned())]),
            facts: BTreeMap::from([(hostile.to_owned(), hostile.to_owned())]),
            reason: Some(hostile.to_owned()),
            ..request()
        };
        let reason = cedar.denied(policies, &named);
        assert!(reason.len() < 2_000 && !reason.contains(char::is_control), "{reason:?}");
        assert!(!reason.contains('\u{202e}'), "{reason:?}");
    }
}
