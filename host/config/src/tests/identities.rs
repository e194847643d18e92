//! docs/identities.md and the example: what they show for each issuer is a configuration that is accepted.

use super::super::EXAMPLE;
use super::parse;

/// The rest of a configuration.
const REST: &str = "[server]\nadmin_socket = \"a\"\n[store]\nurl = \"sqlite:b.db\"\n\
                    [audit]\nsigning_key = { file = \"k\" }\n";

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/identities.md")).unwrap()
}

#[test]
fn every_issuer_of_the_page_is_accepted_alone_and_beside_the_others() {
    let page = page();
    let tables: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(tables.len(), 7, "a section was added or lost");
    for table in &tables {
        let config = parse(&format!("{REST}{table}")).unwrap_or_else(|error| panic!("{}", error.render(false)));
        assert_eq!(config.identity.jwt.len(), 1, "{table}");
        assert!(config.warnings.iter().all(|warning| !warning.message.contains("workload")), "{table}");
    }
    let all = parse(&format!("{REST}{}", tables.concat())).unwrap_or_else(|error| panic!("{}", error.render(false)));
    assert_eq!(all.identity.jwt.len(), tables.len());
}

#[test]
fn the_issuer_that_the_example_has_commented_out_is_accepted() {
    let lines = EXAMPLE.lines().skip_while(|line| !line.starts_with("# [[identity.jwt]]"));
    let table: Vec<&str> = lines.map_while(|line| line.strip_prefix("# ")).collect();
    let config =
        parse(&format!("{REST}{}", table.join("\n"))).unwrap_or_else(|error| panic!("{}", error.render(false)));
    assert_eq!(config.identity.jwt[0].name, "github");
    assert_eq!(config.identity.jwt[0].attributes.len(), 3);
}
