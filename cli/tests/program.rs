//! The program itself, where no platform is needed: bad command lines, nobody there, contexts, pipes, colour.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A home of its own.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("eventflow-home-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eventflow"));
        command.args(args).env_clear().env("HOME", &self.0).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    fn config(&self) -> PathBuf {
        self.0.join(".config/eventflow/config.yaml")
    }

    fn write_config(&self, text: &str) {
        std::fs::create_dir_all(self.0.join(".config/eventflow")).expect("a folder");
        std::fs::write(self.config(), text).expect("a file");
        std::fs::set_permissions(self.config(), std::fs::Permissions::from_mode(0o600)).expect("its owner");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A URL where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

const CONTEXTS: &str = "
current: one
contexts:
  one: {url: 'http://127.0.0.1:1', token: s3cret-one}
  two: {url: 'http://127.0.0.1:2'}
";

#[test]
fn usage_is_told_on_standard_error() {
    let home = Home::new();
    for (args, said) in [
        (&["fly"][..], "unrecognized subcommand"),
        (&["get", "Web!"], "lower-case letters"),
        (&["list"], "no platform is named: run `eventflow login"),
        (&["list", "--context", "three"], "there is no context \"three\": there are none"),
        (
            &["deploy", "-f", "/nonexistent.yaml", "--url", "http://127.0.0.1:1"],
            "cannot read /nonexistent.yaml: No such file",
        ),
        (&["delete", "web", "--url", "http://127.0.0.1:1"], "pass --yes"),
        (&["login", "--token-stdin", "--url", "http://127.0.0.1:1"], "standard input holds no token"),
        (&["list", "--url", "https://a.example", "--ca-file", "/nonexistent.pem"], "has no certificates to trust"),
    ] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(err(&output).contains(said) && out(&output).is_empty(), "{args:?}: {}", err(&output));
    }
    assert_eq!(home.run(&["--help"]).status.code(), Some(0));
    assert!(out(&home.run(&["--version"])).starts_with("eventflow 0."));
}

#[test]
fn nobody_there_is_said_with_what_to_do() {
    let home = Home::new();
    let url = nobody();
    for args in
        [&["list"][..], &["deploy", "web", "--image", "a:1"], &["delete", "web", "--yes"], &["login", "--user", "a"]]
    {
        let output = home.run(&[args, &["--url", &url]].concat());
        assert_eq!(output.status.code(), Some(9), "{args:?}: {}", err(&output));
        let said = err(&output);
        assert!(said.contains(&format!("error: {url} cannot be reached: Connection refused")), "{said}");
        assert!(said.contains("next: ") && !said.contains('\u{1b}'), "{said}");
    }
    assert!(!home.config().exists(), "a failed login keeps nothing");
}

#[test]
fn contexts_are_shown_without_their_tokens() {
    let home = Home::new();
    home.write_config(CONTEXTS);
    let table = "    NAME   URL                  TOKEN\n*   one    http://127.0.0.1:1   kept\n    two    http://127.0.0.1:2   none\n";
    assert_eq!(out(&home.run(&["context", "list"])), table);
    for form in ["json", "yaml", "wide", "name"] {
        let output = home.run(&["context", "list", "-o", form]);
        assert!(output.status.success() && !out(&output).contains("s3cret"), "{form}: {}", out(&output));
    }
    assert!(home.run(&["context", "use", "two"]).status.success());
    assert!(home.run(&["logout", "--context", "one"]).status.success());
    assert!(home.run(&["context", "remove", "two"]).status.success());
    assert_eq!(home.run(&["context", "use", "two"]).status.code(), Some(2));
    let text = std::fs::read_to_string(home.config()).unwrap();
    assert!(!text.contains("s3cret") && text.contains("127.0.0.1:1") && !text.contains("127.0.0.1:2"), "{text}");
    assert_eq!(std::fs::metadata(home.config()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_config_file_that_others_can_read_is_not_used() {
    let home = Home::new();
    home.write_config(CONTEXTS);
    std::fs::set_permissions(home.config(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let output = home.run(&["list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("chmod 600") && !err(&output).contains("s3cret"), "{}", err(&output));
}

#[test]
fn completions_are_made_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = home.run(&["completion", shell]);
        assert!(output.status.success() && out(&output).contains("deploy"), "{shell}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let home = Home::new();
    let mut child = home.command(&["completion", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Read too little for the script to fit into the pipe, and leave.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 10]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}

#[test]
fn ctrl_c_ends_a_command_that_waits() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let child = home.command(&["list", "--url", &url]).stderr(Stdio::piped()).spawn().unwrap();
    // It is there, and waits for an answer that never comes.
    let (_stream, _) = listener.accept().unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(err(&output).contains("interrupted"), "{}", err(&output));
}

#[test]
fn a_new_policy_is_written_once_and_only_beside_an_sdk() {
    let home = Home::new();
    let folder = home.0.to_str().unwrap();
    let without = home.run(&["policy", "new", "no-latest", "--folder", folder]);
    assert_eq!(without.status.code(), Some(2));
    assert!(err(&without).contains("--sdk FOLDER"), "{}", err(&without));
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/sdk");
    let made = home.run(&["policy", "new", "no-latest", "--folder", folder, "--sdk", sdk]);
    assert!(made.status.success(), "{}", err(&made));
    let source = std::fs::read_to_string(home.0.join("no-latest/src/lib.rs")).unwrap();
    assert!(source.contains("pub struct NoLatest") && !source.contains("{type}"), "{source}");
    let manifest = std::fs::read_to_string(home.0.join("no-latest/Cargo.toml")).unwrap();
    assert!(manifest.contains("name = \"no-latest\"") && manifest.contains("policies/sdk\" }"), "{manifest}");
    assert_eq!(home.run(&["policy", "new", "no-latest", "--folder", folder, "--sdk", sdk]).status.code(), Some(2));
    assert_eq!(home.run(&["policy", "new", "../x", "--folder", folder, "--sdk", sdk]).status.code(), Some(2));
}

#[test]
fn what_is_no_policy_is_not_tested() {
    let home = Home::new();
    let file = home.0.join("x.wasm");
    std::fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    let output = home.run(&["policy", "test", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("is no policy"), "{}", err(&output));
}
