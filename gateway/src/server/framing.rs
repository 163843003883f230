//! Where each message of an HTTP/1 stream begins and ends, told strictly, so that nobody in front of us can read the
//! same bytes otherwise: lines end in CR LF, nothing is folded, a body has one length. Pure; reads no socket, writes no
//! answer. Whatever passes here is parsed again by hyper, which is more lenient and has no problem document to give.

use bytes::{Buf, Bytes, BytesMut};

/// Most fields of a head, as hyper counts them.
const FIELDS_MAX: usize = 100;
/// Longest line that announces a chunk, in bytes.
const CHUNK_LINE_MAX: usize = 1024;
/// Most digits of a length: none overflows.
const LENGTH_DIGITS_MAX: usize = 18;
/// Most hexadecimal digits of a chunk's length: none overflows.
const CHUNK_DIGITS_MAX: usize = 15;

/// What is wrong with a stream. Nothing after it can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The head is longer than we read, or has too many fields.
    #[error("the head of the request is too large")]
    HeadTooLarge,
    /// It is no HTTP, or could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of a body.
    Sized(u64),
    ChunkLine,
    /// So many bytes of a chunk.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// What follows a wish to speak another protocol is not ours to read.
    Other,
}

/// Follows one stream.
#[derive(Debug)]
pub struct Framing {
    next: Next,
    max_head: usize,
    heads: u64,
    /// How far the head or the trailers at the front of the inbox were looked at, and where the line there began.
    looked: usize,
    line: usize,
}

impl Framing {
    /// Follows a stream whose heads are at most `max_head` bytes long.
    pub fn new(max_head: usize) -> Self {
        Self { next: Next::Head, max_head, heads: 0, looked: 0, line: 0 }
    }

    /// How many heads were taken.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head comes next.
    pub fn is_between_messages(&self) -> bool {
        self.next == Next::Head
    }

    /// How many bytes come next that are to be handed on as they are.
    pub fn plain(&self) -> u64 {
        match self.next {
            Next::Sized(left) | Next::Chunk(left) => left,
            Next::Other => u64::MAX,
            _ => 0,
        }
    }

    /// Notes that so many of the [`Framing::plain`] bytes were handed on.
    pub fn passed(&mut self, count: u64) {
        self.next = match self.next {
            Next::Sized(left) if left > count => Next::Sized(left - count),
            Next::Sized(_) => Next::Head,
            Next::Chunk(left) if left > count => Next::Chunk(left - count),
            Next::Chunk(_) => Next::ChunkEnd,
            other => other,
        };
    }

