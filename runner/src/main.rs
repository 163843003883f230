//! `ef-run INPUT PROGRAM [ARGUMENT...]` becomes the program, with the file as its standard input. `ef-run --install FILE`
//! copies itself there: an init container does that, so that the pod of any image can use it.
//!
//! One static file in an image made from nothing. It is gone once the program runs: signals, exit codes and memory are
//! the program's own.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// As shells have it: the program is not there.
const NOT_FOUND: u8 = 127;
/// It is there and cannot be started, or the input cannot be read.
const CANNOT_RUN: u8 = 126;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match (words.next(), words.next()) {
        (Some(flag), Some(to)) if flag == "--install" => match install(Path::new(&to)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("cannot install to {}: {error}", to.display()), CANNOT_RUN),
        },
        (Some(input), Some(program)) => {
            let (what, error) = run(Path::new(&input), &program, words);
            let missing = what == "start" && error.kind() == io::ErrorKind::NotFound;
            let subject = if what == "start" { &program } else { &input };
            let code = if missing { NOT_FOUND } else { CANNOT_RUN };
            fail(&format!("cannot {what} {}: {error}", subject.display()), code)
        }
        _ => fail("usage: ef-run INPUT PROGRAM [ARGUMENT...]", CANNOT_RUN),
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    eprintln!("ef-run: {why}");
    ExitCode::from(code)
}

fn install(to: &Path) -> io::Result<()> {
    fs::copy("/proc/self/exe", to)?;
    fs::set_permissions(to, Permissions::from_mode(0o555))
}

/// Becomes the program; comes back only if that cannot be, and says what could not be done.
fn run(input: &Path, program: &OsString, arguments: impl Iterator<Item = OsString>) -> (&'static str, io::Error) {
    match File::open(input) {
        Ok(input) => ("start", Command::new(program).args(arguments).stdin(input).exec()),
        Err(error) => ("read", error),
    }
}
