//! HTTP/1.1 on any byte stream: reads requests with hard limits, writes answers whole or in chunks.
//! On any doubt about where a request ends it is refused and the connection closed (no request smuggling).

use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// Longest request line and headers together, in bytes.
pub const HEAD_MAX: usize = 16 * 1024;
/// Most headers.
pub const HEADERS_MAX: usize = 100;
/// Longest body, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;

/// Why a request could not be read.
#[derive(Debug)]
pub enum RequestError {
    /// Not HTTP/1.x, or not clear where it ends.
    Malformed(&'static str),
    /// Request line and headers are longer than [`HEAD_MAX`] or more than [`HEADERS_MAX`].
    HeadTooLarge,
    /// The body is longer than [`BODY_MAX`].
    BodyTooLarge,
    /// The connection broke, ended within a request, or was silent too long.
    Io(io::Error),
}

impl RequestError {
    /// Status of the answer; none if nobody would hear it.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Malformed(_) => Some(400),
            Self::HeadTooLarge => Some(431),
            Self::BodyTooLarge => Some(413),
            Self::Io(_) => None,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::HeadTooLarge => write!(f, "request line and headers must be at most {HEAD_MAX} bytes"),
            Self::BodyTooLarge => write!(f, "the body must be at most {BODY_MAX} bytes"),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl From<io::Error> for RequestError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// A request; the body is empty until [`Request::read_body`].
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// What followed `?`, as sent; empty if nothing did.
    pub query: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the caller will send another request on this connection.
    pub keep_alive: bool,
    framing: Framing,
}

impl Request {
    /// Reads request line and headers. `None`: the caller closed the connection between requests.
    pub fn read_head(from: &mut impl BufRead) -> Result<Option<Self>, RequestError> {
        let mut budget = HEAD_MAX;
        let line = match read_line(from, &mut budget)? {
            None => return Ok(None),
            // A blank line before the request is to be ignored (RFC 9112, section 2.2).
            Some(line) if line.is_empty() => match read_line(from, &mut budget)? {
                None => return Ok(None),
                Some(line) => line,
            },
            Some(line) => line,
        };
        let (method, target, old) = request_line(&line)?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(from, &mut budget)?.ok_or_else(cut)?;
            if line.is_empty() {
                break;
            }
            if headers.len() == HEADERS_MAX {
                return Err(RequestError::HeadTooLarge);
            }
            headers.push(header(&line)?);
        }
        let framing = framing(&headers, old)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let close = tokens(&headers, "connection").any(|t| t == "close");
        Ok(Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            body: Vec::new(),
            keep_alive: !old && !close,
            headers,
            framing,
        }))
    }

    /// Whether the caller waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.framing != Framing::Length(0)
            && self.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"))
    }

    /// Reads the body.
    pub fn read_body(&mut self, from: &mut impl BufRead) -> Result<(), RequestError> {
        match self.framing {
            Framing::Length(length) if length > BODY_MAX => return Err(RequestError::BodyTooLarge),
            Framing::Length(length) => {
                from.by_ref().take(length as u64).read_to_end(&mut self.body)?;
                if self.body.len() < length {
                    return Err(cut());
                }
            }
            Framing::Chunked => read_chunks(from, &mut self.body)?,
        }
        Ok(())
    }

    /// Value of the first header of that name (in lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Value of the first query parameter of that name, as sent; the examples take numbers only.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|p| p.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// Where the answer to one request goes.
pub struct Answer<'a> {
    to: &'a mut dyn Write,
    head_only: bool,
    close: bool,
}

impl<'a> Answer<'a> {
    /// An answer to `request`; `close`: no other request will be read from this connection.
    pub fn new(to: &'a mut dyn Write, request: &Request, close: bool) -> Self {
        Self { to, head_only: request.method == "HEAD", close }
    }

    /// The answer to something that was not a request.
    pub fn refusal(to: &'a mut dyn Write) -> Self {
        Self { to, head_only: false, close: true }
    }

    /// Sends a whole JSON answer.
    pub fn json(self, status: u16, body: &str) -> io::Result<()> {
        let mut answer = self.head(status, "application/json", &format!("content-length: {}", body.len()));
        if !self.head_only {
            answer.push_str(body);
        }
        self.to.write_all(answer.as_bytes())?;
        self.to.flush()
    }

    /// Starts an answer of plain text in chunks.
    pub fn chunks(self, status: u16) -> io::Result<Chunks<'a>> {
        let head = self.head(status, "text/plain; charset=utf-8", "transfer-encoding: chunked");
        self.to.write_all(head.as_bytes())?;
        self.to.flush()?;
        Ok(Chunks { to: self.to, head_only: self.head_only })
    }

    fn head(&self, status: u16, content_type: &str, framing: &str) -> String {
        let connection = if self.close { "connection: close\r\n" } else { "" };
        let phrase = phrase(status);
        format!("HTTP/1.1 {status} {phrase}\r\ncontent-type: {content_type}\r\n{connection}{framing}\r\n\r\n")
    }
}

