//! Settings from the environment, where a function gets them. Never fails: a value that makes no sense is
//! reported on standard error and the default is used, so that an example always starts.

use std::fmt::Display;
use std::str::FromStr;

/// The variable's text, if it is set and not empty.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "functions have no flags; this is their one place that reads the environment"
)]
pub fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variable read as a `T`, or `default`.
pub fn value<T: FromStr + Display>(name: &str, default: T) -> T {
    read(name, text(name).as_deref(), default)
}

/// Port to serve HTTP on: `PORT`, 8080 by default.
#[must_use]
pub fn port() -> u16 {
    value("PORT", 8080)
}

/// What the platform and the tenant told the function: variables starting with `EVENTFLOW_`, and the two the
/// examples of the documentation set, `GREETING` and `VERSION`. Sorted by name.
#[must_use]
pub fn tenant_environment() -> Vec<(String, String)> {
    let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let mut shown: Vec<_> =
        all.filter(|(k, _)| k.starts_with("EVENTFLOW_") || k == "GREETING" || k == "VERSION").collect();
    shown.sort();
    shown
}

fn read<T: FromStr + Display>(name: &str, text: Option<&str>, default: T) -> T {
    let Some(text) = text else { return default };
    text.parse().unwrap_or_else(|_| {
        eprintln!("{name}={text:?} makes no sense here, using {default}");
        default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_falls_back_to_the_default() {
        assert_eq!(read("PORT", None, 8080u16), 8080);
        assert_eq!(read("PORT", Some("81"), 8080u16), 81);
        assert_eq!(read("PORT", Some("99999"), 8080u16), 8080);
        assert_eq!(read("PORT", Some("x"), 8080u16), 8080);
    }
}
