//! Implementations of the commands.

pub(crate) mod bundle;
pub(crate) mod ceremony;
pub(crate) mod delta;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod incident;
pub(crate) mod keys;
mod keys_show;
pub(crate) mod operator;
pub(crate) mod release;
pub(crate) mod rollout;
mod rollout_show;
mod rules;
pub(crate) mod serve;
pub(crate) mod signing;
pub(crate) mod simulate;
pub(crate) mod watch;

use std::path::PathBuf;

use crate::api::Api;
use crate::error::CliError;
use crate::options::Global;
use crate::output::Format;
use crate::profile::Profile;

/// Common context of commands: server, token, output format.
pub(crate) struct Context {
    server: String,
    token: String,
    ca_file: Option<PathBuf>,
    pub(crate) format: Format,
}

impl Context {
    /// Builds the context from options, the environment and the saved profile, in this order.
    pub(crate) fn new(global: &Global) -> Self {
        let profile = Profile::load();
        let server = global.server.clone().or(profile.server.clone());
        // A saved token goes only to the server that it was saved for.
        let same = profile.server == server;
        let token = global.token.clone().or(profile.token.filter(|_| same));
        Self {
            server: server.unwrap_or_else(|| "http://127.0.0.1:8420".into()),
            token: token.unwrap_or_default(),
            ca_file: global.ca_file.clone().or(profile.ca_file),
            format: global.output,
        }
    }

    /// Creates an API client.
    pub(crate) fn api(&self) -> Result<Api, CliError> {
        Api::with_authority(&self.server, &self.token, self.ca_file.as_deref())
    }
}
