//! Runs once. Reads its input from the file named by `EVENTFLOW_INPUT_FILE` if that is set and `READ` is not `stdin`,
//! else from standard input; writes a JSON result to the file named by `EVENTFLOW_RESULT_FILE` if that is set, else as its last line
//! on standard output. The input may be anything; if it is a JSON object its fields `exit` (exit code, 0 to 255)
//! and `sleep_ms` are obeyed.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use eventflow_examples::json::Json;
use eventflow_examples::{ending, settings};

/// Longest input that is read, in bytes.
const INPUT_MAX: u64 = 16 * 1024 * 1024;

fn main() -> io::Result<ExitCode> {
    ending::at_once()?;
    let bytes = read_input()?;
    println!("job: read {} bytes", bytes.len());
    let text = String::from_utf8_lossy(&bytes);
    let input = match text.trim() {
        "" => Json::Null,
        trimmed => Json::parse(trimmed).unwrap_or_else(|_| Json::text(text.as_ref())),
    };
    let field = |name| input.get(name).and_then(Json::as_integer);
    if let Some(ms) = field("sleep_ms").and_then(|ms| u64::try_from(ms).ok()) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    let code = field("exit").and_then(|code| u8::try_from(code).ok()).unwrap_or(0);
    write_result(&result(&bytes, input, code))?;
    Ok(ExitCode::from(code))
}

fn result(bytes: &[u8], input: Json, code: u8) -> Json {
    let args = std::env::args_os().skip(1).map(|a| Json::text(a.to_string_lossy())).collect();
    Json::object([
        ("input_bytes", Json::integer(bytes.len() as u64)),
        ("input", input),
        ("args", Json::List(args)),
        ("environment", Json::texts(settings::tenant_environment())),
        ("exit", Json::integer(code)),
    ])
}

fn read_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let from_stdin = settings::text("READ").is_some_and(|from| from == "stdin");
    match settings::text("EVENTFLOW_INPUT_FILE").filter(|_| !from_stdin) {
        Some(path) => std::fs::File::open(path)?.take(INPUT_MAX).read_to_end(&mut bytes)?,
        None => io::stdin().take(INPUT_MAX).read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

/// A file appears whole: it is written beside its place and then renamed into it.
fn write_result(result: &Json) -> io::Result<()> {
    let Some(path) = settings::text("EVENTFLOW_RESULT_FILE").map(PathBuf::from) else {
        println!("{result}");
        return Ok(());
    };
    let unfinished = path.with_added_extension("unfinished");
    // A mounted single file (a termination log) cannot be renamed over; then it is written in place.
    let renamed = std::fs::write(&unfinished, format!("{result}\n")).and_then(|()| std::fs::rename(&unfinished, &path));
    renamed.or_else(|_| std::fs::write(&path, format!("{result}\n")))
}
