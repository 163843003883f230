//! The command line as a whole: every command has a help that is kept here word for word, and the documentation names
//! every command there is.

use clap::{Command, CommandFactory};
use eventflow_cli::args::Cli;

/// Every command under its full name, groups included.
fn commands() -> Vec<(String, Command)> {
    fn collect(path: &str, command: &Command, all: &mut Vec<(String, Command)>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            all.push((path.clone(), inner.clone()));
            collect(&path, inner, all);
        }
    }
    let mut all = Vec::new();
    collect("eventflow", &Cli::command(), &mut all);
    all
}

#[test]
fn every_command_has_a_help() {
    let mut text = format!("$ eventflow --help\n{}", Cli::command().render_help());
    for (path, command) in commands() {
        assert!(command.get_about().is_some(), "{path} does not say what it does");
        let mut command = command.bin_name(&path);
        text.push_str(&format!("\n$ {path} --help\n{}", command.render_help()));
    }
    let text: Vec<&str> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("help", text.join("\n"));
}

#[test]
fn the_documentation_names_every_command() {
    let document = include_str!("../README.md");
    for (path, _) in commands().into_iter().filter(|(_, command)| !command.has_subcommands()) {
        assert!(document.contains(&format!("`{path}")), "cli/README.md does not name `{path}`");
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}
