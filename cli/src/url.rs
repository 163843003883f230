//! The URL of a platform: scheme, host, and maybe a path in front of the API's. Carries no credentials: they would end
//! up in logs and in the process list.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

/// Why a URL was refused. The text is meant for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No URL at all.
    #[error("must be a URL such as https://eventflow.example.com")]
    Malformed,
    /// Another scheme.
    #[error("must start with https:// or http://")]
    Scheme,
    /// `user:password@`.
    #[error("must not contain a user name or password; sign in with `eventflow login`")]
    Credentials,
    /// `?a=b`.
    #[error("must not have a query")]
    Query,
}

/// The URL of a platform, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(String);

impl BaseUrl {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL of a path of the API, which starts with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether what is sent there can be read on the way.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("http://") else { return false };
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.parse::<http::uri::Authority>().map(|a| a.host().to_owned()).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        !is_loopback && host != "localhost" && !host.ends_with(".localhost")
    }
}

impl FromStr for BaseUrl {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Malformed)?;
        if !matches!(scheme, "http" | "https") {
            return Err(UrlError::Scheme);
        }
        if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
            return Err(UrlError::Credentials);
        }
        if rest.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let text = format!("{scheme}://{}", rest.trim_end_matches('/'));
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(UrlError::Malformed);
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> BaseUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_is_kept_and_a_slash_at_the_end_is_not() {
        assert_eq!(url("http://127.0.0.1:8080/").join("/v1/me"), "http://127.0.0.1:8080/v1/me");
        assert_eq!(url("https://a.example/eventflow/").join("/v1/me"), "https://a.example/eventflow/v1/me");
    }

    #[test]
    fn the_rest_is_refused() {
        use UrlError::*;
        let bad = [
            ("", Malformed),
            ("a.example", Malformed),
            ("ftp://a.example", Scheme),
            ("https://", Malformed),
            ("https://u:p@a.example", Credentials),
            ("https://a.example?x", Query),
            ("https://a b", Malformed),
        ];
        for (text, error) in bad {
            assert_eq!(text.parse::<BaseUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn plain_http_is_safe_on_this_machine_alone() {
        for safe in ["https://a.example", "http://127.0.0.1:8080", "http://[::1]:80/x", "http://localhost:1"] {
            assert!(!url(safe).is_exposed(), "{safe}");
        }
        for exposed in ["http://a.example", "http://10.0.0.1", "http://127.0.0.1.example", "http://localhost.example"] {
            assert!(url(exposed).is_exposed(), "{exposed}");
        }
    }
}
