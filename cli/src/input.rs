//! Standard input and files, bounded, and read on a thread of their own so that Ctrl-C works meanwhile.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::error::CliError;

/// Longest line that is read.
const LINE_MAX: u64 = 4 << 10;

/// One line of standard input.
///
/// # Errors
/// When it cannot be read.
pub async fn line() -> Result<String, CliError> {
    let read = || {
        let mut line = String::new();
        io::stdin().lock().take(LINE_MAX).read_line(&mut line).map(|_| line)
    };
    elsewhere(read).await.map_err(of(Path::new("standard input")))
}

/// All of a file, or of standard input if it is `-`.
///
/// # Errors
/// When it cannot be read, or is longer than `max`.
pub async fn whole(path: &Path, max: u64) -> Result<Vec<u8>, CliError> {
    let source = path.to_owned();
    let is_stdin = path.as_os_str() == "-";
    let read = move || {
        let mut bytes = Vec::new();
        if is_stdin {
            io::stdin().lock().take(max + 1).read_to_end(&mut bytes)?;
        } else {
            File::open(source)?.take(max + 1).read_to_end(&mut bytes)?;
        }
        if bytes.len() as u64 > max {
            return Err(io::Error::other(format!("it is longer than {max} bytes")));
        }
        Ok(bytes)
    };
    elsewhere(read).await.map_err(of(if is_stdin { Path::new("standard input") } else { path }))
}

async fn elsewhere<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

fn of(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { path, source }
}
