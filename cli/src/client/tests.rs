//! The client against real sockets that misbehave.

use super::*;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that gives one answer per connection, the last one again and again; none breaks the connection.
struct Server {
    url: BaseUrl,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (Arc::clone(&asked), answers.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                stream.write_all(answers[n.min(answers.len() - 1)].as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    fn client(&self) -> Client {
        client(self.url.clone(), Duration::from_secs(20))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn client(url: BaseUrl, deadline: Duration) -> Client {
    Client::new(Target { url, token: Some(SecretString::from("t0ken")), ca_file: None }, deadline).unwrap()
}

fn answer(status: &str, media_type: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n{body}"
    )
}

fn problem(status: &str, code: &str) -> String {
    answer(
        status,
        "application/problem+json",
        "",
        &format!(r#"{{"code":"{code}","detail":"No.","request_id":"r","new":1}}"#),
    )
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn a_write_is_repeated_under_the_same_key() {
    let away = problem("503 Service Unavailable", "store-unavailable");
    let done = answer("200 OK", "application/json", "", r#"{"a":1}"#);
    let server = Server::start(&[&away, "", &done]).await;
    let request = Request::new(Method::POST, &["v1", "functions"]).json(&serde_json::json!({}));
    let got = server.client().call(&request).await.unwrap();
    assert_eq!(got.json().unwrap(), serde_json::json!({"a": 1}));
    let asked = server.asked();
    let keys: Vec<_> = asked.iter().map(|head| header(head, "idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(header(&asked[0], "authorization"), Some("Bearer t0ken"));
    assert!(asked[0].starts_with("POST /v1/functions HTTP/1.1"));
}

#[tokio::test]
async fn what_must_happen_once_is_not_repeated() {
    let away = problem("503 Service Unavailable", "store-unavailable");
    let server = Server::start(&[&away]).await;
    let error = server.client().call(&Request::get(&["v1"]).once()).await.unwrap_err();
    assert!(matches!(error, CallError::Refused(problem) if problem.status == 503));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_read_whole_and_final() {
    let server = Server::start(&[&problem("404 Not Found", "not-found")]).await;
    let error = server.client().call(&Request::get(&["v1"])).await.unwrap_err();
    assert!(error.is_not_found());
    let CallError::Refused(problem) = error else { panic!("{error:?}") };
    assert_eq!((problem.request_id.as_str(), problem.status, &problem.more["new"]), ("r", 404, &serde_json::json!(1)));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn long_waits_are_the_caller_s_choice() {
    let busy = answer(
        "429 Too Many Requests",
        "application/problem+json",
        "retry-after: 60\r\n",
        r#"{"code":"too-many-requests"}"#,
    );
    let server = Server::start(&[&busy]).await;
    let error = server.client().call(&Request::get(&["v1"])).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn strangers_are_recognised_and_redirects_not_followed() {
    let page = answer("404 Not Found", "text/html", "", "<html>");
    let server = Server::start(&[&page]).await;
    let error = server.client().call(&Request::get(&["v1"])).await.unwrap_err();
    assert!(matches!(error, CallError::Foreign { status, .. } if status == 404), "{error:?}");
    let elsewhere = answer("302 Found", "text/html", "location: http://127.0.0.1:1/\r\n", "");
    let server = Server::start(&[&elsewhere]).await;
    let error = server.client().call(&Request::get(&["v1"])).await.unwrap_err();
    assert!(matches!(error, CallError::Foreign { status, .. } if status == 302), "{error:?}");
    let page = answer("200 OK", "text/html", "", "<html>");
    let server = Server::start(&[&page]).await;
    let got = server.client().call(&Request::get(&["v1"])).await.unwrap();
    assert!(matches!(got.json(), Err(CallError::Unreadable(_))));
}

#[tokio::test]
async fn nobody_there_and_nobody_answering_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: BaseUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let error = client(url.clone(), Duration::from_millis(300)).call(&Request::get(&["v1"])).await.unwrap_err();
    assert!(matches!(error, CallError::TooLate { .. }), "{error:?}");
    drop(listener);
    let error = client(url, Duration::from_secs(20)).call(&Request::get(&["v1"])).await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable { reason, .. } if reason.contains("refused")), "{error:?}");
}

#[test]
fn certificates_must_be_some() {
    let file = std::env::temp_dir().join(format!("eventflow-cli-ca-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "nothing").unwrap();
    let url: BaseUrl = "https://a.example".parse().unwrap();
    for ca_file in [file.clone(), "/nonexistent".into()] {
        let target = Target { url: url.clone(), token: None, ca_file: Some(ca_file) };
        assert!(matches!(Client::new(target, Duration::from_secs(1)), Err(CallError::Certificates { .. })));
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_token_never_shows_in_debug_output() {
    let client = client("http://127.0.0.1:1".parse().unwrap(), Duration::from_secs(1));
    assert!(!format!("{client:?}").contains("t0ken"));
}
