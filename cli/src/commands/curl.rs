//! `curl`: calls a function over HTTP as the caller that one is signed in as. The answer is passed on as it comes.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use eventflow_api::names::FunctionName;
use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::client::{CallError, Request};
use crate::error::CliError;
use crate::input;
use crate::output::clean;
use crate::session::Session;

/// On answers that the platform gave in the function's place.
const PLATFORM_ERROR: HeaderName = HeaderName::from_static("x-eventflow-error");
/// Longest body that is sent.
const BODY_MAX: u64 = 64 << 20;

/// Call a function.
#[derive(Debug, Args)]
pub struct Curl {
    /// The function.
    name: FunctionName,
    /// Path and query, as the function sees them.
    #[arg(default_value = "/", value_parser = path)]
    path: String,
    /// The method; POST if there is a body, GET otherwise.
    #[arg(short = 'X', long)]
    method: Option<Method>,
    /// A header, `Name: value`; may be given many times.
    #[arg(short = 'H', long, value_name = "HEADER", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    #[arg(short, long, value_name = "TEXT", conflicts_with = "data_file")]
    data: Option<String>,
    /// A file that is the body, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// Also show the status and the headers, on standard error.
    #[arg(short, long)]
    include: bool,
    /// Exit with 7 if the function's status is 400 or more.
    #[arg(short, long)]
    fail: bool,
}

fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() && !text.contains('#');
    if is_path {
        Ok(text.to_owned())
    } else {
        Err("must be a path such as /items?limit=2, escaped where needed".to_owned())
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse::<HeaderName>().ok()?, value.trim().parse::<HeaderValue>().ok()?))
    });
    parsed.ok_or_else(|| "must be `Name: value`".to_owned())
}

impl Curl {
    /// Calls it once, since nobody knows whether it may be called twice.
    ///
    /// # Errors
    /// The platform could not pass the call on; with `--fail`, a status of failure.
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let response = session.client.open(&self.request().await?, None).await?;
        if response.headers().contains_key(PLATFORM_ERROR) {
            return Err(session.client.failure(response).await.into());
        }
        let status = response.status();
        if self.include {
            tell_head(session, &response);
        }
        pass_on(session, response).await?;
        if self.fail && (status.is_client_error() || status.is_server_error()) {
            let (name, reason) = (self.name.to_string(), "HTTP".to_owned());
            return Err(CliError::Failed { name, reason, message: format!("it answered {status}") });
        }
        Ok(())
    }

    async fn request(&self) -> Result<Request, CliError> {
        let body = match (&self.data, &self.data_file) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(file)) => Some(input::whole(file, BODY_MAX).await?),
            (None, None) => None,
        };
        let method = self.method.clone().unwrap_or(if body.is_some() { Method::POST } else { Method::GET });
        let mut request = Request::new(method, &["v1", "functions", self.name.as_str(), "http"]).then(&self.path);
        request = request.header(ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(body) = body {
            request = request.bytes("application/octet-stream", body);
        }
        for (name, value) in &self.header {
            request = request.header(name.clone(), value.clone());
        }
        Ok(request.once())
    }
}

fn tell_head(session: &Session, response: &Response<Incoming>) {
    session.output.tell(&response.status().to_string());
    for (name, value) in response.headers() {
        session.output.tell(&format!("{name}: {}", clean(&String::from_utf8_lossy(value.as_bytes()))));
    }
    session.output.tell("");
}

/// Writes the body as it comes, byte by byte as the function wrote it.
async fn pass_on(session: &Session, response: Response<Incoming>) -> Result<(), CliError> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let broken =
            |error: hyper::Error| CallError::Broken { url: session.client.url().clone(), reason: error.to_string() };
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            let mut out = std::io::stdout().lock();
            out.write_all(&data).and_then(|()| out.flush()).map_err(CliError::Output)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_headers_are_strict() {
        assert_eq!(path("/a/b?c=%20d").as_deref(), Ok("/a/b?c=%20d"));
        for bad in ["", "a", "/a b", "http://x/", "/a#b", "/\u{e4}\n"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(header("X-A: b:c").unwrap(), (HeaderName::from_static("x-a"), HeaderValue::from_static("b:c")));
        for bad in ["X-A", "X A: b", "X-A: b\nX-B: c", ": x"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
