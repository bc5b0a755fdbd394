//! `status`: state of the device, from its journal and its medium.

use std::path::Path;

use tidegate_machine::fsm::SlotId;
use tidegate_protocol::plain;

use crate::fs::{self, journal};
use crate::install;
use crate::log;
use crate::people::config::Config;
use crate::people::control::{self, Ask, Live};
use crate::people::standing::Standing;

pub(super) fn status(state: &Path, json: bool) -> Result<String, String> {
    // Unreadable settings are reported but do not hide the rest.
    let config = Config::load(state).or_else(|error| {
        let config = Config::as_enrolled(state);
        config.inspect(|_| log::line(&log::chain(&error)))
    });
    let config = config.map_err(|e| log::chain(&e))?;
    // A running agent knows more; without one the files are all there is.
    let reply = control::ask(&config.control.place(state), Ask::Status).ok();
    let (live, told) = reply.map_or((None, None), |r| (Some(r.live), r.standing));
    let (standing, current) = match (journal::open_enrolled(fs::system(), state), told) {
        (Ok(journal), _) => {
            let current = medium(&config, state);
            (Standing::of(journal.record(), current), current)
        }
        // Not everyone who may ask the agent may read its journal.
        (Err(_), Some(told)) => (told, None),
        (Err(error), None) => return Err(log::chain(&error)),
    };
    if json {
        let value = serde_json::json!({
            "device": config.device,
            "name": config.name,
            "server": config.server,
            "product": config.product,
            "channel": config.channel,
            "release": standing.release,
            "image": standing.image,
            "slot": standing.slot,
            "slot_on_medium": current,
            "deployment": standing.deployment,
            "state": standing.state,
            "rollback_window_left_s": standing.rollback_window_left_s,
            "kept": standing.kept,
            "reports_waiting": standing.reports_waiting,
            "bad_images": standing.bad_images,
            "agent": live,
        });
        return serde_json::to_string_pretty(&value)
            .map(|t| t + "\n")
            .map_err(|e| e.to_string());
    }
    let release = standing
        .release
        .map_or_else(|| "nothing".to_owned(), |release| release.to_string());
    let mut text = format!(
        "device   {} ({})\nserver   {}\nproduct  {}, channel {}\nruns     {release}",
        config.device, config.name, config.server, config.product, config.channel
    );
    if let Some(slot) = current.or(standing.slot) {
        text += &format!(" from slot {}", slot.name());
    }
    if let Some(kept) = standing.kept {
        text += &format!(", keeps {kept}");
    }
    match standing.deployment.zip(standing.state) {
        None => {
            text += "\nstate    idle\n";
        }
        Some((id, state)) => {
            text += &format!("\nstate    {state} ({id})");
            if let Some(left) = standing.rollback_window_left_s {
                text += &format!(", {left} s of the rollback window left");
            }
            text += "\n";
        }
    }
    text += &about(live.as_ref());
    if standing.reports_waiting > 0 {
        let count = standing.reports_waiting;
        text += &format!("waiting  {count} reports for the server\n");
    }
    Ok(text)
}

/// Slot that really runs, where the machine can tell. A hook that does not answer must not keep the
/// rest of the status from being shown.
fn medium(config: &Config, state: &Path) -> Option<SlotId> {
    install::open(fs::system(), state, &config.backend)
        .and_then(|backend| backend.medium())
        .map_err(|e| log::line(&log::chain(&e)))
        .ok()
        .and_then(|medium| medium.active)
}

/// Describes the running agent, or says that none answers.
fn about(live: Option<&Live>) -> String {
    let Some(live) = live else {
        return "agent    not running, or this user has no access to it\n".into();
    };
    let mut text = format!("agent    runs as process {}", live.pid);
    match live.heard_s {
        Some(seconds) => {
            text += &format!(", last answer from the server {seconds} s ago\n");
            if let Some(said) = &live.said {
                text += &format!("said     {} ({seconds} s ago)\n", plain(said));
            }
        }
        None => text += ", no answer from the server yet\n",
    }
    if let Some(error) = &live.error {
        text += &format!("error    {}\n", plain(error));
    }
    if let Some(why) = &live.waits {
        text += &format!("waits    {}\n", plain(why));
    }
    if let Some(seconds) = live.paused_s {
        text += &format!("paused   for {seconds} s more (tidegate-agent resume ends it)\n");
    }
    text
}

/// Sends a request to the running agent and returns its answer.
pub(super) fn told(state: &Path, what: Ask) -> Result<String, String> {
    let config = Config::load(state).map_err(|e| log::chain(&e))?;
    let place = config.control.place(state);
    let reply = control::ask(&place, what).map_err(|e| {
        format!(
            "no agent answers at {}: {e}; it must run as a service, and only root and its group have access",
            place.display()
        )
    })?;
    if reply.ok {
        Ok(reply.text + "\n")
    } else {
        Err(reply.text)
    }
}
