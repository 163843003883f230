//! The query of a request, read strictly: every parameter at most once, and none that nobody asked for, since a
//! parameter that is silently ignored is a filter that silently does not filter.

use std::collections::BTreeMap;

use crate::error::ApiError;

/// Parameters not read yet.
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `a=b&c=d`.
    ///
    /// # Errors
    /// When an escape is malformed, a text is no UTF-8, or a parameter is there twice.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(ApiError::malformed("The query has a malformed escape; escapes are %XX of UTF-8."));
            };
            if parameters.insert(name.clone(), value).is_some() {
                return Err(ApiError::malformed(format!("The query parameter {name:?} is there twice.")));
            }
        }
        Ok(Self(parameters))
    }

    /// A text that may be absent.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// `true` or `false`; absent is false.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.0.remove(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::malformed(format!("The query parameter {name:?} must be true or false."))),
        }
    }

    /// The length of a page: 1 to 1,000.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn limit(&mut self) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.0.remove("limit") else { return Ok(None) };
        match text.parse() {
            Ok(limit @ 1..=1000) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(limit)),
            _ => Err(ApiError::malformed("The query parameter \"limit\" must be a number from 1 to 1000.")),
        }
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// When a parameter is left.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::malformed(format!("The query parameter {name:?} is not known here."))),
        }
    }
}

/// Undoes `%XX` and `+`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_parameter_once() {
        let mut query = Query::parse("q=a%20b+c&dry_run=true&limit=10&").unwrap();
        assert_eq!(query.text("q").as_deref(), Some("a b c"));
        assert_eq!((query.flag("dry_run").unwrap(), query.limit().unwrap()), (true, Some(10)));
        assert!(query.finish().is_ok());
    }

    #[test]
    fn refuses_the_rest() {
        for bad in ["a=1&a=2", "a=%", "a=%f", "a=%zz", "a=%ff"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse("colour=red").unwrap().finish().is_err());
        assert!(Query::parse("dry_run=1").unwrap().flag("dry_run").is_err());
        for bad in ["0", "1001", "-1", "+5", "x", ""] {
            assert!(Query::parse(&format!("limit={}", bad.replace('+', "%2B"))).unwrap().limit().is_err(), "{bad}");
        }
    }
}