/// An answer sent piece by piece. Dropping it without [`Chunks::end`] leaves the answer visibly unfinished.
pub struct Chunks<'a> {
    to: &'a mut dyn Write,
    head_only: bool,
}

impl Chunks<'_> {
    /// Sends a piece at once; an empty one sends nothing.
    pub fn send(&mut self, piece: &str) -> io::Result<()> {
        if !self.head_only && !piece.is_empty() {
            self.to.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
            self.to.flush()?;
        }
        Ok(())
    }

    /// Ends the answer.
    pub fn end(self) -> io::Result<()> {
        if !self.head_only {
            self.to.write_all(b"0\r\n\r\n")?;
            self.to.flush()?;
        }
        Ok(())
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

fn cut() -> RequestError {
    RequestError::Io(io::ErrorKind::UnexpectedEof.into())
}

/// A line without its line end; `None` at the end of the stream. Takes its length off `budget`.
fn read_line(from: &mut impl BufRead, budget: &mut usize) -> Result<Option<String>, RequestError> {
    let mut line = Vec::new();
    from.by_ref().take(*budget as u64).read_until(b'\n', &mut line)?;
    if line.is_empty() && *budget > 0 {
        return Ok(None);
    }
    if line.pop_if(|b| *b == b'\n').is_none() {
        return Err(if line.len() == *budget { RequestError::HeadTooLarge } else { cut() });
    }
    *budget -= line.len() + 1;
    if line.pop_if(|b| *b == b'\r').is_none() || line.contains(&b'\r') {
        return Err(RequestError::Malformed("lines must end in CR LF"));
    }
    String::from_utf8(line).map(Some).map_err(|_| RequestError::Malformed("headers must be UTF-8"))
}

/// Method, target and whether it is HTTP/1.0.
fn request_line(line: &str) -> Result<(&str, &str, bool), RequestError> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(RequestError::Malformed("the request line must be: METHOD /path HTTP/1.1"));
    };
    if !is_token(method) {
        return Err(RequestError::Malformed("the method must be a word"));
    }
    if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(RequestError::Malformed("the target must be a path starting with '/'"));
    }
    match version {
        "HTTP/1.1" => Ok((method, target, false)),
        "HTTP/1.0" => Ok((method, target, true)),
        _ => Err(RequestError::Malformed("the version must be HTTP/1.1 or HTTP/1.0")),
    }
}

fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn header(line: &str) -> Result<(String, String), RequestError> {
    let (name, value) = line.split_once(':').ok_or(RequestError::Malformed("a header must be name: value"))?;
    // Also refuses folded headers and space before the colon, which parsers disagree about.
    if !is_token(name) {
        return Err(RequestError::Malformed("a header's name must be a word"));
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(RequestError::Malformed("a header's value must not contain control characters"));
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn tokens<'a>(headers: &'a [(String, String)], name: &'a str) -> impl Iterator<Item = String> + 'a {
    let values = headers.iter().filter(move |(n, _)| n == name);
    values.flat_map(|(_, v)| v.split(',')).map(|t| t.trim().to_ascii_lowercase())
}

fn framing(headers: &[(String, String)], old: bool) -> Result<Framing, RequestError> {
    let lengths: Vec<_> = headers.iter().filter(|(n, _)| n == "content-length").collect();
    let encodings: Vec<_> = tokens(headers, "transfer-encoding").collect();
    match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => Ok(Framing::Length(0)),
        ([(_, length)], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| RequestError::BodyTooLarge)
        }
        ([], [encoding]) if encoding == "chunked" && !old => Ok(Framing::Chunked),
        ([], _) => Err(RequestError::Malformed("the only transfer-encoding understood is chunked, in HTTP/1.1")),
        (_, []) => Err(RequestError::Malformed("content-length must be one number")),
        _ => Err(RequestError::Malformed("content-length and transfer-encoding exclude each other")),
    }
}

