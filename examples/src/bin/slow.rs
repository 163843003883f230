//! Takes its time: `?ms=` is how long to wait before answering, in milliseconds (1,000 by default); with
//! `?chunks=` the answer is that many lines, one after each wait. Serves on `PORT` (8080 by default).

use std::io;
use std::time::Duration;

use eventflow_examples::http::{Answer, Request};
use eventflow_examples::server;

/// Longest wait, in milliseconds, and most chunks: nothing here outlives an hour by mistake.
const MOST: u64 = 3_600_000;

fn main() -> io::Result<()> {
    server::run(wait_and_answer)
}

fn wait_and_answer(request: &Request, answer: Answer<'_>) -> io::Result<()> {
    let (Some(ms), Some(chunks)) = (number(request, "ms", 1000), number(request, "chunks", 0)) else {
        return answer.json(400, "{\"error\":\"ms and chunks must be numbers from 0 to 3600000\"}");
    };
    let wait = || std::thread::sleep(Duration::from_millis(ms));
    if chunks == 0 {
        wait();
        return answer.json(200, &format!("{{\"waited_ms\":{ms}}}"));
    }
    let mut stream = answer.chunks(200)?;
    for i in 1..=chunks {
        wait();
        stream.send(&format!("chunk {i} of {chunks}\n"))?;
    }
    stream.end()
}

fn number(request: &Request, name: &str, default: u64) -> Option<u64> {
    request.parameter(name).map_or(Some(default), |text| text.parse().ok().filter(|n| *n <= MOST))
}
