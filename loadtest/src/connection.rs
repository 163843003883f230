//! One user on one kept HTTP/1.1 connection: calls go one after the other, and only the first pays for connecting.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use eventflow_api::admission::Admission;
use eventflow_api::http::FunctionList;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Longest wait for one answer. The slowest prototype figure is 14.5 s; whoever waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A user's connection to the gateway.
#[derive(Debug)]
pub struct Connection {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    token: String,
    /// The tenant's namespace.
    pub namespace: String,
}

impl Connection {
    /// A connection of nobody's to the server at `base`.
    #[must_use]
    pub fn anonymous(base: String) -> Self {
        Self { client: client(), base, token: String::new(), namespace: String::new() }
    }

    /// Gets a token for `user` from the development issuer of the gateway at `base`.
    ///
    /// # Errors
    /// When the gateway does not give one.
    pub async fn sign_in(base: &str, user: &str) -> Result<Self> {
        let mut connection = Self::anonymous(base.to_owned());
        let body =
            json!({"user_id": user, "username": user, "email": format!("{user}@example.test"), "roles": ["developer"]});
        let (status, body) = connection.call(Method::POST, "/auth/token", Some(&body)).await?;
        ensure!(status == StatusCode::OK, "no token for {user}: {status} {}", String::from_utf8_lossy(&body));
        let body: Value = serde_json::from_slice(&body)?;
        connection.token = body["token"].as_str().context("an answer without a token")?.to_owned();
        connection.namespace = body["namespace"].as_str().context("an answer without a namespace")?.to_owned();
        Ok(connection)
    }

    /// Another connection of the same user.
    #[must_use]
    pub fn another(&self) -> Self {
        let (base, token, namespace) = (self.base.clone(), self.token.clone(), self.namespace.clone());
        Self { client: client(), base, token, namespace }
    }

    /// Makes one call; the whole body is read.
    ///
    /// # Errors
    /// When there is no answer; an error answer is an answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::from(body.map(Value::to_string).unwrap_or_default()))?;
        let answered = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, answered).await.context("no answer within 30 s")?
    }

    /// Makes a GET that must be answered 200.
    ///
    /// # Errors
    /// When it is not.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        let (status, body) = self.call(Method::GET, path, None).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}");
        Ok(body)
    }

    /// Reads the list of functions to its end; gives how many there are and how many calls that took.
    ///
    /// # Errors
    /// When a page cannot be had.
    pub async fn list(&self, limit: usize) -> Result<(usize, usize)> {
        let (mut functions, mut calls) = (0, 0);
        let mut path = format!("/v1/functions?limit={limit}");
        loop {
            let page: FunctionList = serde_json::from_slice(&self.get(&path).await?)?;
            functions += page.functions.len();
            calls += 1;
            match page.next_cursor {
                Some(cursor) => path = format!("/v1/functions?limit={limit}&cursor={cursor}"),
                None => return Ok((functions, calls)),
            }
        }
    }

    /// Creates a function; gives the status of the answer. Refusals count as answers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn create(&self, function: &Value) -> Result<StatusCode> {
        Ok(self.call(Method::POST, "/v1/functions", Some(function)).await?.0)
    }

    /// Creates a function; gives the verdict of the answer, or the status of an answer without one.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn create_verdict(&self, function: &Value) -> Result<String> {
        let (status, body) = self.call(Method::POST, "/v1/functions", Some(function)).await?;
        let admission = serde_json::from_slice::<Value>(&body).ok().and_then(|body| body.get("admission").cloned());
        let verdict = admission.and_then(|admission| serde_json::from_value::<Admission>(admission).ok());
        Ok(verdict.map_or_else(|| status.to_string(), |verdict| verdict.label().to_owned()))
    }
}

fn client() -> Client<HttpConnector, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Answers each request, on a connection of its own, with the next of `bodies`; gives what was asked.
    async fn answer_in_turn(listener: TcpListener, bodies: Vec<&str>) -> Vec<String> {
        let mut asked = Vec::new();
        for body in bodies {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(read_request(&mut stream).await);
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        asked
    }

    async fn read_request(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") && !read.ends_with(b"}") {
            read.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(read).unwrap().lines().next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn cursors_are_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let token = r#"{"token": "t", "namespace": "tenant-a"}"#;
        let pages = [r#"{"functions": [], "next_cursor": "c"}"#, r#"{"functions": []}"#];
        let server = tokio::spawn(answer_in_turn(listener, vec![token, pages[0], pages[1]]));
        let connection = Connection::sign_in(&base, "a").await.unwrap();
        assert_eq!(connection.namespace, "tenant-a");
        assert_eq!(connection.list(500).await.unwrap(), (0, 2));
        let asked = server.await.unwrap();
        assert_eq!(asked[1], "GET /v1/functions?limit=500 HTTP/1.1");
        assert_eq!(asked[2], "GET /v1/functions?limit=500&cursor=c HTTP/1.1");
    }
}
