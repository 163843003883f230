//! `deploy`: creates a function or changes it, and ends with the truth. A file says all there is to say and replaces
//! what was; flags alone change what they name and leave the rest.

use std::path::{Path, PathBuf};

use clap::Args;
use eventflow_api::names::FunctionName;
use http::Method;
use http::header::ETAG;
use serde_json::{Map, Value, json};

use super::change::Patience;
use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::input;
use crate::output::clean;
use crate::session::Session;
use crate::view::Function;

/// Longest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// Create a function or change it.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The function; may stand in the file instead.
    #[arg(required_unless_present = "file")]
    name: Option<FunctionName>,
    /// A document in YAML or JSON, `-` for standard input: all fields of the function. Flags go before it.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Show what would be, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    patience: Patience,
}

/// Fields of a function.
#[derive(Debug, Args)]
#[command(next_help_heading = "The function")]
struct Fields {
    /// The container image.
    #[arg(long)]
    image: Option<String>,
    /// The port that the program serves HTTP on.
    #[arg(long)]
    port: Option<u16>,
    /// How many pods run.
    #[arg(long, value_name = "COUNT")]
    replicas: Option<u32>,
    /// An environment variable, NAME=VALUE; may be given many times.
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Removes an environment variable.
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// CPU set aside for each pod, such as 100m.
    #[arg(long, value_name = "AMOUNT")]
    cpu_request: Option<String>,
    /// Memory set aside for each pod, such as 128Mi.
    #[arg(long, value_name = "AMOUNT")]
    memory_request: Option<String>,
    /// CPU that each pod may use at most.
    #[arg(long, value_name = "AMOUNT")]
    cpu_limit: Option<String>,
    /// Memory that each pod may use at most; over it the pod is killed.
    #[arg(long, value_name = "AMOUNT")]
    memory_limit: Option<String>,
    /// Longest time that one call may take, in seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout_seconds: Option<u32>,
    /// A word of the command that replaces the image's entry point; may be given many times.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    command: Vec<String>,
    /// Arguments to the command.
    #[arg(last = true, value_name = "ARGUMENT", help_heading = "Arguments")]
    args: Vec<String>,
}

/// `NAME=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    if name.is_empty() { Err("must be NAME=VALUE".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

impl Fields {
    /// What the flags say, as a merge patch.
    fn patch(&self) -> Map<String, Value> {
        let mut patch = Map::new();
        let mut set = |field: &str, value: Option<Value>| {
            if let Some(value) = value {
                patch.insert(field.to_owned(), value);
            }
        };
        set("image", self.image.clone().map(Value::from));
        set("port", self.port.map(Value::from));
        set("replicas", self.replicas.map(Value::from));
        set("timeoutSeconds", self.timeout_seconds.map(Value::from));
        set("command", (!self.command.is_empty()).then(|| json!(self.command)));
        set("args", (!self.args.is_empty()).then(|| json!(self.args)));
        let mut env: Map<String, Value> = self.unset_env.iter().map(|name| (name.clone(), Value::Null)).collect();
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), json!(value))));
        set("env", (!env.is_empty()).then_some(Value::Object(env)));
        let amounts = [
            ("cpuRequest", &self.cpu_request),
            ("memoryRequest", &self.memory_request),
            ("cpuLimit", &self.cpu_limit),
            ("memoryLimit", &self.memory_limit),
        ];
        let amounts = amounts.iter().filter_map(|(name, amount)| Some(((*name).to_owned(), json!(amount.as_ref()?))));
        let resources: Map<String, Value> = amounts.collect();
        set("resources", (!resources.is_empty()).then_some(Value::Object(resources)));
        patch
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
enum Wish {
    /// All of it.
    Whole(Value),
    /// These fields.
    Fields(Value),
}

