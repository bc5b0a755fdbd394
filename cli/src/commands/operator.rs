//! `login`, `whoami`, `token`.

use clap::{Args, Subcommand};
use serde_json::json;
use tidegate_api::{TokenBody, TokenView, WhoamiView};

use super::Context;
use super::serve::DatabaseArgs;
use crate::api::{Api, Channel, with_query};
use crate::error::CliError;
use crate::options::{Global, some_time};
use crate::output::{complain, line, show, table};
use crate::profile::Profile;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Address of the control plane.
    #[arg(value_name = "SERVER")]
    pub(crate) address: String,
    /// File with the token, for example tidegate-data/admin.token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token; its secret is shown once.
    Create {
        /// Name of its owner: one that no token has ever had.
        name: String,
        /// Role: viewer, responder, release_manager or admin.
        #[arg(long, required_unless_present = "break_glass")]
        role: Option<String>,
        /// Validity; 90 days by default, 365 at most.
        #[arg(long, value_parser = some_time, conflicts_with = "break_glass")]
        valid: Option<Duration>,
        /// For emergencies alone, to be kept in a safe: a responder that does not expire, reads
        /// nothing but incidents, and raises an alarm each time it is used.
        #[arg(long, conflicts_with = "role")]
        break_glass: bool,
    },
    /// List the tokens that can be used.
    List {
        /// Also those that have expired or were revoked.
        #[arg(long)]
        all: bool,
    },
    /// Confirm that somebody other than its maker holds a token, so that they count as two where
    /// several people must agree. Needs an administrator who is a third person to neither.
    Confirm {
        /// Its id.
        id: String,
    },
    /// Revoke a token.
    Revoke {
        /// Its id.
        id: String,
        /// Even if it is the last administrator's: the way back in is then `token rescue`.
        #[arg(long)]
        last_admin: bool,
    },
    /// Make a token on the server's host, straight in its database, without having one: the way
    /// back in. A server that runs takes it over within a second.
    Rescue {
        /// Name of its owner: one that no token has ever had.
        name: String,
        /// Role: viewer, responder, release_manager or admin.
        #[arg(long, default_value = "admin")]
        role: String,
        /// Validity; 90 days by default, 365 at most.
        #[arg(long, value_parser = some_time)]
        valid: Option<Duration>,
        #[command(flatten)]
        database: DatabaseArgs,
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
    let api = Api::over(&args.address, &token, &channel)?;
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
        args.address,
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
        let until = w.expires_at.as_deref().unwrap_or("revoked");
        format!("{} ({}) at {}, until {until}", w.name, w.role, api.server())
    })
}

/// Runs a `token` command.
pub(crate) async fn token(context: &Context, command: TokenCommand) -> Result<(), CliError> {
    if let TokenCommand::Rescue {
        name,
        role,
        valid,
        database,
    } = command
    {
        return rescue(&name, &role, valid, &database).await;
    }
    let api = context.api()?;
    match command {
        TokenCommand::Create {
            name,
            role,
            valid,
            break_glass,
        } => {
            let body = TokenBody {
                name,
                role: role.unwrap_or_else(|| "responder".into()),
                valid_s: valid.map(|d| d.as_secs()),
                break_glass,
            };
            let token: TokenView = api.post("/api/v1/tokens", &body).await?;
            // Standard output gets the secret alone, so that it can go into a file.
            show(context.format, &token, |t| {
                t.secret.clone().unwrap_or_default()
            })
        }
        TokenCommand::List { all } => {
            let all = all.then(|| "true".to_owned());
            let path = with_query("/api/v1/tokens", &[("all", all)])?;
            let tokens: Vec<TokenView> = api.get(&path).await?;
            show(context.format, &tokens, |tokens| {
                let head = ["ID", "NAME", "ROLE", "STATE", "EXPIRES", "COUNTS AS"];
                table(head, tokens.iter().map(row).collect())
            })
        }
        TokenCommand::Confirm { id } => {
            let path = format!("/api/v1/tokens/{id}/confirm");
            api.post_empty(&path, &json!({})).await?;
            show(context.format, &json!({ "confirmed": id }), |_| {
                format!("{id} counts as a person of its own")
            })
        }
        TokenCommand::Revoke { id, last_admin } => {
            let last_admin = last_admin.then(|| "true".to_owned());
            let path = with_query(
                &format!("/api/v1/tokens/{id}"),
                &[("last_admin", last_admin)],
            )?;
            api.delete(&path).await?;
            show(context.format, &json!({ "revoked": id }), |_| {
                format!("{id} is revoked")
            })
        }
        TokenCommand::Rescue { .. } => Ok(()),
    }
}

/// Cells of a token in a list.
fn row(token: &TokenView) -> [String; 6] {
    let role = if token.break_glass {
        format!("{} (emergencies)", token.role)
    } else {
        token.role.clone()
    };
    let expires = token.expires_at.clone().unwrap_or_else(|| "never".into());
    let (id, name) = (token.id.clone(), token.name.clone());
    [
        id,
        name,
        role,
        token.state.clone(),
        expires,
        token.person.clone(),
    ]
}

/// Makes a token in the database of this machine's server.
async fn rescue(
    name: &str,
    role: &str,
    valid: Option<Duration>,
    database: &DatabaseArgs,
) -> Result<(), CliError> {
    let role = role
        .parse()
        .map_err(|e| CliError::Usage(format!("--role: {e}")))?;
    let (token, secret) = tidegate_server::rescue(&database.url(), name, role, valid)
        .await
        .map_err(|e| CliError::failed("no token was made", &e))?;
    let expires = token
        .expires_at
        .map_or_else(|| "never".into(), |t| t.to_string());
    complain(&format!("{name} is made, {role} until {expires}"));
    // Standard output gets the secret alone, as from `create`.
    line(&secret)
}
