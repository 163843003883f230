//! Questions to a component that tell whether it serves. Each answers at once or within a second.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(2);

/// Whether somebody listens at `host:port`.
///
/// # Errors
/// What stood in the way.
pub fn tcp(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect_timeout(&address, PATIENCE).map(drop).map_err(|error| format!("{address}: {error}"))
}

/// Whether somebody listens on the socket file.
///
/// # Errors
/// What stood in the way.
pub fn unix(path: &Path) -> Result<(), String> {
    UnixStream::connect(path).map(drop).map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether a plain HTTP GET is answered with a 2xx status.
///
/// # Errors
/// What stood in the way, the answer if there was one.
pub fn http(address: SocketAddr, path: &str) -> Result<String, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let (status, body) = exchange(address, &request)?;
    if (200..300).contains(&status) { Ok(body) } else { Err(format!("{address}{path} answers {status}: {body}")) }
}

/// Sends one HTTP/1.1 request as it is and reads the answer: status and body.
///
/// # Errors
/// What stood in the way.
pub fn exchange(address: SocketAddr, request: &str) -> Result<(u16, String), String> {
    let failed = |error: std::io::Error| format!("{address}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE * 5)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address} answers no HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("{address} answers no HTTP"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(body) } else { body.to_owned() }))
}

/// Joins the chunks of a chunked body.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let (Some(chunk), Some(next)) = (after.get(..size), after.get(size..)) else { break };
        if size == 0 {
            break;
        }
        body.push_str(chunk);
        rest = next.trim_start_matches("\r\n");
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunked("3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"), "abc0123456789");
    }
}
