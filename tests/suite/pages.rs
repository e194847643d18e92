//! Command blocks of docs/ that no other module runs, to the letter.

use std::path::{Path, PathBuf};

use jit_tests::page::{commands, run};
use jit_tests::setup;
use jit_tests::{Issuer, Key, Settings, World, surroundings};
use serde_json::json;

fn component(name: &str) -> PathBuf {
    Path::new(&surroundings("JIT_TEST_PLUGINS")).join(format!("{name}.wasm"))
}

/// A broker without a backend, whose chain has a policy `business-hours`.
async fn office() -> World {
    let plugin = |name: &str, file: &str| format!("[plugins.{name}]\npath = {:?}\n", component(file));
    let more = format!(
        "{}{}[policies.business-hours]\nplugin = \"scripted\"\n[[policies.business-hours.config.rules]]\n\
         [targets.nothing]\ndriver = \"noop\"\npolicies = [\"business-hours\"]\ndefault_ttl = \"1h\"\nmax_ttl = \"8h\"\n\
         default_role = \"reader\"\n[targets.nothing.roles.reader]\n",
        plugin("noop", "driver-noop"),
        plugin("scripted", "policy-scripted"),
    );
    let world = World::with(Settings { more, ..Settings::default() }).await;
    let client = world.client();
    for workload in ["payment-service", "reporting"] {
        let token = client.token(workload).await.unwrap();
        let reply = client.issue(&token, &json!({"target": "nothing"})).await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    world
}

#[tokio::test]
async fn the_commands_of_the_audit_log_and_of_a_replay() {
    let world = office().await;
    // Not the broker's own folder, which has an audit.jsonl.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let config = world.config().display().to_string();
    let env = [("JIT_CONFIG", config.as_str())];

    let audit = commands("docs/operating.md", "pages").into_iter().find(|block| block.contains("audit show")).unwrap();
    let (code, said) = run(folder, &audit, &env);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("\"event\":\"issue.granted\"") || said.contains("\"event\": \"issue.granted\""), "{said}");
    assert!(folder.join("audit.jsonl").is_file());

    std::fs::copy(component("policy-scripted"), folder.join("new.wasm")).unwrap();
    std::fs::write(
        folder.join("new.toml"),
        "[[rules]]\nwhen = { workload = \"reporting\" }\ndeny = \"closed\"\n[[rules]]\n",
    )
    .unwrap();
    let replays = commands("docs/policies-replay.md", "pages");
    let lines: Vec<&str> = replays[0].lines().collect();
    assert!(lines.len() >= 3, "{lines:?}");
    for line in lines {
        let (code, said) = run(folder, line, &env);
        assert_eq!(code, 3, "{line}: `reporting` flips: {said}");
        assert!(said.contains("closed"), "{line}: {said}");
    }
    let (code, said) = run(world.folder.path(), &replays[1], &[]);
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn the_commands_that_sign_a_plugin_here_and_in_ci() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(component("policy-allow"), folder.path().join("my-rule.wasm")).unwrap();
    let page = commands("docs/plugins-signing.md", "pages");
    let (code, said) = run(folder.path(), &page[0], &[]);
    assert_eq!(code, 0, "{said}");

    // A plugin's own source tree, as CI checks it out: the one of languages.rs, so that it is compiled once.
    let (code, said) = run(folder.path(), "jit-broker plugin new policy office-rule --lang python", &[]);
    assert_eq!(code, 0, "{said}");
    let key = std::fs::read_to_string(folder.path().join("security-team.key")).unwrap();
    let project = folder.path().join("office-rule");
    let (code, said) = run(&project, &page[1], &[("PLUGIN_SIGNING_KEY", key.trim_end())]);
    assert_eq!(code, 0, "{said}");
    assert!(!project.join("signing.key").exists());
    let verify = "jit-broker plugin verify dist/*.wasm --key ../security-team.pub";
    let (code, said) = run(&project, verify, &[]);
    assert_eq!(code, 0, "{said}");
}

/// The driver's page, as an administrator of OpenBao types it; then a token of that platform logs in.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_that_let_the_broker_log_in_to_openbao() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("setup.hcl"), setup::file("driver-vault", "setup.hcl")).unwrap();
    let key = Key::generate("platform").unwrap();
    let issuer = Issuer::start(&[&key]).await.unwrap();
    let page = commands("docs/drivers/vault.md", "pages").remove(0).replace("https://issuer.example", &issuer.url);
    let mut claims = issuer.claims("jit-broker");
    claims["aud"] = json!(["vault"]);
    let token = key.token(&claims).unwrap();
    claims["sub"] = json!("another-service");
    let foreign = key.token(&claims).unwrap();
    let binary = surroundings("JIT_TEST_OPENBAO_BINARY");
    let bao = |commands: &str| {
        let (address, root, authority) = (
            surroundings("JIT_TEST_OPENBAO"),
            surroundings("JIT_TEST_OPENBAO_TOKEN"),
            surroundings("JIT_TEST_OPENBAO_CA"),
        );
        let env = [("BAO_ADDR", &*address), ("BAO_TOKEN", &*root), ("BAO_CACERT", &*authority)];
        run(folder.path(), &format!("bao() {{ {binary} \"$@\"; }}\n{commands}"), &env)
    };
    let (code, said) = bao(&page);
    assert_eq!(code, 0, "{said}");
    let login =
        |token: &str| bao(&format!("bao write -field=token_policies auth/jwt/login role=jit-broker jwt={token}"));
    let (code, said) = login(&token);
    assert_eq!((code, said.trim()), (0, "[jit-broker]"), "{said}");
    let (code, said) = login(&foreign);
    assert_ne!(code, 0, "{said}");
}
