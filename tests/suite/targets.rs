//! The list of what a caller may ask for: all of it, and nothing that shows more.

use jit_tests::{Settings, World};
use serde_json::Value;

/// A world with a target whose roles are not all for the payment service, and one that is not for it at all.
async fn world() -> World {
    let mut world = World::prepared(Settings::default()).await;
    let read_only = &world.database.read_only;
    let target = |name: &str, policy: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| format!("[targets.{name}.roles.{role}]\ngrants = [\"{read_only}\"]\n"));
        format!(
            "[targets.{name}]\ndriver = \"postgres\"\nconnection = \"inventory\"\npolicies = [\"{policy}\"]\n\
             default_ttl = \"1h\"\nmax_ttl = \"2h\"\n{}",
            roles.collect::<String>()
        )
    };
    let more = format!(
        "[policies.readers]\nplugin = \"allow-list\"\n\
         config = {{ rules = [{{ workload = \"payment-*\", target = \"analytics\", roles = [\"reader\"] }}] }}\n\
         [policies.reports]\nplugin = \"allow-list\"\n\
         config = {{ rules = [{{ workload = \"reporting\", target = \"crown_jewels\", roles = [\"*\"] }}] }}\n{}{}[limits]\n",
        target("analytics", "readers", &["reader", "writer"]),
        target("crown_jewels", "reports", &["keeper"]),
    );
    world.rewrite("[limits]\n", &more);
    world.start(&[]).await;
    world
}

fn places(page: &Value) -> Vec<String> {
    let text = |view: &Value, key: &str| view[key].as_str().unwrap().to_owned();
    let views = page["targets"].as_array().unwrap().iter();
    views.map(|view| format!("{}/{}", text(view, "target"), text(view, "role"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_has_what_a_caller_may_ask_for_and_shows_nothing_else() {
    let world = world().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let before = world.audit().len();
    let all = client.get("/v1/targets", &token).await.unwrap();
    assert_eq!(all.status, 200, "{}", all.text);
    let mine = ["analytics/reader", "inventory_db/app_read_only", "inventory_db/app_read_write"];
    assert_eq!(places(&all.json), mine);
    assert_eq!(all.json["next_cursor"], Value::Null);
    assert!(!all.text.contains("crown") && !all.text.contains("writer\""), "{}", all.text);
    for view in all.json["targets"].as_array().unwrap() {
        let path = format!("/v1/targets/{}?role={}", view["target"].as_str().unwrap(), view["role"].as_str().unwrap());
        assert_eq!(client.get(&path, &token).await.unwrap().json, *view, "what is asked of the one target");
    }
    let keepers = client.token("reporting").await.unwrap();
    assert_eq!(places(&client.get("/v1/targets", &keepers).await.unwrap().json), ["crown_jewels/keeper"]);
    let stranger = client.token("somebody").await.unwrap();
    let nothing = client.get("/v1/targets", &stranger).await.unwrap();
    assert_eq!((nothing.status, nothing.text.as_str()), (200, r#"{"targets":[],"next_cursor":null}"#));
    let readers = client.get("/v1/targets?role=reader", &token).await.unwrap();
    assert_eq!(places(&readers.json), ["analytics/reader"]);
    assert_eq!(world.audit().len(), before, "nothing was asked for");
    assert!(world.leases().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_pages_are_bounded_and_their_places_name_nothing_hidden() {
    let world = world().await;
    let client = world.client();
    let token = client.token("payment-service").await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..5 {
        let page = client.get(&format!("/v1/targets?limit=1{cursor}"), &token).await.unwrap();
        assert!(!page.text.contains("crown") && page.json["targets"].as_array().unwrap().len() <= 1, "{}", page.text);
        seen.extend(places(&page.json));
        match page.json["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(seen, ["analytics/reader", "inventory_db/app_read_only", "inventory_db/app_read_write"]);
    // Whoever guesses a place learns no more from one that there is than from one that there is not.
    let hidden = client.get("/v1/targets?cursor=crown_jewels%2Fkeeper", &token).await.unwrap();
    let nowhere = client.get("/v1/targets?cursor=crown_jewelz%2Fkeeper", &token).await.unwrap();
    assert_eq!((hidden.status, &hidden.text), (200, &nowhere.text));
    for wrong in ["limit=0", "limit=101", "limit=-1", "cursor=inventory_db", "cursor=%2F", "role=%20", "ttl=0", "all=1"]
    {
        let refused = client.get(&format!("/v1/targets?{wrong}"), &token).await.unwrap();
        refused.assert_problem(400, "invalid-request");
        assert!(!refused.text.contains("crown"), "{wrong}: {}", refused.text);
    }
    client.get("/v1/targets", "a.b.c").await.unwrap().assert_problem(401, "unauthenticated");
}
