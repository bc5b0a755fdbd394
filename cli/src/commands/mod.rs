//! Implementations of the commands.

pub(crate) mod bundle;
pub(crate) mod ceremony;
pub(crate) mod delta;
pub(crate) mod device;
mod device_show;
pub(crate) mod doctor;
pub(crate) mod incident;
mod joining;
pub(crate) mod keys;
mod keys_show;
mod names;
pub(crate) mod operator;
mod pack;
pub(crate) mod release;
pub(crate) mod rollout;
mod rollout_show;
mod rules;
pub(crate) mod serve;
pub(crate) mod signing;
pub(crate) mod simulate;
pub(crate) mod watch;

use crate::api::{Api, Channel};
use crate::error::CliError;
use crate::options::Global;
use crate::output::Format;
use crate::profile::Profile;

/// Common context of commands: server, token, output format.
pub(crate) struct Context {
    global: Global,
    pub(crate) format: Format,
}

impl Context {
    /// Keeps the options that all commands share.
    pub(crate) fn new(global: Global) -> Self {
        let format = global.output;
        Self { global, format }
    }

    /// Creates an API client from options, the environment and the saved profile, in this order.
    pub(crate) fn api(&self) -> Result<Api, CliError> {
        // Who names both needs no profile, and in an incident no damaged one may stand in the way.
        let named = self.global.server.is_some() && self.global.token.is_some();
        let profile = match Profile::load() {
            Err(_) if named => Profile::default(),
            loaded => loaded?,
        };
        let server = self.global.server.as_ref().or(profile.server.as_ref());
        // A saved token goes only to the server that it was saved for.
        let same = profile.server.as_ref() == server;
        let saved = profile.token.as_ref().filter(|_| same);
        let token = self.global.token.as_ref().or(saved);
        let ca_file = self.global.ca_file.as_ref().or(profile.ca_file.as_ref());
        let channel = Channel {
            ca_file: ca_file.cloned(),
            plain_http: self.global.allow_plain_http || (same && profile.allow_plain_http),
        };
        Api::over(
            server.map_or("http://127.0.0.1:8420", String::as_str),
            token.map_or("", String::as_str),
            &channel,
        )
    }
}
