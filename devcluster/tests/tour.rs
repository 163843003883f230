//! The README's tour, line by line, on a platform that `make up` would start. A line that is new there fails here until
//! it is known what it must show.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use common::{DEVCLUSTER, Machine, wait_until};

/// How each line of the tour begins, and what it shows.
const SHOWS: [(&str, &[&str]); 17] = [
    ("URL=", &[]),
    ("TOKEN=", &[]),
    ("alias ef=", &[]),
    ("ef $URL/v1/me ", &[r#""namespace":"tenant-alice""#]),
    ("ef $URL/v1/functions -d '{\"name\": \"web\"", &[r#""name":"web""#, r#""id":"#]),
    ("ef $URL/v1/functions/web ", &[r#""phase":"Running""#, r#""readyReplicas":1"#]),
    ("ef $URL/v1/functions/web/http/any/path?x=1 ", &["/any/path", "x=1"]),
    ("ef $URL/v1/functions -d '{\"name\": \"job\"", &[r#""name":"job""#, r#""id":"#]),
    (
        "ef \"$URL/v1/functions/job:invoke?wait=30s\"",
        &["Invocation Started", r#""phase":"Succeeded""#, r#""hello":"job""#],
    ),
    ("kubectl get functions -A ", &["web", "Running"]),
    ("ef -X PATCH $URL/v1/functions/web ", &[r#""replicas":2"#]),
    ("kubectl scale fn/web ", &["scaled"]),
    ("ef $URL/v1/audit", &[r#""function.adopt""#]),
    ("ef $URL/v1/functions -d '{\"name\": \"Web!\"", &[r#""invalid-fields""#, "\"name\"", "\"image\"", "\"replicas\""]),
    ("ef $URL/v1/functions -d '{\"name\": \"bad\"", &[r#""name":"bad""#, r#""id":"#]),
    ("ef $URL/v1/functions/bad", &[r#""phase":"Failed""#, "CrashLooping"]),
    ("ef -X DELETE $URL/v1/functions/web", &[]),
];

/// A shell that is told one line after the other.
struct Shell {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn start(machine: &Machine, tools: &str) -> Self {
        let mut command = machine.command("bash", &["-O", "expand_aliases"]);
        command.env("KUBECONFIG", machine.data.join("kubeconfig"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut shell = Self { process, to, from: BufReader::new(from) };
        shell.run(&format!("export PATH=\"{tools}:$PATH\""));
        shell
    }

    /// What the line shows.
    fn run(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}\necho; echo end-of-line").unwrap();
        let lines = self.from.by_ref().lines().map(Result::unwrap);
        lines.take_while(|line| line != "end-of-line").collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn tour() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let block = readme.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn every_line_of_the_tour_shows_what_it_should() {
    let machine = Machine::new("tour");
    let programs = Path::new(DEVCLUSTER).parent().unwrap();
    let programs = format!("--programs={}", programs.display());
    let said = machine.devcluster(&["up", &programs]);
    assert!(said.contains("its pod answers") && said.contains("export KUBECONFIG="), "{said}");
    let tools = machine.must(DEVCLUSTER, &["tools"]);
    let mut shell = Shell::start(&machine, tools.trim());
    let lines = tour();
    assert_eq!(lines.len(), SHOWS.len(), "the tour has other lines than this test");
    for (line, (begins, shows)) in lines.iter().zip(SHOWS) {
        assert!(line.starts_with(begins), "`{line}` is not known here");
        let mut last = shell.run(line);
        // What is only asked for may be asked for again until it is so.
        let only_asks = !["-d ", "-X ", "scale"].iter().any(|word| line.contains(word));
        if only_asks {
            wait_until(&format!("`{line}` shows {shows:?}"), || {
                let so = shows.iter().all(|text| last.contains(text));
                if !so {
                    last = shell.run(line);
                }
                so
            });
        }
        for text in shows {
            assert!(last.contains(text), "`{line}` shows no {text}: {last}");
        }
    }
    assert!(shell.run("ef $URL/v1/functions/web").contains(r#""not-found""#));
}
