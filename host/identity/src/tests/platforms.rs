//! docs/identities.md: a token as each platform issues it names the workload that the page says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::issuer::{Issuer, Key, bearer, config, identity, options, try_identity};
use crate::{IdentityOptions, JwtIssuerConfig, KeyUrl};

/// What of the page's tables is needed here; the reader of configurations has a test of its own.
#[derive(Deserialize)]
struct Table {
    name: String,
    issuer: String,
    audiences: Vec<String>,
    workload: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Page {
    identity: BTreeMap<String, Vec<Table>>,
}

/// A section: its issuer, its token's claims, and how the broker calls the holder.
struct Platform {
    table: Table,
    claims: Value,
    principal: String,
}

fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    text.split_once(from)?.1.split_once(to).map(|(inner, _)| inner)
}

fn platforms() -> Vec<Platform> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/identities.md");
    let page = std::fs::read_to_string(file).unwrap();
    let sections = page.split("\n## ").filter(|section| section.contains("```toml"));
    let platform = |section: &str| {
        let mut read: Page = toml::from_str(between(section, "```toml\n", "```").unwrap()).unwrap();
        Platform {
            table: read.identity.remove("jwt").unwrap().remove(0),
            claims: serde_json::from_str(between(section, "```json\n", "```").unwrap()).unwrap(),
            principal: between(section, "The broker calls it `", "`").unwrap().to_owned(),
        }
    };
    sections.map(platform).collect()
}

impl Platform {
    fn entry(&self) -> JwtIssuerConfig {
        let Table { name, issuer, audiences, workload, attributes } = &self.table;
        let mut entry = config(name, issuer, "replaced", workload);
        entry.audiences.clone_from(audiences);
        entry.attributes = attributes.iter().map(|(name, path)| (name.clone(), path.parse().unwrap())).collect();
        entry
    }
}

#[tokio::test]
async fn a_token_of_each_platform_names_the_workload_that_the_page_says() {
    // What all of them sign with by default.
    let keys = Issuer::start_with(Key::new("k1", "RS256")).await;
    let platforms = platforms();
    assert_eq!(platforms.len(), 7, "a section was added or lost");
    for platform in &platforms {
        let mut entry = platform.entry();
        entry.jwks_url = Some(KeyUrl::parse(&format!("{}/keys", keys.url())).unwrap());
        let identity = identity(vec![entry], &options());
        let now = Timestamp::now().as_second();
        let mut claims = platform.claims.clone();
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        let verified = identity.verify(bearer(&keys.key.token(&claims))).await.unwrap();
        let name = &platform.table.name;
        assert_eq!(verified.principal.to_string(), platform.principal, "{name}");
        assert_eq!(verified.principal.subject, claims["sub"].as_str().unwrap(), "{name}");
        // Each claim that the table names is in the token.
        let known: Vec<&String> = verified.attributes.keys().collect();
        assert_eq!(known, platform.table.attributes.keys().collect::<Vec<_>>(), "{name}");
        // A token for somebody else is refused, whatever else it says.
        claims["aud"] = json!("https://sts.example.com");
        assert!(identity.verify(bearer(&keys.key.token(&claims))).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_broker_serves_all_of_them_together() {
    let entries = platforms().iter().map(Platform::entry).collect();
    assert!(try_identity(entries, &IdentityOptions::default()).is_ok());
}