impl Deploy {
    /// Creates or changes it, and waits.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let (name, wish) = self.wish().await?;
        let written = self.write(session, &name, wish).await?;
        if self.dry_run {
            return session.output.document(session.format, &written, |_, _| {
                let generation = &written["generation"];
                format!("{name} would be accepted as generation {generation}; nothing was changed\n")
            });
        }
        self.patience.end(session, written).await
    }

    async fn wish(&self) -> Result<(FunctionName, Wish), CliError> {
        let patch = Value::Object(self.fields.patch());
        let Some(file) = &self.file else {
            let name = self.name.clone().ok_or_else(|| CliError::usage("say which function"))?;
            return Ok((name, Wish::Fields(patch)));
        };
        whole(document(file).await?, self.name.clone(), patch)
    }

    async fn write(&self, session: &Session, name: &FunctionName, wish: Wish) -> Result<Value, CliError> {
        let path = ["v1", "functions", name.as_str()];
        let dry = self.dry_run.then_some("true");
        let current = match session.client.call(&Request::get(&path)).await {
            Ok(answer) => Some((answer.header(&ETAG).map(str::to_owned), answer.json()?)),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let request = match (&current, wish) {
            (None, Wish::Fields(mut fields)) => {
                if self.fields.image.is_none() {
                    return Err(CliError::usage(format!("{name} does not exist yet: --image IMAGE creates it")));
                }
                fields["name"] = json!(name);
                drop_nulls(&mut fields);
                Request::new(Method::POST, &["v1", "functions"]).json(&fields)
            }
            (None, Wish::Whole(document)) => Request::new(Method::POST, &["v1", "functions"]).json(&document),
            // Over the very version that was read, so that nobody's change is lost unseen.
            (Some((tag, _)), Wish::Whole(document)) => {
                Request::new(Method::PUT, &path).if_match(tag.as_deref()).json(&document)
            }
            (Some(_), Wish::Fields(fields)) => Request::new(Method::PATCH, &path).merge_patch(&fields),
        };
        let written = session.client.call(&request.maybe("dry_run", dry)).await?.json()?;
        if !self.dry_run {
            tell(session, current.as_ref().map(|(_, before)| before), &written)?;
        }
        Ok(written)
    }
}

fn tell(session: &Session, before: Option<&Value>, written: &Value) -> Result<(), CallError> {
    let (function, before) = (Function::of(written), before.map(Function::of));
    let what = match before {
        None => "created",
        Some(before) if before.generation == function.generation => "unchanged",
        Some(_) => "changed",
    };
    let (name, generation) = (clean(&function.name), function.generation);
    session.output.tell(&format!("{name} {what} (generation {generation})"));
    Ok(())
}

/// Reads the document of a file, or of standard input if it is `-`.
///
/// # Errors
/// It cannot be read, or is not one document.
pub(super) async fn document(file: &Path) -> Result<Value, CliError> {
    let bytes = input::whole(file, FILE_MAX).await?;
    read(&bytes).map_err(|reason| CliError::usage(format!("{}: {reason}", file.display())))
}

/// Reads one document in YAML, of which JSON is a part.
fn read(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let value: Value = serde_saphyr::from_str(text).map_err(|error| {
        // The rest of the message quotes the file, of which some is secret.
        let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        format!("is not one YAML document{}", place.unwrap_or_default())
    })?;
    if value.is_object() { Ok(value) } else { Err("is not a document with fields, such as `image: app:1`".into()) }
}

/// The document with what the flags say, and its name.
fn whole(mut document: Value, name: Option<FunctionName>, flags: Value) -> Result<(FunctionName, Wish), CliError> {
    let written = document["name"].as_str().map(str::to_owned);
    let name = match (name, written) {
        (Some(name), Some(written)) if name.as_str() != written => {
            let detail = format!("the file is about \"{}\", the command line about {name}", clean(&written));
            return Err(CliError::usage(detail));
        }
        (Some(name), _) => name,
        (None, Some(written)) => {
            written.parse().map_err(|error| CliError::usage(format!("the name in the file {error}")))?
        }
        (None, None) => {
            return Err(CliError::usage("say which function: `eventflow deploy NAME -f FILE`, or `name:` in it"));
        }
    };
    eventflow_api::http::merge_patch(&mut document, flags);
    document["name"] = json!(name);
    Ok((name, Wish::Whole(document)))
}

