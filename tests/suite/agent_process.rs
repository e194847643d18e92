//! The agent as a process among others: as process 1, with what its command leaves behind, and stopped at any moment.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jit_tests::AgentProcess;
use jit_tests::world::eventually;

use crate::agent::Stage;

/// Makes 150 processes whose parents are gone, and waits until nobody that has ended is left in the table.
const ORPHANS: &str = r#"
number=0
while [ $number -lt 150 ]; do
    sh -c 'sleep 0.05 &'
    number=$((number + 1))
done
ended() { grep -l '^State:[[:space:]]*Z' /proc/[0-9]*/status 2>/dev/null | wc -l; }
tries=0
while [ "$(ended)" -gt 0 ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
echo "process $PPID, not waited for: $(ended)"
"#;

fn unshared() -> Option<Command> {
    let command = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
        command
    };
    if command().arg("true").output().is_ok_and(|output| output.status.success()) {
        return Some(command());
    }
    // Not captured by the test harness, unlike `eprintln!`.
    let line = "NOT run: the agent as process 1: this machine allows no `unshare --pid`\n";
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_process_one_it_waits_for_whatever_ends() {
    let Some(mut unshared) = unshared() else { return };
    let stage = Stage::new().await;
    unshared.arg(jit_tests::surroundings("JIT_TEST_AGENT"));
    let output = stage
        .agents
        .become_by(unshared, &["exec", "--target", "inventory_db", "--", "sh", "-c", ORPHANS])
        .output()
        .unwrap();
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    assert_eq!(said.trim(), "process 1, not waited for: 0", "{log}");
    stage.nothing_is_left().await;
}

/// Anywhere else the orphans come to it as well, and its own commands' ends are not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elsewhere_it_is_asked_to_wait_and_knows_how_its_own_commands_ended() {
    let stage = Stage::new().await;
    let token = stage.agents.token.display().to_string();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sleep 0.05 &'; done; sleep 0.3; exit 23";
    let arguments = ["exec", "--target", "inventory_db", "--", "sh", "-c", script];
    let mut command = stage.agents.command(&arguments);
    // A command of its own beside: its end is waited for by who has started it.
    command.env_remove("JIT_TOKEN_FILE").env("JIT_TOKEN_COMMAND", format!("cat {token}"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(23), "{}", String::from_utf8_lossy(&output.stderr));
    stage.nothing_is_left().await;
}

/// Whether a process runs: neither gone nor ended.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_all_of_the_command_and_nothing_outlives_it() {
    let stage = Stage::new().await;
    let (pids, told) = (stage.path("pids"), stage.path("told"));
    // One in the command's group, one in a session of its own, and one that does not listen.
    let script = format!(
        "sh -c 'trap \"echo hup >>{told}\" HUP; echo $$ >>{pids}; while :; do sleep 0.05; done' &
         setsid sh -c 'echo $$ >>{pids}; exec sleep 1000' &
         setsid sh -c 'trap \"\" TERM HUP; echo $$ >>{pids}; while :; do sleep 0.05; done' &
         trap 'exit 9' TERM; trap : HUP; while :; do sleep 0.05; done"
    );
    let arguments = ["exec", "--target", "inventory_db", "--grace", "1s", "--", "sh", "-c", &script];
    let mut agent = stage.agents.start(&arguments);
    let lines = |file: &str| -> Vec<String> {
        std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    eventually("they run", async || lines(&pids).len() == 3).await;
    agent.signal("HUP");
    eventually("the command's child got the signal", async || lines(&told).contains(&"hup".to_owned())).await;
    assert!(lines(&pids).iter().all(|pid| runs(pid)));
    assert_eq!(agent.stop().code(), Some(9));
    let left: Vec<String> = lines(&pids).into_iter().filter(|pid| runs(pid)).collect();
    assert!(left.is_empty(), "{left:?} outlived the agent:\n{}", agent.log());
    stage.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_listen_is_killed_after_its_grace() {
    let stage = Stage::new().await;
    let ready = stage.path("ready");
    let script = format!("trap '' TERM; echo >{ready}; while :; do sleep 0.05; done");
    let arguments = ["exec", "--target", "inventory_db", "--grace", "1s", "--", "sh", "-c", &script];
    let mut agent = stage.agents.start(&arguments);
    eventually("the command runs", async || Path::new(&ready).exists()).await;
    assert_eq!(agent.stop().code(), Some(128 + 9));
    assert!(agent.log().contains("did not end in time and is killed"), "{}", agent.log());
    stage.nothing_is_left().await;
}

/// Whenever the stop comes, before the first request, within it, or after it: nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_any_moment_of_the_start_ends_it_and_gives_back() {
    let stage = Stage::new().await;
    let mut agents: Vec<AgentProcess> = Vec::new();
    for number in 0..24 {
        let out = stage.path(&format!("{number}.env"));
        let arguments: &[&str] = if number % 2 == 0 {
            &["renew", "--target", "inventory_db", "--revoke-on-exit", "--out", &out]
        } else {
            &["exec", "--target", "inventory_db", "--", "sleep", "1000"]
        };
        agents.push(stage.agents.start(arguments));
    }
    for agent in &mut agents {
        // Many moments of one start after the other; which ones they are is the machine's.
        tokio::time::sleep(Duration::from_millis(40)).await;
        agent.signal("TERM");
    }
    for agent in &mut agents {
        agent.wait_for_end();
    }
    stage.nothing_is_left().await;
    stage.world.assert_settled(&[]).await;
}
