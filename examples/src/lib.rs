//! What the example functions share: settings, a small HTTP/1.1 server, JSON, and how to end.
//!
//! Small on purpose (std and `signal-hook` alone), so that a static build takes seconds and an image is one file.
//! Not a web framework: enough of HTTP to be called by anything, strict about everything else.

/// Settings from the environment.
pub mod settings;
/// JSON: values, reading, writing.
pub mod json;
/// HTTP/1.1 requests and answers on any byte stream.
pub mod http;
/// The accept loop: a thread per connection, bounded.
pub mod server;
/// How a program ends when the cluster asks it to.
pub mod ending;