/// A document has no fields to remove.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::commands::Command;
    use clap::Parser;

    fn deploy(args: &[&str]) -> Deploy {
        match Cli::try_parse_from([&["eventflow", "deploy"], args].concat()).map(|cli| cli.command) {
            Ok(Command::Deploy(deploy)) => deploy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_name_fields() {
        let args = [
            "web",
            "--image",
            "a:1",
            "--port",
            "80",
            "-e",
            "A=1=2",
            "--env",
            "B=",
            "--unset-env",
            "C",
            "--cpu-request",
            "20m",
            "--replicas",
            "2",
            "--timeout-seconds",
            "5",
            "--command",
            "/x",
            "--command",
            "-y",
            "--",
            "-z",
            "w",
        ];
        let expected = json!({"image": "a:1", "port": 80, "replicas": 2, "timeoutSeconds": 5, "command": ["/x", "-y"],
            "args": ["-z", "w"], "env": {"A": "1=2", "B": "", "C": null}, "resources": {"cpuRequest": "20m"}});
        assert_eq!(Value::Object(deploy(&args).fields.patch()), expected);
        assert_eq!(Value::Object(deploy(&["web"]).fields.patch()), json!({}));
    }

    #[test]
    fn a_file_is_the_whole_and_flags_go_before_it() {
        let document = read(b"name: web\nimage: a:1\nenv: {A: '1', B: x}\n").unwrap();
        let (name, wish) = whole(document, None, json!({"image": "a:2", "env": {"B": null}})).unwrap();
        assert_eq!(name.as_str(), "web");
        assert_eq!(wish, Wish::Whole(json!({"name": "web", "image": "a:2", "env": {"A": "1"}})));
        let (name, _) = whole(json!({"image": "a"}), Some("b".parse().unwrap()), json!({})).unwrap();
        assert_eq!(name.as_str(), "b");
    }

    #[test]
    fn what_is_contradictory_or_no_document_is_refused() {
        let faulty = [(json!({"name": "a"}), Some("b")), (json!({}), None), (json!({"name": "A b"}), None)];
        for (document, name) in faulty {
            let name = name.map(|name| name.parse().unwrap());
            assert!(matches!(whole(document.clone(), name, json!({})), Err(CliError::Usage(_))), "{document}");
        }
        for bad in ["", "a: [secret", "- secret", "a: secret\na: secret", "secret", "a: 1\n---\nb: secret"] {
            let error = read(bad.as_bytes()).unwrap_err();
            assert!(!error.contains("secret"), "{bad}: {error}");
        }
        assert!(read(b"\xff").is_err());
    }

    #[test]
    fn the_command_line_is_strict() {
        for bad in [
            &["deploy"][..],
            &["deploy", "Web!"],
            &["deploy", "a", "-e", "A"],
            &["deploy", "a", "--port", "0x"],
            &["deploy", "a", "--timeout", "0s"],
            &["scale", "a", "101"],
            &["scale", "a", "-1"],
            &["get", "../me"],
            &["delete"],
            &["list", "--limit", "0"],
            &["get", "a", "-o", "xml"],
            &["login", "--user", "a", "--role", "king"],
            &["login"],
            &["get", "a", "--url", "ftp://x"],
            &["fly"],
        ] {
            let error = Cli::try_parse_from([&["eventflow"], bad].concat()).map(drop).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
        for good in
            [&["list", "--sort", "-created"][..], &["ls"], &["deploy", "a", "-f", "-"], &["deploy", "-f", "x.yaml"]]
        {
            assert!(Cli::try_parse_from([&["eventflow"], good].concat()).is_ok(), "{good:?}");
        }
    }
}
