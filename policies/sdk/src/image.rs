//! An image reference in its parts, with the defaults written out that container runtimes assume: `hello` means
//! `docker.io/library/hello:latest`. A policy that compares text instead can be walked around.

use eventflow_api::image::{ImageError, ImageRef};

/// An image reference in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageParts {
    /// Registry host with its port, in lower case; `docker.io` if none is written.
    pub registry: String,
    /// Path within the registry; `library/` is written out for `docker.io`.
    pub repository: String,
    /// The tag, if one is written.
    pub tag: Option<String>,
    /// The digest, if one is written: `sha256:...`.
    pub digest: Option<String>,
}

impl ImageParts {
    /// Takes a reference apart.
    ///
    /// # Errors
    /// Text that is not an image reference.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let whole: ImageRef = text.parse()?;
        let (rest, digest) = match whole.as_str().split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (whole.as_str(), None),
        };
        // A colon after the last slash starts a tag; one before it belongs to the registry's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((name, tag)) => (&rest[..name_start + name.len()], Some(tag.to_owned())),
            None => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_registry(host) => (host.to_ascii_lowercase(), path),
            _ => ("docker.io".to_owned(), name),
        };
        let registry = if registry == "index.docker.io" { "docker.io".to_owned() } else { registry };
        let official = registry == "docker.io" && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        Ok(Self { registry, repository, tag, digest })
    }

    /// Whether `registry/repository` is `pattern` or lies below it, whole path segments only: `ghcr.io/acme` covers
    /// `ghcr.io/acme/app` and not `ghcr.io/acme-evil/app`.
    #[must_use]
    pub fn is_under(&self, pattern: &str) -> bool {
        let place = format!("{}/{}", self.registry, self.repository);
        let pattern = pattern.trim_end_matches('/');
        place.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The rule of container runtimes: a first segment with a dot, a colon or a capital, or `localhost`, is a registry.
fn is_registry(segment: &str) -> bool {
    segment == "localhost" || segment.contains(['.', ':']) || segment.chars().any(|c| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_written_out() {
        for (text, registry, repository, tag) in [
            ("hello", "docker.io", "library/hello", None),
            ("hello:v1", "docker.io", "library/hello", Some("v1")),
            ("acme/app:1", "docker.io", "acme/app", Some("1")),
            ("index.docker.io/acme/app", "docker.io", "acme/app", None),
            ("localhost/app", "localhost", "app", None),
            ("127.0.0.1:5000/app:1", "127.0.0.1:5000", "app", Some("1")),
            ("Registry.Example/app", "registry.example", "app", None),
        ] {
            let parts = ImageParts::parse(text).unwrap();
            let got = (parts.registry.as_str(), parts.repository.as_str(), parts.tag.as_deref());
            assert_eq!(got, (registry, repository, tag), "{text}");
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let both = ImageParts::parse(&format!("ghcr.io/acme/app:1@{digest}")).unwrap();
        assert_eq!((both.tag.as_deref(), both.digest), (Some("1"), Some(digest)));
    }

    #[test]
    fn places_are_compared_by_segment() {
        let image = ImageParts::parse("ghcr.io/acme/app:1").unwrap();
        assert!(["ghcr.io", "ghcr.io/", "ghcr.io/acme", "ghcr.io/acme/app"].iter().all(|p| image.is_under(p)));
        assert!(!["ghcr.i", "ghcr.io/acm", "ghcr.io/acme/app/x", "ghcr.io/acme/ap"].iter().any(|p| image.is_under(p)));
    }
}
