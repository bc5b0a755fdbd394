//! `login`, `whoami`, `token`.

use clap::{Args, Subcommand};
use serde_json::json;
use tidegate_api::{TokenBody, TokenView, WhoamiView};

use super::Context;
use crate::api::{Api, Channel};
use crate::error::CliError;
use crate::options::{Global, some_time};
use crate::output::{line, show, table};
use crate::profile::Profile;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Address of the control plane.
    pub(crate) server: String,
    /// File with the token, for example tidegate-data/admin.token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its secret is shown once.
    Create {
        /// Name of its owner.
        name: String,
        /// Role: viewer, responder, release_manager or admin.
        #[arg(long)]
        role: String,
        /// Validity; unlimited by default.
        #[arg(long, value_parser = some_time)]
        valid: Option<Duration>,
    },
    /// List the tokens that are not revoked.
    List,
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

/// Saves a server and a token, once the server has accepted the token.
pub(crate) async fn login(args: LoginArgs, global: Global) -> Result<(), CliError> {
    let token = std::fs::read_to_string(&args.token_file)
        .map_err(|e| CliError::Failed(format!("{}: {e}", args.token_file.display())))?;
    let token = token.trim().to_owned();
    let channel = Channel {
        ca_file: global.ca_file.map(std::path::absolute).transpose()?,
        plain_http: global.allow_plain_http,
    };
    let api = Api::over(&args.server, &token, &channel)?;
    let who: WhoamiView = api.get("/api/v1/whoami").await?;
    let profile = Profile {
        server: Some(api.server().to_owned()),
        token: Some(token),
        ca_file: channel.ca_file,
        allow_plain_http: channel.plain_http,
    };
    let path = profile.save()?;
    line(&format!(
        "logged in to {} as {} ({}); saved in {}",
        args.server,
        who.name,
        who.role,
        path.display()
    ))
}

/// Prints who the token belongs to.
pub(crate) async fn whoami(context: &Context) -> Result<(), CliError> {
    let api = context.api()?;
    let who: WhoamiView = api.get("/api/v1/whoami").await?;
    show(context.format, &who, |w| {
        format!("{} ({}) at {}", w.name, w.role, api.server())
    })
}

/// Runs a `token` command.
pub(crate) async fn token(context: &Context, command: TokenCommand) -> Result<(), CliError> {
    let api = context.api()?;
    match command {
        TokenCommand::Create { name, role, valid } => {
            let body = TokenBody {
                name,
                role,
                valid_s: valid.map(|d| d.as_secs()),
            };
            let token: TokenView = api.post("/api/v1/tokens", &body).await?;
            // Standard output gets the secret alone, so that it can go into a file.
            show(context.format, &token, |t| {
                t.secret.clone().unwrap_or_default()
            })
        }
        TokenCommand::List => {
            let tokens: Vec<TokenView> = api.get("/api/v1/tokens").await?;
            show(context.format, &tokens, |tokens| {
                let rows = tokens.iter().map(|t| {
                    let expires = t.expires_at.clone().unwrap_or_else(|| "never".into());
                    [t.id.clone(), t.name.clone(), t.role.clone(), expires]
                });
                table(["ID", "NAME", "ROLE", "EXPIRES"], rows.collect())
            })
        }
        TokenCommand::Revoke { id } => {
            api.delete(&format!("/api/v1/tokens/{id}")).await?;
            show(context.format, &json!({ "revoked": id }), |_| {
                format!("{id} is revoked")
            })
        }
    }
}
