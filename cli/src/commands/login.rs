//! `login`, `logout`, `whoami`. A token is kept once the platform has accepted it, and never shown.

use clap::Args;
use eventflow_api::http::{Role, TokenRequest};
use http::Method;
use secrecy::SecretString;
use serde::Deserialize;

use crate::args::{self, Format, Globals};
use crate::client::{Client, Request, Target};
use crate::config::Context;
use crate::error::CliError;
use crate::input;
use crate::output::{Output, clean};
use crate::render;
use crate::session::{self, DEFAULT_CONTEXT, Session};
use crate::view::Me;

/// Longest token that is read.
const TOKEN_MAX: u64 = 64 << 10;

/// Sign in.
#[derive(Debug, Args)]
pub struct Login {
    /// Get a token for this user from the development issuer, which only platforms made for trying have.
    #[arg(long, value_name = "NAME", conflicts_with = "token_stdin", required_unless_present = "token_stdin")]
    user: Option<String>,
    /// Roles of that user; none means developer.
    #[arg(long, value_name = "ROLE", value_parser = role, requires = "user", value_delimiter = ',')]
    role: Vec<Role>,
    /// Read a token of your identity provider from standard input.
    #[arg(long)]
    token_stdin: bool,
}

fn role(text: &str) -> Result<Role, String> {
    let role = serde_json::from_value(serde_json::Value::from(text));
    role.map_err(|_| "must be viewer, developer, owner or operator".to_owned())
}

impl Login {
    /// Gets the token, tries it, keeps it.
    ///
    /// # Errors
    /// No token, or none that the platform accepts.
    pub async fn run(self, globals: &Globals) -> Result<(), CliError> {
        let (path, mut config) = session::config(globals)?;
        let name = globals.context.clone().or_else(|| config.current.clone());
        let name = name.unwrap_or_else(|| DEFAULT_CONTEXT.to_owned());
        let known = config.contexts.get(&name);
        let Some(url) = globals.url.clone().or_else(|| Some(known?.url.clone())) else {
            return Err(CliError::usage("say which platform: `eventflow login --url URL`"));
        };
        let ca_file = globals.ca_file.clone().map(std::path::absolute).transpose().map_err(CliError::Start)?;
        let ca_file = ca_file.or_else(|| known.filter(|known| known.url == url)?.ca_file.clone());
        let output = Output::new(globals.no_colour());
        if url.is_exposed() {
            output.tell("warning: without https, whoever is on the way can read the token");
        }
        let target = Target { url: url.clone(), token: None, ca_file: ca_file.clone() };
        let token = match &self.user {
            Some(user) => self.issued(&Client::new(target.clone(), globals.request_timeout)?, user).await?,
            None => given().await?,
        };
        let client = Client::new(Target { token: Some(token.clone()), ..target }, globals.request_timeout)?;
        let me: Me = client.call(&Request::get(&["v1", "me"])).await?.read()?;
        config.contexts.insert(name.clone(), Context { url: url.clone(), token: Some(token), ca_file });
        config.current = Some(name.clone());
        config.write(&path)?;
        let (who, tenant) = (clean(&me.subject), clean(&me.tenant));
        output.print(&format!("Signed in to {url} as {who} (tenant {tenant}), in the context \"{name}\".\n"))
    }

    async fn issued(&self, client: &Client, user: &str) -> Result<SecretString, CliError> {
        #[derive(Deserialize)]
        struct Issued {
            token: String,
        }
        let wanted = TokenRequest {
            user_id: user.to_owned(),
            username: user.to_owned(),
            email: String::new(),
            roles: self.role.clone(),
        };
        let answer = client.call(&Request::new(Method::POST, &["auth", "token"]).json(&wanted)).await;
        let issued: Issued = match answer {
            Err(error) if is_no_route(&error) => {
                return Err(CliError::usage(
                    "this platform has no development issuer: get a token from your identity provider and pass it \
                     with --token-stdin",
                ));
            }
            answer => answer?.read()?,
        };
        Ok(SecretString::from(issued.token))
    }
}

fn is_no_route(error: &crate::client::CallError) -> bool {
    matches!(error, crate::client::CallError::Refused(problem) if problem.code == "no-such-route")
}

async fn given() -> Result<SecretString, CliError> {
    let bytes = input::whole("-".as_ref(), TOKEN_MAX).await?;
    args::token(&String::from_utf8_lossy(&bytes))
        .map_err(|reason| CliError::usage(format!("standard input holds no token: {reason}")))
}

/// Forget the token.
#[derive(Debug, Args)]
pub struct Logout {}

impl Logout {
    /// Takes the token out of the config file.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn run(self, globals: &Globals) -> Result<(), CliError> {
        let (path, mut config) = session::config(globals)?;
        let name = globals.context.clone().or_else(|| config.current.clone()).unwrap_or_default();
        let Some(context) = config.contexts.get_mut(&name) else {
            let detail = format!("there is no context \"{name}\" to sign out of: {}", config.names());
            return Err(CliError::usage(detail));
        };
        context.token = None;
        config.write(&path)?;
        Output::new(globals.no_colour()).print(&format!("Signed out of the context \"{name}\".\n"))
    }
}

/// Show who you are.
#[derive(Debug, Args)]
pub struct Whoami {}

impl Whoami {
    /// Asks the platform.
    ///
    /// # Errors
    /// See [`CliError`].
    pub async fn run(self, session: &Session) -> Result<(), CliError> {
        let document = session.client.call(&Request::get(&["v1", "me"])).await?.json()?;
        let me: Me = serde_json::from_value(document.clone()).unwrap_or_default();
        session.output.document(session.format, &document, |format, _| match format {
            Format::Name => format!("{}\n", clean(&me.subject)),
            _ => render::me::text(&me, session.client.url()),
        })
    }
}
