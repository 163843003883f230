//! `{function}.{tenant}.<domain>`: a function's own host name. Pure.

use http::Request;
use http::header::HOST;

/// The function and the tenant that a host name speaks of, as it spells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionHost {
    /// The function, perhaps none of that name.
    pub function: String,
    /// The tenant, perhaps none of that name.
    pub tenant: String,
}

impl FunctionHost {
    /// What the request's host speaks of, if it is below `domain`. A host there is never the API's, whatever its form.
    #[must_use]
    pub fn of<B>(request: &Request<B>, domain: &str) -> Option<Self> {
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str(),
            None => request.headers().get(HOST)?.to_str().ok()?,
        };
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_end_matches('.');
        let (names, end) = host.split_at_checked(host.len().checked_sub(domain.len())?)?;
        if !end.eq_ignore_ascii_case(domain) {
            return None;
        }
        let names = names.strip_suffix('.')?.to_ascii_lowercase();
        let (function, tenant) = names.split_once('.').unwrap_or((&names, ""));
        Some(Self { function: function.to_owned(), tenant: tenant.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: &str) -> Option<(String, String)> {
        let request = Request::get("/x").header("host", host).body(()).unwrap();
        FunctionHost::of(&request, "fn.test").map(|host| (host.function, host.tenant))
    }

    #[test]
    fn hosts_below_the_domain_are_functions() {
        let expected = Some(("hello".to_owned(), "alice".to_owned()));
        for host in ["hello.alice.fn.test", "Hello.ALICE.fn.TEST:8080", "hello.alice.fn.test."] {
            assert_eq!(of(host), expected, "{host}");
        }
        let request = Request::get("http://hello.alice.fn.test/x").header("host", "api").body(()).unwrap();
        assert!(FunctionHost::of(&request, "fn.test").is_some());
        assert_eq!(of("a.b.c.fn.test"), Some(("a".to_owned(), "b.c".to_owned())));
        assert_eq!(of("alice.fn.test"), Some(("alice".to_owned(), String::new())));
        for host in ["fn.test", "api.test", "hello.alice.xfn.test", "", "helloalicefn.test", "é.fn.tesé"] {
            assert_eq!(of(host), None, "{host}");
        }
    }
}
