//! The fields of a message that is handed on: those of one hop alone are taken off, those that only we may say are
//! ours, and what belongs to the platform stays with it. Pure.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

use crate::routes::call::{TRACEPARENT, is_traceparent};

/// The tenant whose function is called.
pub const TENANT: HeaderName = HeaderName::from_static("x-eventflow-tenant");
/// The function's name.
pub const FUNCTION: HeaderName = HeaderName::from_static("x-eventflow-function");
/// Names the call in the platform's logs.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-eventflow-request-id");
/// Fields that start so are ours to set, on requests and on answers.
const OURS: &str = "x-eventflow-";
const CSP: HeaderName = HeaderName::from_static("content-security-policy");
/// Fields that concern one connection, besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Fields by which an answer would speak for the API's whole host.
const OF_THE_HOST: [HeaderName; 7] = [
    SET_COOKIE,
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("strict-transport-security"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("public-key-pins"),
    HeaderName::from_static("nel"),
];

/// Whom a request is for and how it came: what decides about its fields.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The tenant's id.
    pub tenant: &'a str,
    /// The function's name.
    pub function: &'a str,
    /// Names the call.
    pub request_id: &'a str,
    /// Whether it came at the API's host, whose cookies and answers are not the function's.
    pub shared_host: bool,
    /// Whether the `Authorization` was for us.
    pub authorized_here: bool,
}

/// Whether the caller asks to speak web socket from here on.
#[must_use]
pub fn wants_web_socket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    upgrade && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Makes the fields of a caller's request those of the request to the pod.
///
/// # Errors
/// When one of our own values cannot be written, which is a fault of ours.
pub fn to_pod(headers: &mut HeaderMap, passage: &Passage<'_>) -> Result<(), InvalidHeaderValue> {
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let web_socket = wants_web_socket(headers);
    take_off(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    match (web_socket, trailers) {
        (true, _) => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        (false, true) => drop(headers.insert(CONNECTION, HeaderValue::from_static("te"))),
        (false, false) => {}
    }
    if passage.authorized_here {
        headers.remove(AUTHORIZATION);
    }
    if passage.shared_host {
        headers.remove(COOKIE);
    }
    headers.insert(TENANT, HeaderValue::from_str(passage.tenant)?);
    headers.insert(FUNCTION, HeaderValue::from_str(passage.function)?);
    headers.insert(REQUEST_ID, HeaderValue::from_str(passage.request_id)?);
    let mut traces = headers.get_all(TRACEPARENT).iter();
    let trace = traces.next().and_then(|value| value.to_str().ok());
    if traces.next().is_some() || !trace.is_some_and(is_traceparent) {
        headers.insert(TRACEPARENT, HeaderValue::from_str(&new_trace())?);
        // It described the other trace.
        headers.remove("tracestate");
    }
    headers.append(VIA, HeaderValue::from_static("1.1 eventflow"));
    Ok(())
}

/// Makes the fields of a pod's answer those of the answer to the caller.
pub fn to_caller(headers: &mut HeaderMap, shared_host: bool) {
    take_off(headers);
    if shared_host {
        OF_THE_HOST.iter().for_each(|name| drop(headers.remove(name)));
        // Were a browser to show it, it would do so for the API's host: it gets an origin of its own.
        headers.append(CSP, HeaderValue::from_static("sandbox"));
    }
}

/// Takes off what concerns one hop alone, and what only we may say.
fn take_off(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        // Nobody may have us drop what frames and routes the message.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    let ours: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in HOP_BY_HOP.iter().chain(&named).chain(&ours) {
        headers.remove(name);
    }
}

/// Whether the field is one that only we may set. Programs that see fields as variables take `_` for `-`.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let same = |(a, b): (&u8, u8)| *a == b || (*a == b'_' && b == b'-');
    name.len() >= OURS.len() && name.iter().zip(OURS.bytes()).all(same)
}

/// The comma-separated words of a field.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.split(';').next().unwrap_or_default().trim())
}