    /// Takes what can be handed on from the front of the inbox; nothing if more has to come first.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn take(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        if inbox.is_empty() {
            return Ok(None);
        }
        match self.next {
            Next::Head => self.head(inbox),
            Next::ChunkLine => self.chunk_line(inbox),
            Next::ChunkEnd => self.chunk_end(inbox),
            Next::Trailers => self.trailers(inbox),
            Next::Sized(_) | Next::Chunk(_) | Next::Other => {
                let count = self.plain().min(inbox.len() as u64);
                self.passed(count);
                // No more than the inbox holds.
                Ok(Some(inbox.split_to(count as usize).freeze()))
            }
        }
    }

    fn head(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        // A line break that somebody sent too many after a body is to be overlooked (RFC 9112, 2.2).
        while inbox.starts_with(b"\r\n") {
            inbox.advance(2);
            self.looked = 0;
        }
        let Some(end) = self.end_of_lines(inbox)? else { return Ok(None) };
        let head = inbox.split_to(end).freeze();
        self.next = after(&head)?;
        self.heads += 1;
        Ok(Some(head))
    }

    fn trailers(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        let none = inbox.starts_with(b"\r\n");
        let Some(end) = (if none { Some(2) } else { self.end_of_lines(inbox)? }) else { return Ok(None) };
        self.looked = 0;
        let trailers = inbox.split_to(end).freeze();
        for line in lines(&trailers) {
            field(line)?;
        }
        self.next = Next::Head;
        Ok(Some(trailers))
    }

    /// Where the lines at the front of the inbox end: after the first empty one.
    fn end_of_lines(&mut self, inbox: &BytesMut) -> Result<Option<usize>, Fault> {
        while let Some(at) = inbox[self.looked..].iter().position(|byte| *byte == b'\n') {
            let end = self.looked + at;
            if end == 0 || inbox[end - 1] != b'\r' {
                return Err(BARE_LINE_END);
            }
            let empty = end - 1 == self.line;
            (self.looked, self.line) = (end + 1, end + 1);
            if end >= self.max_head {
                return Err(Fault::HeadTooLarge);
            }
            if empty {
                (self.looked, self.line) = (0, 0);
                return Ok(Some(end + 1));
            }
        }
        self.looked = inbox.len();
        if inbox.len() > self.max_head { Err(Fault::HeadTooLarge) } else { Ok(None) }
    }

    fn chunk_line(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        let Some(end) = inbox.iter().take(CHUNK_LINE_MAX).position(|byte| *byte == b'\n') else {
            return if inbox.len() < CHUNK_LINE_MAX { Ok(None) } else { Err(BAD_CHUNK) };
        };
        let line = inbox.split_to(end + 1).freeze();
        let text = line.strip_suffix(b"\r\n").ok_or(BARE_LINE_END)?;
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (length, extension) = text.split_at(digits);
        if !matches!(extension, [] | [b';', ..]) || !extension.iter().all(|byte| is_of_value(*byte)) {
            return Err(BAD_CHUNK);
        }
        let length = std::str::from_utf8(length).ok().filter(|digits| digits.len() <= CHUNK_DIGITS_MAX);
        let length = length.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(BAD_CHUNK)?;
        self.next = if length == 0 { Next::Trailers } else { Next::Chunk(length) };
        Ok(Some(line))
    }

    fn chunk_end(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, Fault> {
        if inbox.len() < 2 {
            return if inbox.starts_with(b"\r") { Ok(None) } else { Err(BAD_CHUNK) };
        }
        if !inbox.starts_with(b"\r\n") {
            return Err(BAD_CHUNK);
        }
        self.next = Next::ChunkLine;
        Ok(Some(inbox.split_to(2).freeze()))
    }
}

const BARE_LINE_END: Fault = Fault::Malformed("a line ends with LF alone; lines end with CR and LF");
const BAD_CHUNK: Fault = Fault::Malformed("a chunk of the body is malformed");
const TWO_LENGTHS: Fault = Fault::Malformed("the body's length is given twice; send one Content-Length or chunks");

/// The lines of a head or of trailers, without their ends and the empty one.
fn lines(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = section.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty())
}

/// What follows a head.
fn after(head: &[u8]) -> Result<Next, Fault> {
    let mut lines = lines(head);
    let request = request_line(lines.next().unwrap_or_default())?;
    let (mut hosts, mut length, mut chunked, mut upgrade) = (0, None, false, false);
    for (number, line) in lines.enumerate() {
        if number == FIELDS_MAX {
            return Err(Fault::HeadTooLarge);
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(TWO_LENGTHS);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Malformed("the only Transfer-Encoding that is read here is chunked"));
            }
            if std::mem::replace(&mut chunked, true) {
                return Err(TWO_LENGTHS);
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        }
    }
    match (request.is_http11, chunked, length) {
        (false, true, _) => Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding")),
        (_, true, Some(_)) => Err(TWO_LENGTHS),
        (true, ..) if hosts != 1 => Err(Fault::Malformed("a request has exactly one Host field")),
        (_, true, None) => Ok(Next::ChunkLine),
        (_, false, Some(length)) if length > 0 => Ok(Next::Sized(length)),
        _ if upgrade || request.is_connect => Ok(Next::Other),
        _ => Ok(Next::Head),
    }
}

struct RequestLine {
    is_http11: bool,
    is_connect: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine, Fault> {
    let malformed = Fault::Malformed("the request line is not a method, a target and HTTP/1.1, a space between each");
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed);
    };
    let is_http11 = version == b"HTTP/1.1";
    if !is_token(method) || !(is_http11 || version == b"HTTP/1.0") {
        return Err(malformed);
    }
    if !target.iter().all(u8::is_ascii_graphic) || http::Uri::try_from(target).is_err() {
        return Err(Fault::Malformed("the target of the request is no URI"));
    }
    Ok(RequestLine { is_http11, is_connect: method == b"CONNECT" })
}

