//! The agent in trouble: no broker, no token, no room. The old file stays, somebody is told, and it recovers by
//! itself.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use jit_tests::agent::{names, variable};
use jit_tests::world::eventually;
use jit_tests::{AgentProcess, Way};

use crate::agent::{Stage, health};

fn account(file: &str) -> String {
    variable(Path::new(file), "DB_USERNAME").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_at_the_start_ends_it_with_a_clear_error() {
    let stage = Stage::new().await;
    stage.relay.go(Way::Shut);
    let out = stage.path("db.env");
    let fetched = stage.agents.run(&["fetch", "--target", "inventory_db", "--out", &out, "--patience", "3s"]);
    let told = String::from_utf8_lossy(&fetched.stderr);
    assert_eq!(fetched.status.code(), Some(5), "{told}");
    assert!(
        told.contains("gave up after") && told.contains(&stage.relay.url) && told.contains("does not answer"),
        "{told}"
    );
    assert_eq!(names(&stage.folder), Vec::<String>::new());
    assert!(stage.world.leases().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_retry_betters_ends_it_at_once() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    let run = |target: &str, more: &[(&str, &str)]| {
        let mut command = stage.agents.command(&["fetch", "--target", target, "--out", &out]);
        let output = command.envs(more.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, told) = run("no_such_db", &[]);
    assert!(code == Some(4) && told.contains("unknown-target"), "{told}");
    let (code, told) = run("inventory_db", &[("JIT_TOKEN_FILE", "/no/such/token")]);
    assert!(code == Some(3) && told.contains("cannot read the token file /no/such/token"), "{told}");
    let (code, told) = run("inventory_db", &[("JIT_BROKER_URL", "http://broker.example.com")]);
    assert!(code == Some(3) && told.contains("in clear"), "{told}");
    let (code, told) = run("inventory_db", &[("JIT_OUT", "")]);
    assert_eq!(code, Some(0), "an option goes before its variable: {told}");
    let missing = stage.path("missing/db.env");
    let missing = stage.agents.run(&["fetch", "--target", "inventory_db", "--out", &missing]);
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(missing.status.code() == Some(6) && told.contains("missing is not there"), "{told}");
    assert_eq!(stage.world.leases().len(), 1, "nothing was asked for that could not be written");
    let renewed = stage.agents.run(&["renew", "--out", &stage.path("other.env")]);
    let told = String::from_utf8_lossy(&renewed.stderr);
    assert!(renewed.status.code() == Some(3) && told.contains("fetch --target TARGET --out"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_past_the_expiry_is_told_and_come_back_to() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &["--ttl", "5s"]);
    let first = account(&out);
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--health", "127.0.0.1:0", "--revoke-on-exit"]);
    eventually("it is ready", async || health(&agent, "/readyz").await.0 == 200).await;
    stage.relay.go(Way::Shut);
    eventually("it is over", async || health(&agent, "/readyz").await == (503, "inventory_db: expired\n".to_owned()))
        .await;
    let log = agent.log();
    assert!(log.contains("jit-broker-unreachable") && log.contains("jit-credential-expired"), "{log}");
    assert_eq!(health(&agent, "/livez").await.0, 200, "starting it again would help nobody");
    assert_eq!(account(&out), first, "the old file stays");
    stage.relay.go(Way::Open);
    let second = stage.account_after(&out, &first).await;
    eventually("it is ready again", async || health(&agent, "/readyz").await.0 == 200).await;
    assert!(stage.is_good(&out).await && second != first);
    assert!(agent.log().contains("jit-broker-recovered"));
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_when_the_sidecar_starts_does_not_cost_the_lease() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &["--ttl", "10s"]);
    let first = account(&out);
    stage.relay.go(Way::Shut);
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--revoke-on-exit"]);
    eventually("it goes by what was left", async || agent.log().contains("took the lease over")).await;
    stage.relay.go(Way::Open);
    eventually("it is renewed", async || !stage.world.events("lease.renewed").is_empty()).await;
    assert_eq!(account(&out), first);
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_output_folder_that_is_removed_and_comes_back() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &[]);
    let first = account(&out);
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--health", "127.0.0.1:0", "--revoke-on-exit"]);
    eventually("it is ready", async || health(&agent, "/readyz").await.0 == 200).await;
    std::fs::remove_dir_all(&stage.folder).unwrap();
    agent.signal("USR1");
    eventually("it tells", async || agent.log().contains("is not there; trying again")).await;
    assert_eq!(health(&agent, "/readyz").await, (503, "inventory_db: the file is not up to date\n".to_owned()));
    std::fs::create_dir(&stage.folder).unwrap();
    stage.account_after(&out, &first).await;
    eventually("it is ready again", async || health(&agent, "/readyz").await.0 == 200).await;
    assert!(stage.is_good(&out).await);
    assert!(agent.stop().success());
    stage.nothing_is_left().await;
}

/// A quota of no bytes for the agent's files is what a full disk is: writes fail, everything else works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_the_old_file_and_is_written_to_once_there_is_room() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &[]);
    let (first, text) = (account(&out), std::fs::read_to_string(&out).unwrap());
    // The signal of the quota is ignored, as a full disk has none; the hard limit stays, so that it can be raised.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -S -f 0; exec \"$@\"", "sh", &jit_tests::surroundings("JIT_TEST_AGENT")]);
    let command = stage.agents.become_by(shell, &["renew", "--out", &out, "--revoke-on-exit"]);
    let mut agent = AgentProcess::start(command).unwrap();
    eventually("it is at work", async || agent.log().contains("took the lease over")).await;
    agent.signal("USR1");
    eventually("it tells, again and again", async || agent.log().matches("the old file stays").count() >= 2).await;
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text, "untouched");
    assert!(stage.is_good(&out).await);
    assert_eq!(names(&stage.folder), [".db.env.jit-agent.json", "db.env"], "nothing half-written is left");
    let room =
        Command::new("prlimit").args(["--pid", &agent.pid().to_string(), "--fsize=unlimited:"]).status().unwrap();
    assert!(room.success());
    stage.account_after(&out, &first).await;
    assert!(stage.is_good(&out).await);
    assert!(agent.stop().success());
    eventually("the new account is given back", async || stage.world.accounts().await.len() <= 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_to() {
    let stage = Stage::new().await;
    let out = stage.path("db.env");
    stage.fetch(&out, &[]);
    let first = account(&out);
    let only_read = std::fs::Permissions::from_mode(0o500);
    std::fs::set_permissions(&stage.folder, only_read).unwrap();
    if std::fs::write(stage.folder.join("probe"), "").is_ok() {
        // Root may write anywhere: nothing to see here for it.
        std::fs::remove_file(stage.folder.join("probe")).unwrap();
        return;
    }
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--revoke-on-exit"]);
    eventually("it is at work", async || agent.log().contains("took the lease over")).await;
    agent.signal("USR1");
    eventually("it tells", async || agent.log().contains("Permission denied")).await;
    assert_eq!(account(&out), first);
    std::fs::set_permissions(&stage.folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    stage.account_after(&out, &first).await;
    assert!(agent.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_believed_leads_to_a_new_account() {
    let stage = Stage::new().await;
    let (out, state) = (stage.path("db.env"), stage.path(".db.env.jit-agent.json"));
    let settled = "\"settled\": true";
    for harm in ["unsettled", "no file", "over", "another's"] {
        stage.fetch(&out, &[]);
        let first = account(&out);
        let text = std::fs::read_to_string(&state).unwrap();
        assert!(text.contains(settled), "{text}");
        match harm {
            // As an agent leaves it that is killed between the state and the file.
            "unsettled" => std::fs::write(&state, text.replace(settled, "\"settled\": false")).unwrap(),
            "no file" => std::fs::remove_file(&out).unwrap(),
            "over" => {
                let client = stage.world.client();
                let token = std::fs::read_to_string(&stage.agents.token).unwrap();
                let lease = serde_json::from_str::<serde_json::Value>(&text).unwrap()["lease"]["lease_id"].clone();
                let path = format!("/v1/leases/{}/revoke", lease.as_str().unwrap());
                assert_eq!(client.post(&path, &token, &serde_json::json!({})).await.unwrap().status, 200);
            }
            _ => {
                let other = serde_json::from_str::<serde_json::Value>(&text).unwrap()["lease"]["lease_id"].clone();
                let other = other.as_str().unwrap().to_owned();
                std::fs::write(&state, text.replace(&other, "lease_01jd3x7k2m9v5q8w4r6t0y1z3b")).unwrap();
            }
        }
        let mut agent = stage.agents.start(&["renew", "--out", &out, "--revoke-on-exit"]);
        stage.account_after(&out, &first).await;
        assert!(stage.is_good(&out).await, "{harm}");
        assert!(agent.stop().success());
    }
    std::fs::write(&state, "{").unwrap();
    let told = stage.agents.run(&["renew", "--out", &out]);
    assert_eq!(told.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&told.stderr).contains("Remove it and fetch again"));
}

/// What others may have put there is no state: it is said, and not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_others_may_have_written_is_ignored() {
    let stage = Stage::new().await;
    let (out, state) = (stage.path("db.env"), stage.path(".db.env.jit-agent.json"));
    stage.fetch(&out, &[]);
    let first = account(&out);
    let text = std::fs::read_to_string(&state).unwrap();
    for (harm, told) in
        [("pipe", "it is a pipe"), ("link", "it is a symbolic link"), ("open", "others may write to it")]
    {
        std::fs::remove_file(&state).unwrap();
        match harm {
            "pipe" => assert!(Command::new("mkfifo").arg(&state).status().unwrap().success()),
            "link" => {
                std::fs::write(stage.path("elsewhere"), &text).unwrap();
                std::os::unix::fs::symlink(stage.path("elsewhere"), &state).unwrap();
            }
            _ => {
                std::fs::write(&state, &text).unwrap();
                std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o666)).unwrap();
            }
        }
        let mut agent = stage.agents.start(&["renew", "--out", &out]);
        assert_eq!(agent.wait_for_end().code(), Some(3), "without a target there is nothing to do");
        assert!(agent.log().contains(&format!("is ignored: {told}")), "{harm}: {}", agent.log());
    }
    // With a target it begins with an account of its own.
    let mut agent = stage.agents.start(&["renew", "--out", &out, "--target", "inventory_db", "--revoke-on-exit"]);
    stage.account_after(&out, &first).await;
    assert!(agent.stop().success());
}
