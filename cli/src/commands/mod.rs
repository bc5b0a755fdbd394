//! What each command does.

pub(crate) mod ceremony;
pub(crate) mod device;
pub(crate) mod incident;
pub(crate) mod keys;
pub(crate) mod operator;
pub(crate) mod release;
pub(crate) mod signing;
pub(crate) mod rollout;
mod rules;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod watch;

use crate::api::Api;
use crate::args::{Format, Global};
use crate::error::CliError;
use crate::profile::Profile;

/// What most commands need: a server, a token, a form of output.
pub(crate) struct Context {
    server: String,
    token: String,
    pub(crate) format: Format,
}

impl Context {
    /// From options, the environment, and what `tidegate login` remembered, in this order.
    pub(crate) fn new(global: &Global) -> Self {
        let profile = Profile::load();
        let server = global.server.clone().or(profile.server.clone());
        // A remembered token goes to the server that it was remembered for, and no other.
        let same = profile.server == server;
        let token = global.token.clone().or(profile.token.filter(|_| same));
        Self {
            server: server.unwrap_or_else(|| "http://127.0.0.1:8420".into()),
            token: token.unwrap_or_default(),
            format: global.output,
        }
    }

    /// The API.
    pub(crate) fn api(&self) -> Result<Api, CliError> {
        Api::new(&self.server, &self.token)
    }
}
