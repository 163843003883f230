//! Container image references, in the grammar of `github.com/distribution/reference`. Never asks a registry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest reference, in bytes (255 for the name, 128 for the tag, the rest for the digest).
pub const IMAGE_MAX: usize = 512;
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// Why an image reference was refused. The text is meant for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Over the length budget.
    #[error("is longer than {IMAGE_MAX} characters")]
    TooLong,
    /// The registry host or port is malformed.
    #[error("has a malformed registry host or port")]
    Registry,
    /// The path is malformed.
    #[error(
        "must have a repository of lower-case letters, digits and separators, such as registry.example/team/app:1.0"
    )]
    Repository,
    /// The tag is malformed.
    #[error("has a malformed tag")]
    Tag,
    /// The digest is malformed.
    #[error("has a malformed digest; expected sha256: and 64 hexadecimal digits")]
    Digest,
}

/// A checked image reference: `[registry[:port]/]repository[:tag][@digest]`, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef(String);

impl ImageRef {
    /// The reference as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageError;
    fn try_from(s: String) -> Result<Self, ImageError> {
        s.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.0
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;
    fn from_str(s: &str) -> Result<Self, ImageError> {
        if s.is_empty() {
            return Err(ImageError::Empty);
        }
        if s.len() > IMAGE_MAX {
            return Err(ImageError::TooLong);
        }
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (s, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the registry's port.
        let path_start = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[path_start..].find(':') {
            Some(colon) => (&rest[..path_start + colon], Some(&rest[path_start + colon + 1..])),
            None => (rest, None),
        };
        check_name(name)?;
        tag.map_or(Ok(()), check_tag)?;
        digest.map_or(Ok(()), check_digest)?;
        Ok(Self(s.to_owned()))
    }
}

fn check_name(name: &str) -> Result<(), ImageError> {
    let path = match name.split_once('/') {
        // The first component is a registry if it looks like a host: a dot, a port, or localhost.
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            check_host(host)?;
            path
        }
        _ => name,
    };
    if name.len() > NAME_MAX || !path.split('/').all(is_component) { Err(ImageError::Repository) } else { Ok(()) }
}

fn check_host(host: &str) -> Result<(), ImageError> {
    let (domain, port) = match host.split_once(':') {
        Some((domain, port)) => (domain, Some(port)),
        None => (host, None),
    };
    let part = |p: &str| {
        !p.is_empty()
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !p.starts_with('-')
            && !p.ends_with('-')
    };
    let port_ok = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    if domain.split('.').all(part) && port_ok { Ok(()) } else { Err(ImageError::Registry) }
}

/// `alnum+ (separator alnum+)*`, where a separator is one dot, one or two underscores, or dashes.
fn is_component(s: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = s.starts_with(alnum) && s.ends_with(alnum);
    let separators = s.split(alnum).all(|sep| matches!(sep, "" | "." | "_" | "__") || sep.bytes().all(|b| b == b'-'));
    edges && separators
}

fn check_tag(tag: &str) -> Result<(), ImageError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let ok = tag.bytes().next().is_some_and(word)
        && tag.len() <= TAG_MAX
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if ok { Ok(()) } else { Err(ImageError::Tag) }
}

fn check_digest(digest: &str) -> Result<(), ImageError> {
    let hex = digest.strip_prefix("sha256:").ok_or(ImageError::Digest)?;
    let ok = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if ok { Ok(()) } else { Err(ImageError::Digest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_the_usual_forms() {
        let digest = format!("a@sha256:{}", "0a".repeat(32));
        for ok in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "127.0.0.1:5000/hello:v1",
            "localhost/a",
            "ghcr.io/o/n.a_b__c--d:T.x-1",
            &digest,
        ] {
            assert_eq!(ok.parse::<ImageRef>().map(String::from), Ok(ok.to_owned()));
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            " nginx",
            "nginx ",
            "Nginx",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a@",
            "a@sha256:00",
            "a@md5:0",
            "http://a/b",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "127.0.0.1:99999/a",
            "x.y:/a",
            "a\nb",
            "ä",
            "a:.x",
            "../x",
            "$(x)",
            "a b",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(s in "\\PC{0,80}") {
            let _ = s.parse::<ImageRef>();
        }
    }
}