fn read_chunks(from: &mut impl BufRead, body: &mut Vec<u8>) -> Result<(), RequestError> {
    // Sizes, extensions and trailers come out of this budget, chunk after chunk; it bounds many tiny chunks too.
    let mut budget = HEAD_MAX + BODY_MAX;
    loop {
        let line = read_line(from, &mut budget)?.ok_or_else(cut)?;
        let size = line.split_once(';').map_or(line.as_str(), |(size, _)| size.trim_end());
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(RequestError::Malformed("a chunk's size must be a hexadecimal number"));
        }
        let size = usize::from_str_radix(size, 16).map_err(|_| RequestError::BodyTooLarge)?;
        if size == 0 {
            break;
        }
        if body.len() + size > BODY_MAX {
            return Err(RequestError::BodyTooLarge);
        }
        let wanted = body.len() + size;
        from.by_ref().take(size as u64).read_to_end(body)?;
        let mut end = [0; 2];
        if body.len() < wanted || from.read_exact(&mut end).is_err() {
            return Err(cut());
        }
        if &end != b"\r\n" {
            return Err(RequestError::Malformed("a chunk must end in CR LF"));
        }
    }
    let mut budget = HEAD_MAX;
    while !read_line(from, &mut budget)?.ok_or_else(cut)?.is_empty() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Request>, RequestError> {
        read_from(&mut text.as_bytes())
    }

    fn read_from(from: &mut &[u8]) -> Result<Option<Request>, RequestError> {
        let Some(mut request) = Request::read_head(from)? else { return Ok(None) };
        request.read_body(from)?;
        Ok(Some(request))
    }

    fn status(text: &str) -> Option<u16> {
        read(text).map(|_| ()).expect_err(text).status()
    }

    #[test]
    fn requests_follow_each_other() {
        let mut stream: &[u8] = b"POST /a?x=1&ms=20 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
            PUT /b HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\nA \r\n0123456789\r\n0\r\nT: x\r\n\r\n\
            \r\nGET /c HTTP/1.1\r\nConnection: Close\r\n\r\n";
        let stream = &mut stream;
        let first = read_from(stream).unwrap().unwrap();
        assert_eq!((first.method.as_str(), first.path.as_str(), first.query.as_str()), ("POST", "/a", "x=1&ms=20"));
        assert_eq!((first.parameter("ms"), first.parameter("m"), first.header("host")), (Some("20"), None, Some("h")));
        assert_eq!((first.body.as_slice(), first.keep_alive), (b"abc".as_slice(), true));
        // "A " carries a space without an extension: refused, so the rest of the stream is of no use.
        assert_eq!(read_from(stream).unwrap_err().status(), Some(400));
    }

    #[test]
    fn chunks_extensions_and_trailers() {
        let mut stream: &[u8] =
            b"PUT /b HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nab\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n\
            \r\nGET /c HTTP/1.1\r\nConnection: Close\r\n\r\n";
        let stream = &mut stream;
        assert_eq!(read_from(stream).unwrap().unwrap().body, b"ab0123456789");
        let last = read_from(stream).unwrap().unwrap();
        assert_eq!((last.path.as_str(), last.keep_alive), ("/c", false));
        assert!(read_from(stream).unwrap().is_none());
    }

    #[test]
    fn malformed_requests_are_400() {
        for text in [
            "GET\r\n\r\n",
            "GET / HTTP/1.1 x\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET /é HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\r\na\r\n\r\n",
            "GET / HTTP/1.1\r\n a: b\r\n\r\n",
            "GET / HTTP/1.1\r\na : b\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\na: b\0\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
            "GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\nx",
            "GET / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\nx",
            "GET / HTTP/1.1\r\ncontent-length:\r\n\r\nx",
            "GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert_eq!(status(text), Some(400), "{text:?}");
        }
    }

    #[test]
    fn limits_hold_at_the_byte() {
        let fits = HEAD_MAX - "GET / HTTP/1.1\r\na: \r\n\r\n".len();
        let head = |n: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(n));
        assert!(read(&head(fits)).unwrap().is_some());
        assert_eq!(status(&head(fits + 1)), Some(431));
        assert_eq!(status(&"x".repeat(HEAD_MAX + 1)), Some(431));
        let many = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert!(read(&many(HEADERS_MAX)).is_ok());
        assert_eq!(status(&many(HEADERS_MAX + 1)), Some(431));
        let body = |n: usize| format!("POST / HTTP/1.1\r\ncontent-length: {n}\r\n\r\n{}", "x".repeat(n));
        assert_eq!(read(&body(BODY_MAX)).unwrap().unwrap().body.len(), BODY_MAX);
        assert_eq!(status(&body(BODY_MAX + 1)), Some(413));
        assert_eq!(status("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n"), Some(413));
        let chunks = |size: &str| format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\n");
        assert_eq!(status(&chunks("100001")), Some(413));
        assert_eq!(status(&chunks("FFFFFFFFF")), Some(400));
        let tiny = format!(
            "{}{}",
            chunks("1").trim_end_matches("1\r\n"),
            format!("1;{}\r\na\r\n", "x".repeat(9000)).repeat(200)
        );
        assert_eq!(status(&tiny), Some(431));
    }

    #[test]
    fn a_cut_connection_is_not_a_request() {
        let whole = "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for text in [whole, chunked] {
            assert!(read(text).unwrap().is_some());
            for end in 1..text.len() {
                assert!(matches!(read(&text[..end]), Err(RequestError::Io(_))), "{:?}", &text[..end]);
            }
        }
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let request = read("GET / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        let mut out = Vec::new();
        Answer::new(&mut out, &request, true).json(200, "{}").unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
        );
        let mut out = Vec::new();
        let mut chunks = Answer::new(&mut out, &request, false).chunks(200).unwrap();
        chunks.send("0123456789abcdef").unwrap();
        chunks.send("").unwrap();
        chunks.end().unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"));
        let head = read("HEAD / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        let mut out = Vec::new();
        Answer::new(&mut out, &head, false).json(200, "{}").unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("content-length: 2\r\n\r\n"));
    }
}
