//! What makes an answer a verdict: texts within their grammar, numbers within their range, sizes within the cap. The
//! guest's types are checked by wasmtime; this checks what types cannot say.

use crate::limits::Limits;
use crate::types::{AdmissionVerdict, Denial, Pair, Rate, RequestChange, RequestView, Verdict};

/// Why an answer is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnswer {
    /// A pointer, length or text in it is wild, or it is larger than the host takes.
    #[error("it cannot be read ({0})")]
    Unreadable(String),
    /// More text than an answer may have.
    #[error("it has {0} bytes of text, at most {1} are taken")]
    TooLarge(usize, usize),
    /// A field is out of its range or grammar.
    #[error("{0}")]
    Field(&'static str),
    /// A patch that is no JSON Patch or touches what it must not.
    #[error("{0}")]
    Patch(String),
    /// The policy does not answer this kind of question.
    #[error("it is a policy of the other world")]
    OtherWorld,
}

/// Headers a policy may neither set nor remove: they carry the connection, the caller's identity or the platform's
/// word.
const CLOSED_PREFIXES: [&str; 3] = ["sec-websocket-", "x-eventflow-", "x-forwarded-"];

const CLOSED_HEADERS: [&str; 15] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Checks a request verdict.
pub(crate) fn check_request(verdict: &Verdict, limits: &Limits) -> Result<(), InvalidAnswer> {
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::AllowWith(with) => {
            size(with.changes.iter().map(change_bytes).sum(), limits)?;
            with.changes.iter().try_for_each(change)
        }
        Verdict::Rate(wanted) => rate(wanted, limits),
        Verdict::Deny(refusal) => denial(refusal, limits),
    }
}

/// Checks an admission verdict, its patch only for size: [`crate::patch`] needs the object to judge the rest.
pub(crate) fn check_admission(verdict: &AdmissionVerdict, limits: &Limits) -> Result<(), InvalidAnswer> {
    match verdict {
        AdmissionVerdict::Allow => Ok(()),
        AdmissionVerdict::AllowWith(with) => {
            let warnings: usize = with.warnings.iter().map(|w| w.len() + 16).sum();
            size(with.patch.len() + warnings, limits)?;
            let printable = with.warnings.iter().all(|w| !w.chars().any(char::is_control));
            field(printable, "a warning has control characters")
        }
        AdmissionVerdict::Rate(wanted) => rate(wanted, limits),
        AdmissionVerdict::Deny(refusal) => denial(refusal, limits),
    }
}

/// Bytes of text in a view.
pub(crate) fn request_view_bytes(view: &RequestView) -> usize {
    let pairs = |pairs: &[Pair]| pairs.iter().map(|p| p.name.len() + p.value.len() + 16).sum::<usize>();
    view.path.len() + view.query.len() + view.subject.len() + pairs(&view.headers) + pairs(&view.claims)
}

fn change_bytes(change: &RequestChange) -> usize {
    16 + match change {
        RequestChange::SetHeader(pair) | RequestChange::Annotate(pair) => pair.name.len() + pair.value.len(),
        RequestChange::RemoveHeader(name) => name.len(),
        RequestChange::SetPriority(_) | RequestChange::SetTimeout(_) => 0,
    }
}

fn change(change: &RequestChange) -> Result<(), InvalidAnswer> {
    match change {
        RequestChange::SetHeader(pair) => {
            header(&pair.name)?;
            let printable = pair.value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
            field(printable, "a header's value has characters that a header cannot carry")
        }
        RequestChange::RemoveHeader(name) => header(name),
        RequestChange::SetPriority(priority) => field(*priority <= 9, "a priority must be 0 to 9"),
        RequestChange::SetTimeout(milliseconds) => field(*milliseconds > 0, "a time-out must be at least 1 ms"),
        RequestChange::Annotate(pair) => {
            let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
            let good = (1..=64).contains(&pair.name.len()) && pair.name.bytes().all(name);
            field(good, "an annotation's name must be 1 to 64 of [a-z0-9._-]")
        }
    }
}

