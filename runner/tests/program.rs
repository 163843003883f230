//! The real program.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up should fail")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn ef_run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ef-run")).args(words).output().unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ef-run-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_file_is_the_programs_standard_input() {
    let input = file("input", "one\ntwo");
    let output = ef_run(&[input.to_str().unwrap(), "cat", "-"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"one\ntwo".as_slice()));
    let output = ef_run(&[input.to_str().unwrap(), "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "the exit code is the program's");
    std::fs::remove_file(input).unwrap();
}

#[test]
fn what_cannot_be_started_is_told() {
    let input = file("empty", "");
    for (words, code, says) in [
        (&[input.to_str().unwrap(), "/no/such/program"][..], 127, "cannot start /no/such/program"),
        (&[input.to_str().unwrap(), "/etc/passwd"], 126, "cannot start /etc/passwd"),
        (&["/no/such/input", "true"], 126, "cannot read /no/such/input"),
        (&["/no/such/input"], 126, "usage"),
        (&[], 126, "usage"),
        (&["--install", "/no/such/folder/x"], 126, "cannot install"),
    ] {
        let output = ef_run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(says), "{words:?}: {said}");
    }
    std::fs::remove_file(input).unwrap();
}

#[test]
fn it_puts_itself_where_it_is_needed() {
    let (copy, input) = (file("copy", ""), file("again", "x"));
    std::fs::remove_file(&copy).unwrap();
    assert!(ef_run(&["--install", copy.to_str().unwrap()]).status.success());
    let output = Command::new(&copy).args([input.to_str().unwrap(), "cat"]).output().unwrap();
    assert_eq!(output.stdout, b"x");
    for path in [copy, input] {
        std::fs::remove_file(path).unwrap();
    }
}
