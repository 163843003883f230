//! Misbehaves as its settings say: a request policy that nobody should bind, by which the engine's tests and
//! `loadtest/policy` see what a broken Rust guest costs others.

use std::hint::black_box;

use eventflow_policy::capability::log;
use eventflow_policy::{Capability, RequestPolicy, RequestView, Settings, Verdict, deny};
use schemars::JsonSchema;
use serde::Deserialize;

/// What to do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Misbehave {
    how: How,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// Never returns.
    Loop,
    /// Calls itself until the stack ends.
    Recurse,
    /// Allocates until there is no more.
    Memory,
    /// Panics.
    Panic,
    /// Answers with a megabyte.
    Output,
    /// Logs without end.
    Log,
    /// Passes its test cases and panics over everything else.
    Later,
    /// None of these.
    Behave,
}

impl Settings for Misbehave {}

impl RequestPolicy for Misbehave {
    const NAME: &'static str = "misbehave";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Misbehaves as its settings say.";
    const CAPABILITIES: &'static [Capability] = &[Capability::Log];

    fn check(&self, request: &RequestView) -> Verdict {
        match self.how {
            How::Loop => loop {
                black_box(0);
            },
            How::Recurse => deny(400, "depth", recurse(0).to_string()).into(),
            How::Memory => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(black_box(Vec::<u8>::with_capacity(1 << 20)));
                }
            }
            How::Panic => panic!("as asked"),
            How::Output => deny(400, "output", "x".repeat(1 << 20)).into(),
            How::Log => loop {
                log::info("as asked");
            },
            // The id of every fixture.
            How::Later => {
                assert_eq!(request.request_id, "00000000-0000-0000-0000-000000000000", "as asked");
                Verdict::Allow
            }
            How::Behave => Verdict::Allow,
        }
    }
}

#[expect(unconditional_recursion, reason = "it is what this policy is for")]
fn recurse(depth: u64) -> u64 {
    black_box([depth; 64])[1] + recurse(depth + 1)
}

eventflow_policy::export_request_policy!(Misbehave);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        eventflow_policy::testing::request::<super::Misbehave>(include_str!("../fixtures.json"));
    }
}
