//! Answers every request with what it was, as JSON: method, path, query, headers, body, and the environment that
//! the platform and the tenant gave. Serves on `PORT` (8080 by default).

use std::io;

use eventflow_examples::http::{Answer, Request};
use eventflow_examples::json::Json;
use eventflow_examples::{server, settings};

fn main() -> io::Result<()> {
    server::run(echo)
}

fn echo(request: &Request, answer: Answer<'_>) -> io::Result<()> {
    let body = Json::object([
        ("method", Json::text(&request.method)),
        ("path", Json::text(&request.path)),
        ("query", Json::text(&request.query)),
        ("headers", Json::texts(request.headers.iter().cloned())),
        ("body", Json::text(String::from_utf8_lossy(&request.body))),
        ("environment", Json::texts(settings::tenant_environment())),
    ]);
    answer.json(200, &body.to_string())
}
