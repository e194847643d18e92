//! Holds docs/reference/jit-agent.md, which is made from the program's own help. With `UPDATE_EXPECT=1` the test
//! writes the page.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use expect_test::expect_file;

const COMMANDS: [&str; 3] = ["fetch", "renew", "exec"];

/// What the program prints where nobody sees a terminal, and with no setting in its environment.
fn help(command: Option<&str>) -> String {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_jit-agent"));
    let output = agent.args(command).arg("--help").env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // The value of a variable that is not set.
    let text = text.replace("=]", "]");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_page_is_what_the_program_says() {
    let mut page = "<!-- Generated from the program's own help; do not edit. To generate it again:\n     \
                    UPDATE_EXPECT=1 cargo test --workspace --test reference -->\n\n\
                    # jit-agent\n\nThese are the help texts of `jit-agent`; `jit-agent COMMAND --help` prints the same.\n\
                    [Ask for credentials](../clients.md#jit-agent) explains how to use it.\n"
        .to_owned();
    for command in [None].into_iter().chain(COMMANDS.map(Some)) {
        let name = command.map_or_else(|| "jit-agent".to_owned(), |command| format!("jit-agent {command}"));
        page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help(command)));
    }
    expect_file!["../../../docs/reference/jit-agent.md"].assert_eq(&page);
}