fn header(name: &str) -> Result<(), InvalidAnswer> {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    field(!name.is_empty() && name.bytes().all(token), "a header's name must be a token in lower case")?;
    let closed = CLOSED_HEADERS.contains(&name) || CLOSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    field(!closed, "a header that policies may not touch")
}

fn rate(rate: &Rate, limits: &Limits) -> Result<(), InvalidAnswer> {
    size(rate.name.len() + rate.key.len(), limits)?;
    field(is_code(&rate.name), "a limit's name must be 1 to 64 of [a-z0-9-]")?;
    field(rate.key.len() <= crate::limits::BUCKET_KEY_BYTES, "a limit's key is too long")?;
    field(rate.limit > 0 && rate.window_ms > 0, "a limit must give at least one token per window of at least 1 ms")
}

fn denial(denial: &Denial, limits: &Limits) -> Result<(), InvalidAnswer> {
    size(denial.code.len() + denial.message.len(), limits)?;
    field((400..500).contains(&denial.status), "a refusal's status must be 400 to 499")?;
    field(is_code(&denial.code), "a refusal's code must be 1 to 64 of [a-z0-9-]")?;
    field(!denial.message.chars().any(char::is_control), "a refusal's message has control characters")
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn size(bytes: usize, limits: &Limits) -> Result<(), InvalidAnswer> {
    if bytes > limits.output_bytes { Err(InvalidAnswer::TooLarge(bytes, limits.output_bytes)) } else { Ok(()) }
}

fn field(good: bool, message: &'static str) -> Result<(), InvalidAnswer> {
    if good { Ok(()) } else { Err(InvalidAnswer::Field(message)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REQUEST;
    use crate::types::RequestChanges;

    fn pair(name: &str, value: &str) -> Pair {
        Pair { name: name.to_owned(), value: value.to_owned() }
    }

    fn changes(changes: Vec<RequestChange>) -> Result<(), InvalidAnswer> {
        check_request(&Verdict::AllowWith(RequestChanges { changes }), &REQUEST)
    }

    #[test]
    fn changes_are_a_closed_set() {
        let good = vec![
            RequestChange::SetHeader(pair("x-plan", "gold")),
            RequestChange::RemoveHeader("x-debug".to_owned()),
            RequestChange::SetPriority(9),
            RequestChange::SetTimeout(1),
            RequestChange::Annotate(pair("rule", "äny text")),
        ];
        assert_eq!(changes(good), Ok(()));
        for bad in [
            RequestChange::SetHeader(pair("host", "evil")),
            RequestChange::SetHeader(pair("x-eventflow-tenant", "other")),
            RequestChange::SetHeader(pair("Host", "evil")),
            RequestChange::SetHeader(pair("x-forwarded-for", "127.0.0.1")),
            RequestChange::RemoveHeader("proxy-connection".to_owned()),
            RequestChange::SetHeader(pair("x", "a\r\nhost: evil")),
            RequestChange::SetHeader(pair("", "a")),
            RequestChange::RemoveHeader("authorization".to_owned()),
            RequestChange::SetPriority(10),
            RequestChange::SetTimeout(0),
            RequestChange::Annotate(pair("", "a")),
        ] {
            assert!(matches!(changes(vec![bad.clone()]), Err(InvalidAnswer::Field(_))), "{bad:?}");
        }
        let many = vec![RequestChange::SetPriority(1); 2_000];
        assert!(matches!(changes(many), Err(InvalidAnswer::TooLarge(..))));
    }

    #[test]
    fn refusals_stay_refusals() {
        let deny = |status, code: &str, message: &str| {
            let denial = Denial { status, code: code.to_owned(), message: message.to_owned(), retry_after_ms: None };
            check_request(&Verdict::Deny(denial), &REQUEST)
        };
        assert_eq!(deny(403, "no", "no"), Ok(()));
        assert!(deny(200, "no", "").is_err() && deny(500, "no", "").is_err());
        assert!(deny(403, "", "").is_err() && deny(403, "No", "").is_err() && deny(403, "no", "a\nb").is_err());
        assert!(matches!(deny(403, "no", &"x".repeat(20_000)), Err(InvalidAnswer::TooLarge(..))));
    }
}