/// A trace that begins here; whether it is recorded is for those who record.
fn new_trace() -> String {
    let nonzero = || rand::random_range(1..=u64::MAX);
    format!("00-{:016x}{:016x}-{:016x}-00", nonzero(), nonzero(), nonzero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSAGE: Passage<'_> =
        Passage { tenant: "t", function: "f", request_id: "r", shared_host: true, authorized_here: true };

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn fields_of_one_hop_are_taken_off() {
        let mut headers = map(&[
            ("connection", "close, X-Hop , x-eventflow-tenant"),
            ("connection", "host, content-length"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("x-hop", "1"),
            ("host", "h"),
            ("content-length", "3"),
            ("x-end", "2"),
        ]);
        take_off(&mut headers);
        assert_eq!(names(&headers), ["content-length", "host", "trailer", "x-end"]);
    }

    #[test]
    fn only_we_say_who_it_is() {
        let mut headers = map(&[
            ("x-eventflow-tenant", "other"),
            ("x-eventflow-anything", "x"),
            ("x_eventflow_tenant", "other"),
            ("X-EventFlow_Function", "other"),
            ("authorization", "Bearer t"),
            ("cookie", "__Host-session=s"),
            ("traceparent", "nonsense"),
            ("tracestate", "a=b"),
            ("x-eventflows", "mine"),
        ]);
        to_pod(&mut headers, &PASSAGE).unwrap();
        let expected = [
            "traceparent",
            "via",
            "x-eventflow-function",
            "x-eventflow-request-id",
            "x-eventflow-tenant",
            "x-eventflows",
        ];
        assert_eq!(names(&headers), expected);
        assert_eq!(
            (&headers[TENANT], &headers[FUNCTION], &headers[REQUEST_ID]),
            (&"t".parse().unwrap(), &"f".parse().unwrap(), &"r".parse().unwrap())
        );
        assert!(is_traceparent(headers[TRACEPARENT].to_str().unwrap()));
    }

    #[test]
    fn a_trace_goes_on() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = map(&[("traceparent", trace), ("tracestate", "a=b"), ("via", "1.1 edge")]);
        to_pod(&mut headers, &PASSAGE).unwrap();
        assert_eq!((headers[TRACEPARENT].to_str().unwrap(), headers["tracestate"].to_str().unwrap()), (trace, "a=b"));
        assert_eq!(headers.get_all(VIA).iter().count(), 2);
    }

    #[test]
    fn at_its_own_host_what_is_the_functions_is_left_to_it() {
        let mut headers = map(&[("authorization", "Basic x"), ("cookie", "a=b")]);
        to_pod(&mut headers, &Passage { shared_host: false, authorized_here: false, ..PASSAGE }).unwrap();
        assert!(headers.contains_key(AUTHORIZATION) && headers.contains_key(COOKIE));
        let mut headers = map(&[("set-cookie", "a=b"), ("x-eventflow-error", "internal")]);
        to_caller(&mut headers, false);
        assert_eq!(names(&headers), ["set-cookie"]);
        to_caller(&mut headers, true);
        assert_eq!(names(&headers), ["content-security-policy"]);
    }

    #[test]
    fn only_web_sockets_change_the_protocol() {
        let web_socket = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]);
        assert!(wants_web_socket(&web_socket));
        let mut headers = web_socket.clone();
        to_pod(&mut headers, &PASSAGE).unwrap();
        assert_eq!(
            (&headers[CONNECTION], &headers[UPGRADE]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        for other in [&[("connection", "upgrade"), ("upgrade", "h2c")][..], &[("upgrade", "websocket")]] {
            let mut headers = map(other);
            to_pod(&mut headers, &PASSAGE).unwrap();
            assert!(!headers.contains_key(UPGRADE) && !headers.contains_key(CONNECTION));
        }
        let mut headers = map(&[("te", "gzip;q=0.5, trailers")]);
        to_pod(&mut headers, &PASSAGE).unwrap();
        assert_eq!((&headers[CONNECTION], &headers[TE]), (&"te".parse().unwrap(), &"trailers".parse().unwrap()));
    }
}
