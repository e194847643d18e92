//! Holds the pages of docs/reference that are made from the program: the commands from clap, the HTTP API from its
//! OpenAPI document. With `UPDATE_EXPECT=1` the tests write the pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod http;

use clap::Command;
use expect_test::expect_file;

/// The width of the help texts, in characters; that of a terminal would depend on who runs the test.
const WIDTH: usize = 100;

/// What stands at the top of a page that is made.
fn made_by(what: &str) -> String {
    format!(
        "<!-- Generated from {what}; do not edit. To generate it again:\n     \
         UPDATE_EXPECT=1 cargo test --workspace --test reference -->\n\n"
    )
}

/// The page of all commands: the help text of each, with those below it.
fn commands(program: Command) -> String {
    let program = without_this_machine(program).term_width(WIDTH).max_term_width(WIDTH);
    let mut page = made_by("the program's own help");
    page.push_str(
        "# Commands\n\nThese are the help texts of `jit-broker`; `jit-broker COMMAND --help` prints the same.\n\
         [jit-agent](jit-agent.md) has a page of its own.\n",
    );
    add(&mut page, &program, &program, &[]);
    page
}

/// The values of environment variables are this machine's.
fn without_this_machine(command: Command) -> Command {
    command.mut_args(|argument| argument.hide_env_values(true)).mut_subcommands(without_this_machine)
}

/// Adds a command, which `words` lead to, and those below it.
fn add(page: &mut String, program: &Command, command: &Command, words: &[&str]) {
    let asked: Vec<&str> = [program.get_name()].into_iter().chain(words.iter().copied()).collect();
    let help = program.clone().try_get_matches_from(asked.iter().copied().chain(["--help"])).unwrap_err();
    let help: Vec<String> = help.render().to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    let level = if words.len() < 2 { "##" } else { "###" };
    page.push_str(&format!("\n{level} `{}`\n\n```text\n{}\n```\n", asked.join(" "), help.join("\n").trim_end()));
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        add(page, program, below, &[words, &[below.get_name()]].concat());
    }
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    expect_file!["../../../../docs/reference/commands.md"].assert_eq(&commands(jit_broker::cli::command()));
}

#[test]
fn the_page_of_the_http_api_is_what_its_document_says() {
    let document = serde_json::from_str(&jit_http::openapi()).unwrap();
    expect_file!["../../../../docs/reference/http.md"].assert_eq(&http::page(&document));
}

/// Who starts copies from one of the two: they are the same.
#[test]
fn the_page_for_the_start_shows_the_commands_of_the_help() {
    let program = jit_broker::cli::command();
    let help = program.find_subcommand("dev").and_then(Command::get_after_help).unwrap().to_string();
    let help: Vec<&str> = help.lines().map(str::trim).collect();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/start.md")).unwrap();
    let blocks = page.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let shown: Vec<&str> =
        blocks.filter(|block| block.contains("jit-broker dev") || block.contains("/issue")).collect();
    assert_eq!(shown.len(), 2, "{shown:?}");
    for line in shown.iter().flat_map(|block| block.lines()) {
        assert!(help.contains(&line.trim()), "`jit-broker dev --help` does not show: {line}");
    }
}
