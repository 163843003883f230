//! Entity tags and preconditions. A function's tag is `"{id}.{generation}.{digest}"`: the digest covers the whole
//! document, status and all, so that `If-None-Match` never hides a change of status; `If-Match` compares id and
//! generation alone, so that a write never fails because a pod became ready meanwhile.

use eventflow_api::problem::ProblemCode;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::ApiError;

/// What `If-Match` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing, or `*`: that it exists, which every write asks for anyway.
    None,
    /// One of these versions: row ids and generations.
    Versions(Vec<(Uuid, i64)>),
}

/// The tag of a document.
#[must_use]
pub fn of(id: &Uuid, generation: i64, document: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(document);
    let short =
        u64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]]);
    // Hexadecimal digits, dashes and dots are allowed in every header.
    HeaderValue::from_str(&format!("\"{id}.{generation}.{short:016x}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// What `If-Match` asks for. Tags that were never ours, and weak ones, match nothing.
///
/// # Errors
/// When the header is no list of tags.
pub fn if_match(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let Some(tags) = tags(headers, &IF_MATCH)? else { return Ok(Precondition::None) };
    if tags == ["*"] {
        return Ok(Precondition::None);
    }
    Ok(Precondition::Versions(tags.iter().filter_map(|tag| version(tag)).collect()))
}

/// The tags that `If-Match` lists, for things whose tags are of another make.
///
/// # Errors
/// When the header is no list of tags.
pub fn listed(headers: &HeaderMap) -> Result<Option<Vec<String>>, ApiError> {
    tags(headers, &IF_MATCH)
}

/// Whether `If-None-Match` lists this tag, so that there is nothing new to send.
///
/// # Errors
/// When the header is no list of tags.
pub fn is_unchanged(headers: &HeaderMap, tag: &HeaderValue) -> Result<bool, ApiError> {
    let Some(tags) = tags(headers, &IF_NONE_MATCH)? else { return Ok(false) };
    Ok(tags.iter().any(|listed| listed == "*" || listed.trim_start_matches("W/").as_bytes() == tag.as_bytes()))
}

/// The precondition failed.
#[must_use]
pub fn failed() -> ApiError {
    let detail = "It was changed meanwhile. Read it again and repeat with the new ETag.";
    ApiError::new(ProblemCode::PreconditionFailed, detail)
}

fn version(tag: &str) -> Option<(Uuid, i64)> {
    let mut parts = tag.strip_prefix('"')?.strip_suffix('"')?.splitn(3, '.');
    let id = parts.next()?.parse().ok()?;
    Some((id, parts.next()?.parse().ok()?))
}

/// The tags that a header lists; a tag has no comma in it unless it was never ours.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>, ApiError> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| malformed(name))?;
        for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            let quoted = tag.strip_prefix("W/").unwrap_or(tag);
            let is_tag = quoted.len() >= 2 && quoted.starts_with('"') && quoted.ends_with('"');
            if !is_tag && tag != "*" {
                return Err(malformed(name));
            }
            tags.push(tag.to_owned());
        }
    }
    let lone_star = tags.len() == 1 || tags.iter().all(|tag| tag != "*");
    if tags.is_empty() || !lone_star {
        return Err(malformed(name));
    }
    Ok(Some(tags))
}

fn malformed(name: &HeaderName) -> ApiError {
    ApiError::malformed(format!("The header {name} must be * or a list of entity tags in double quotes."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(IF_MATCH, value.parse().unwrap()), (IF_NONE_MATCH, value.parse().unwrap())])
    }

    #[test]
    fn a_tag_leads_back_to_its_version() {
        let id = Uuid::from_u128(7);
        let tag = of(&id, 3, b"document");
        let listed = format!("\"other\", {}", tag.to_str().unwrap());
        assert_eq!(if_match(&headers(&listed)).unwrap(), Precondition::Versions(vec![(id, 3)]));
        assert!(is_unchanged(&headers(&listed), &tag).unwrap());
        assert!(!is_unchanged(&headers(&listed), &of(&id, 3, b"changed")).unwrap());
    }

    #[test]
    fn weak_and_foreign_tags_match_no_write() {
        let weak = format!("W/{}", of(&Uuid::nil(), 1, b"").to_str().unwrap());
        for none in [weak.as_str(), "\"x\"", "\"a,b\", \"c\""] {
            let outcome = if_match(&headers(none));
            assert!(matches!(&outcome, Ok(Precondition::Versions(v)) if v.is_empty()) || outcome.is_err(), "{none}");
        }
        assert_eq!(if_match(&headers("*")).unwrap(), Precondition::None);
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), Precondition::None);
        for bad in ["x", "", "*, \"a\"", "\""] {
            assert!(if_match(&headers(bad)).is_err(), "{bad}");
        }
    }
}
