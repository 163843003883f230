//! The lines of one pod, read from the API server: once, or again and again from where the last reading ended. Nothing
//! is read twice and nothing is left out, however often the connection breaks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::LogError;
use super::feed::Feed;
use super::line::Line;
use super::request::LogRequest;

/// Longest wait for the API server to begin.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// Longest line, in bytes; the rest of a longer one is left out.
const LINE_MAX: usize = 64 * 1024;
/// Wait between two readings: grows up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Where one pod's lines are read.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) api: Api<Pod>,
    pub(super) pod: Arc<str>,
    pub(super) container: String,
}

/// How far a pod's lines were read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    at: Option<Timestamp>,
    /// Lines read of that very time.
    count: usize,
}

impl Mark {
    fn note(&mut self, at: Timestamp) {
        self.count = if self.at == Some(at) { self.count + 1 } else { 1 };
        self.at = Some(at);
    }
}

/// Leaves out what was read before, since the API server begins at whole seconds.
struct Fresh {
    mark: Mark,
    seen: usize,
    /// Lines before this are not asked for.
    since: Option<Timestamp>,
}

impl Fresh {
    fn is(&mut self, at: Timestamp) -> bool {
        if self.since.is_some_and(|since| at < since) {
            return false;
        }
        match self.mark.at {
            Some(last) if at < last => false,
            Some(last) if at == last => {
                self.seen += 1;
                self.seen > self.mark.count
            }
            _ => true,
        }
    }
}

/// Lines as they come.
pub(super) struct Lines {
    reader: std::pin::Pin<Box<dyn AsyncBufRead + Send>>,
    pod: Arc<str>,
    mark: Mark,
    fresh: Fresh,
}

impl Lines {
    /// The next line, `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        while let Some(bytes) = read_line(&mut self.reader).await? {
            let Some(line) = Line::parse(&self.pod, &String::from_utf8_lossy(&bytes)) else { continue };
            if self.fresh.is(line.at) {
                self.mark.note(line.at);
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }
}

/// The next line without its end; of a long one, the beginning.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin + ?Sized)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        line.extend_from_slice(&part[..part.len().min(LINE_MAX - line.len())]);
        let used = end.map_or(bytes.len(), |end| end + 1);
        reader.consume_unpin(used);
        if end.is_some() {
            return Ok(Some(line));
        }
    }
}

impl Source {
    /// What was written so far. `None` when the container has not begun, or is gone.
    pub(super) async fn history(&self, request: &LogRequest) -> Result<Option<Lines>, LogError> {
        let params = LogParams {
            previous: request.previous,
            tail_lines: request.tail,
            since_time: request.since.map(whole_second),
            ..self.params()
        };
        let fresh = Fresh { mark: Mark::default(), seen: 0, since: request.since };
        match self.open(&params, fresh).await {
            Ok(lines) => Ok(Some(lines)),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => Ok(None),
            Err(error) => Err(LogError::Unavailable(error.into())),
        }
    }

    /// Adds to the feed what is written after `mark`, until the pod is gone.
    pub(super) async fn follow(self, mut mark: Mark, feed: Arc<Feed>) {
        let mut pause = PAUSES.0;
        loop {
            let params = LogParams { follow: true, since_time: mark.at.map(whole_second), ..self.params() };
            match self.open(&params, Fresh { mark, seen: 0, since: None }).await {
                Ok(mut lines) => {
                    while let Ok(Some(line)) = lines.next().await {
                        pause = PAUSES.0;
                        feed.push(line);
                    }
                    mark = lines.mark();
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                Err(error) => tracing::debug!(pod = &*self.pod, error = %error, "A log cannot be read yet."),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn params(&self) -> LogParams {
        LogParams { container: Some(self.container.clone()), timestamps: true, ..LogParams::default() }
    }

    async fn open(&self, params: &LogParams, fresh: Fresh) -> Result<Lines, kube::Error> {
        let opened = tokio::time::timeout(OPEN_DEADLINE, self.api.log_stream(&self.pod, params)).await;
        let opened = opened.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())));
        opened.map(|reader| Lines { reader: Box::pin(reader), pod: Arc::clone(&self.pod), mark: fresh.mark, fresh })
    }
}

/// The second that this is in. The API server takes whole seconds, and the client would round to the nearest one: lines
/// of half a second would be missing.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_was_read_is_not_read_again() {
        let mut mark = Mark::default();
        for second in [1, 2, 2] {
            mark.note(at(second));
        }
        let mut fresh = Fresh { mark, seen: 0, since: None };
        let new: Vec<bool> = [1, 2, 2, 2, 3].map(|second| fresh.is(at(second))).to_vec();
        assert_eq!(new, [false, false, false, true, true]);
        assert!(Fresh { mark: Mark::default(), seen: 0, since: None }.is(at(0)));
        let mut fresh = Fresh { mark: Mark::default(), seen: 0, since: Some(at(2)) };
        assert_eq!([1, 2, 3].map(|second| fresh.is(at(second))), [false, true, true]);
        assert_eq!(whole_second("2026-01-31T10:00:00.9Z".parse().unwrap()), "2026-01-31T10:00:00Z".parse().unwrap());
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_the_last_one_needs_no_end() {
        let text = format!("a\n{}\n\nend", "x".repeat(LINE_MAX + 10));
        let mut reader = futures::io::BufReader::with_capacity(100, text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = read_line(&mut reader).await.unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [1, LINE_MAX, 0, 3]);
    }
}
