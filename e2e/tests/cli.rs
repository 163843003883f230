//! The `eventflow` program against the platform, as a person or a script uses it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use eventflow_e2e::platform::Platform;
use serde_json::Value;

/// Resources that let many tests run on one node.
const SMALL: [&str; 8] =
    ["--cpu-request", "20m", "--memory-request", "16Mi", "--cpu-limit", "500m", "--memory-limit", "64Mi"];

/// A user at a terminal of their own.
struct User {
    platform: &'static Platform,
    folder: PathBuf,
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl User {
    fn new(name: &str) -> Self {
        Self::with_roles(name, "developer")
    }

    fn with_roles(name: &str, roles: &str) -> Self {
        let platform = Platform::shared();
        let folder = platform.logs.join(format!("cli-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let user = Self { platform, folder };
        user.run(&["login", "--url", platform.base(), "--user", name, "--role", roles]).ends(0);
        user
    }

    fn run(&self, args: &[&str]) -> Said {
        self.platform.eventflow(&self.folder, args).output().expect("the program runs").into()
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.platform.eventflow(&self.folder, args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends").into()
    }

    /// Deploys one of the example images, small.
    fn deploy(&self, name: &str, image: &str, more: &[&str]) -> Said {
        let image = self.platform.image(image);
        self.run(&[&["deploy", name, "--image", &image][..], &SMALL, more].concat())
    }

    fn document(&self, name: &str) -> Value {
        serde_json::from_str(&self.run(&["get", name, "-o", "json"]).ends(0).out).expect("JSON")
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Said {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn tells(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in {self:#?}");
        }
        self
    }
}

#[test]
fn a_function_s_life() {
    let user = User::new("cli-life");
    let kept = std::fs::metadata(user.folder.join("config.yaml")).expect("the config file");
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    let me = user.run(&["whoami"]).ends(0).out;
    assert!(me.contains("Tenant     cli-life\n") && me.contains("Roles      developer\n"), "{me}");
    user.run(&["list"]).ends(0).tells(&["There are none"]);

    let deployed = user.deploy("web", "hello:v1", &["--port", "8080", "--env", "GREETING=one"]).ends(0);
    assert_eq!(deployed.out, "web is Running: all 1 pods are ready\n");
    let deployed = deployed.tells(&["web created (generation 1)"]);
    assert!(!deployed.err.contains('\u{1b}'), "no colour without a terminal: {deployed:?}");

    // Only what the flags name is changed; exit 0 means that the new version runs.
    let image = user.platform.image("hello:v2");
    user.run(&["deploy", "web", "--image", &image]).ends(0).tells(&["web changed (generation 2)"]);
    let web = user.document("web");
    assert_eq!((&web["image"], &web["env"]["GREETING"], &web["port"]), (&image.into(), &"one".into(), &8080.into()));
    assert_eq!(web["status"]["observedGeneration"], 2);
    let pods = ["get", "pods", "-n", "tenant-cli-life", "-l", "function=web", "-o"];
    let images = "jsonpath={.items[?(@.status.containerStatuses[0].ready)].spec.containers[0].image}";
    assert!(user.platform.kubectl(&[&pods[..], &[images]].concat()).contains("hello:v2"));

    user.run(&["scale", "web", "2"]).ends(0);
    assert_eq!(user.document("web")["status"]["readyReplicas"], 2);
    let rows = user.run(&["list"]).ends(0).out;
    assert!(rows.lines().count() == 2 && rows.starts_with("NAME   PHASE     READY   REASON"), "{rows}");
    assert!(rows.contains("web    Running   2/2"), "{rows}");
    assert_eq!(user.run(&["list", "-o", "name"]).ends(0).out, "web\n");
    let long = user.run(&["describe", "web"]).ends(0).out;
    assert!(long.contains("Conditions\n") && long.contains("AllReady") && !long.contains("one"), "{long}");

    // What was read can be deployed again, as a file.
    let yaml = user.run(&["get", "web", "-o", "yaml"]).ends(0).out;
    user.run_with_input(&["deploy", "-f", "-"], &yaml).ends(0).tells(&["web unchanged"]);
    let changed = user.run_with_input(&["deploy", "-f", "-", "--replicas", "1"], &yaml);
    changed.ends(0).tells(&["web changed (generation 4)"]);

    user.run(&["suspend", "web"]).ends(0);
    assert_eq!(user.document("web")["status"]["phase"], "Suspended");
    user.run(&["resume", "web"]).ends(0);

    user.run(&["delete", "web"]).ends(2).tells(&["pass --yes"]);
    user.run(&["delete", "web", "--yes"]).ends(0);
    user.run(&["get", "web"]).ends(4).tells(&["(not-found)", "request id ", "eventflow list"]);
    let audit = user.run(&["audit"]).ends(0).out;
    assert!(audit.contains("function.create") && audit.contains("function.delete"), "{audit}");
}

#[test]
fn what_does_not_run_says_why() {
    let user = User::new("cli-failing");
    let said = user.deploy("crash", "crash:v1", &[]).ends(7).tells(&["crash failed (CrashLooping)"]);
    assert!(said.err.contains("next: `eventflow describe crash`"), "{said:?}");
    user.deploy("nowhere", "no-such-image:v1", &[]).ends(7).tells(&["nowhere failed (ImagePullFailed)"]);
    // The old version still serves: that the new one does not is told all the same.
    user.deploy("web", "hello:v1", &["--port", "8080"]).ends(0);
    let image = user.platform.image("no-such-image:v2");
    user.run(&["deploy", "web", "--image", &image]).ends(7).tells(&["web failed (ImagePullFailed)", "still serve"]);
    let failed = user.run(&["list", "--phase", "Failed", "-o", "name"]).ends(0).out;
    assert_eq!(failed, "crash\nnowhere\nweb\n");
    // More than the tier has, at any time.
    let image = user.platform.image("hello:v1");
    user.run(&["deploy", "huge", "--image", &image, "--replicas", "20", "--cpu-request", "1", "--cpu-limit", "1"])
        .ends(5);
}

#[test]
fn what_waits_is_not_called_done() {
    let user = User::new("cli-waiting");
    // Half of the tier's CPU each, and a bit.
    let half = ["--cpu-request", "100m", "--cpu-limit", "11"];
    let image = user.platform.image("pause:v1");
    user.run(&[&["deploy", "first", "--image", &image][..], &half].concat()).ends(0);
    let second = user.run(&[&["deploy", "second", "--image", &image, "--timeout", "8s"][..], &half].concat()).ends(8);
    second.tells(&["queued: ", "second is not there after 8s", "eventflow describe second"]);
    user.run(&["delete", "first", "--yes"]).ends(0);
    user.run(&["deploy", "second"]).ends(0).tells(&["second unchanged"]);
}

#[test]
fn operators_govern_and_tenants_are_told() {
    let (user, operator) = (User::new("cli-governed"), User::with_roles("cli-operator", "operator"));
    user.run(&["tenant", "list"]).ends(3).tells(&["(forbidden)"]);
    // The first call of a tenant makes its object, a moment later.
    let made = ["wait", "--for=create", "tenant/cli-governed", "--timeout=60s"];
    user.platform.kubectl(&made);
    operator.run(&["tenant", "set", "cli-governed", "--quota", "cpuRequests=1"]).ends(0);
    let of = |args: &[&str]| operator.run(args).ends(0).out;
    let tenant: Value = serde_json::from_str(&of(&["tenant", "get", "cli-governed", "-o", "json"])).expect("JSON");
    assert_eq!(tenant["quota"], serde_json::json!({"cpuRequests": "1"}));
    assert!(of(&["tenant", "list"]).contains("cli-governed"));
    let tier = of(&["tier", "get", "free", "-o", "yaml"]).replace("name: free", "name: cli-small");
    operator.run_with_input(&["tier", "set", "cli-small", "-f", "-"], &tier).ends(0);
    assert!(of(&["tier", "list", "-o", "name"]).lines().any(|name| name == "cli-small"));

    let image = user.platform.image("pause:v1");
    let deploy = |name: &str, cpu: &str, more: &[&str]| {
        let args = ["deploy", name, "--image", &image, "--cpu-request", cpu, "--cpu-limit", "1", "--timeout", "60s"];
        user.run(&[&args[..], more].concat())
    };
    deploy("first", "600m", &[]).ends(0);
    deploy("second", "500m", &["--no-wait"]).ends(0);
    let quota = user.run(&["quota"]).ends(0).out;
    assert!(quota.contains("Tier pro") && quota.contains("1       second   cpuRequests 100m"), "{quota}");
    let why = user.run(&["explain", "second"]).ends(0).out;
    assert!(why.starts_with("second is Queued: ") && why.contains("held by first"), "{why}");

    operator.run(&["tenant", "suspend", "cli-governed"]).ends(0);
    deploy("third", "100m", &[]).ends(5).tells(&["(tenant-suspended)"]);
    operator.run(&["tenant", "resume", "cli-governed"]).ends(0);
    user.run(&["delete", "first", "second", "--yes"]).ends(0);
}

#[test]
fn bad_input_is_told_field_by_field() {
    let user = User::new("cli-bad-input");
    let said = user.run(&["deploy", "web", "--image", "Bad Image", "--env", "1A=x", "--cpu-request", "lots"]).ends(2);
    said.tells(&["(invalid-fields)", "  image ", "  env.1A ", "  resources.cpuRequest ", "request id "]);
    let said =
        user.run_with_input(&["deploy", "web", "-f", "-"], "image: a:1\nenv: {PORT: 8080}\ncolour: red\n").ends(2);
    said.tells(&["  env.PORT must be a string", "  colour is not a known field", "write `PORT: \"8080\"`"]);
    user.run(&["deploy", "web"]).ends(2).tells(&["web does not exist yet: --image IMAGE creates it"]);
    user.run(&["list", "--phase", "Asleep"]).ends(2).tells(&["(malformed-request)"]);
    user.run(&["scale", "web", "2"]).ends(4);
    let dry = user.deploy("web", "hello:v1", &["--dry-run"]).ends(0).out;
    assert!(dry.contains("nothing was changed"), "{dry}");
    user.run(&["get", "web"]).ends(4);
}

#[test]
fn a_token_is_tried_and_never_shown() {
    let user = User::new("cli-token");
    let config = std::fs::read_to_string(user.folder.join("config.yaml")).expect("the config file");
    // YAML may put a long text on a line of its own.
    let token = config.split_whitespace().find(|word| word.starts_with("eyJ")).expect("a token");
    let stranger = User { platform: user.platform, folder: user.folder.join("stranger") };
    let login = ["login", "--url", user.platform.base(), "--token-stdin"];
    let refused = stranger.run_with_input(&login, "not.a.token").ends(3);
    refused.tells(&["(unauthenticated)", "eventflow login"]);
    assert!(!stranger.folder.join("config.yaml").exists(), "a refused token is not kept");
    let said = stranger.run_with_input(&login, token).ends(0);
    assert!(!said.out.contains(token) && !said.err.contains(token), "{said:?}");
    for args in [&["whoami", "-o", "json"][..], &["context", "list", "-o", "yaml"], &["audit", "-o", "json"]] {
        let said = stranger.run(args).ends(0);
        assert!(!said.out.contains(token) && !said.err.contains(token), "{said:?}");
    }
    stranger.run(&["logout"]).ends(0);
    stranger.run(&["whoami"]).ends(3);
    let mut command = stranger.platform.eventflow(&stranger.folder, &["whoami", "-o", "name"]);
    let said: Said = command.env("EVENTFLOW_TOKEN", token).output().expect("the program runs").into();
    assert_eq!(said.ends(0).out, "cli-token\n");
    // A token goes to the platform it is for, and to no other.
    user.run(&["whoami", "--url", "http://localhost:1"]).ends(9);
}

#[test]
fn a_run_is_started_waited_for_and_told() {
    let judy = User::new("cli-judy");
    judy.deploy("job", "job:v1", &["--replicas", "0"]).ends(0);
    let said = judy
        .run(&["invoke", "job", "--data", r#"{"hello": "cli"}"#, "--arg", "-x", "--env", "VERSION=2", "--wait"])
        .ends(0);
    let result: Value = serde_json::from_str(&said.out).expect("the result alone");
    assert_eq!((&result["input"]["hello"], &result["args"][0]), (&"cli".into(), &"-x".into()), "{said:#?}");
    assert_eq!(result["environment"]["VERSION"], "2");
    assert!(said.err.contains("run ") && said.err.contains("of job"), "{said:#?}");

    let said = judy.run_with_input(&["invoke", "job", "--input", "-", "--wait"], r#"{"exit": 9}"#).ends(7);
    assert!(said.err.contains("exit code 9") && said.err.contains("job: read"), "{said:#?}");

    let id = judy.run(&["invoke", "job", "-d", r#"{"sleep_ms": 600000}"#, "-o", "name"]).ends(0).out.trim().to_owned();
    judy.run(&["invoke", "job", "-d", r#"{"sleep_ms": 600000}"#, "--wait", "--timeout", "1s"]).ends(8);
    judy.run(&["invocation", "cancel", &id]).ends(0);
    let rows = judy.run(&["invocation", "list", "job"]).ends(0).out;
    assert_eq!(rows.lines().count(), 5, "{rows}");
    let told = judy.run(&["invocation", "get", &id]).ends(0).out;
    assert!(told.starts_with(&format!("Run {id} of job\n")), "{told}");
    let failed =
        rows.lines().find(|row| row.contains("Failed")).and_then(|row| row.split(' ').next()).expect("one failed");
    judy.run(&["invocation", "cancel", failed]).ends(6);
    judy.run(&["invocation", "retry", failed, "--wait"]).ends(7);
    judy.run(&["invoke", "nobody"]).ends(4);
    judy.run(&["invoke", "job", "--retries", "99"]).ends(2);
}