/// Name and value of a field.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err(Fault::Malformed("a field is folded over two lines"));
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or(Fault::Malformed("a field has no colon"))?);
    if !is_token(name) {
        return Err(Fault::Malformed("the name of a field has characters that no name has"));
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value[1..].iter().position(|byte| !is_blank(byte)).map_or(value.len(), |at| at + 1);
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |at| start.max(at + 1));
    let value = &value[start..end];
    if !value.iter().all(|byte| is_of_value(*byte)) {
        return Err(Fault::Malformed("the value of a field has control characters"));
    }
    Ok((name, value))
}

fn content_length(value: &[u8]) -> Result<u64, Fault> {
    let digits = (1..=LENGTH_DIGITS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|digits| digits.parse().ok());
    length.ok_or(Fault::Malformed("Content-Length is no number"))
}

fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn is_of_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the text in pieces of this size; what was handed on, and how it ended.
    fn feed(text: &str, piece: usize) -> (Vec<u8>, Framing, Option<Fault>) {
        let (mut framing, mut inbox, mut out) = (Framing::new(1000), BytesMut::new(), Vec::new());
        for bytes in text.as_bytes().chunks(piece) {
            inbox.extend_from_slice(bytes);
            loop {
                match framing.take(&mut inbox) {
                    Ok(Some(taken)) => out.extend_from_slice(&taken),
                    Ok(None) => break,
                    Err(fault) => return (out, framing, Some(fault)),
                }
            }
        }
        (out, framing, None)
    }

    #[test]
    fn well_framed_messages_pass_as_they_are_however_they_are_cut() {
        let get = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Y:\tz \r\n\r\n";
        let sized = "POST / HTTP/1.1\r\nhost:x\r\ncontent-length: 10\r\n\r\nGET / H\r\n\n";
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       a;x=\"y\"\r\n\r\n\r\n\r\n\r\n\r\n\r\n5\r\n01234\r\n0\r\nTrailer: a\r\n\r\n";
        let plain = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let text = [get, sized, chunked, plain, "GET / HTTP/1.0\r\n\r\n", get].concat();
        for piece in [1, 2, 3, 7, 50, text.len()] {
            let (out, framing, fault) = feed(&text, piece);
            assert_eq!(fault, None);
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!((framing.heads(), framing.is_between_messages()), (6, true));
        }
    }

    #[test]
    fn empty_lines_before_a_head_are_overlooked() {
        let (out, framing, fault) = feed("\r\n\r\nGET / HTTP/1.0\r\n\r\n", 1);
        assert_eq!((out.as_slice(), framing.heads(), fault), (&b"GET / HTTP/1.0\r\n\r\n"[..], 1, None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_request() {
        let heads = [
            "GET / HTTP/1.1\nHost: x\n\n",
            "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX: a\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nX\u{e9}: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET /\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
            "GET / http/1.1\r\nHost: x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for head in heads {
            for piece in [1, head.len()] {
                let (out, framing, fault) = feed(head, piece);
                assert!(matches!(fault, Some(Fault::Malformed(_))), "{head:?}");
                assert!(out.is_empty() && framing.heads() == 0, "{head:?}");
            }
        }
    }

    #[test]
    fn malformed_chunks_end_the_stream() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = format!("1;{}\r\na\r\n", "x".repeat(2000));
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "1 \r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1;\x01\r\na\r\n",
            "1;a\rb\r\na\r\n",
            "10000000000000000\r\n",
            "0\r\na\r\n\r\n",
            "0\r\nX: a\n\r\n",
            &long,
        ] {
            let (_, framing, fault) = feed(&format!("{head}{body}"), 1);
            assert!(matches!(fault, Some(Fault::Malformed(_))), "{body:?}");
            assert_eq!(framing.heads(), 1);
        }
    }

    #[test]
    fn heads_have_a_size() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        assert_eq!(feed(&head(&format!("X: {}\r\n", "a".repeat(1000))), 100).2, Some(Fault::HeadTooLarge));
        assert_eq!(feed(&"a".repeat(1001), 10).2, Some(Fault::HeadTooLarge), "whether it ends or not");
        assert_eq!(feed(&head(&"a:b\r\n".repeat(99)), 100).2, None);
        assert_eq!(feed(&head(&"a:b\r\n".repeat(100)), 100).2, Some(Fault::HeadTooLarge));
    }

    #[test]
    fn after_an_upgrade_nothing_is_read() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}\n\n";
        let (out, framing, fault) = feed(text, 5);
        assert_eq!((out.as_slice(), framing.heads(), fault), (text.as_bytes(), 1, None));
    }
}
