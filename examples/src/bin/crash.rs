//! Ends by itself: prints a line, waits `AFTER_MS` milliseconds (0 by default), ends with `EXIT_CODE` (3 by default).

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use eventflow_examples::{ending, settings};

fn main() -> io::Result<ExitCode> {
    ending::at_once()?;
    let (code, after) = (settings::value("EXIT_CODE", 3u8), settings::value("AFTER_MS", 0u64));
    println!("crash: about to end with exit code {code} in {after} ms");
    std::thread::sleep(Duration::from_millis(after));
    eprintln!("crash: ending with exit code {code}");
    Ok(ExitCode::from(code))
}
