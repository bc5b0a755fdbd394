//! Requests and answers of local control.

use serde::{Deserialize, Serialize};

use crate::people::standing::Standing;

/// Longest pause, in seconds: a machine that was paused and forgotten gets updates again.
pub(crate) const MAX_PAUSE_S: u64 = 7 * 86_400;
/// A request from a person at the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Report the status.
    Status,
    /// Ask the server now.
    CheckNow,
    /// Start no update for this long; a rollback stays possible.
    Pause {
        /// Length of the pause in seconds, at most [`MAX_PAUSE_S`].
        seconds: u64,
    },
    /// End a pause.
    Resume,
    /// Roll back to the previous version, within its rollback window.
    Rollback,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Whether the request was carried out or accepted.
    pub(crate) ok: bool,
    /// Message for the person who asked.
    pub(crate) text: String,
    /// State of the running agent.
    pub(crate) live: Live,
    /// State of the device, for users who may not read its journal; only with [`Ask::Status`].
    #[serde(default)]
    pub(crate) standing: Option<Standing>,
}

/// State that only a running agent knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Live {
    /// Process id of the agent.
    pub(crate) pid: u32,
    /// Seconds since the server last answered; `None` before its first answer.
    pub(crate) heard_s: Option<u64>,
    /// Reason in the server's last answer, such as why there is nothing to do.
    pub(crate) said: Option<String>,
    /// Error of the last request to the server; `None` if it was answered.
    pub(crate) error: Option<String>,
    /// Condition that the update under way waits for.
    pub(crate) waits: Option<String>,
    /// Seconds left of the pause.
    pub(crate) paused_s: Option<u64>,
    /// Whether [`Ask::Rollback`] is possible now.
    pub(crate) can_return: bool,
}
