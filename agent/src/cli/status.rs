//! `status`: what the journal and the medium say.

use std::path::Path;

use crate::config::Config;
use crate::control::{self, Ask, Live};
use crate::fs;
use crate::install;
use crate::journal::Journal;
use crate::log;

pub(super) fn status(state: &Path, json: bool) -> Result<String, String> {
    let config = Config::load(state).map_err(|e| log::chain(&e))?;
    let fs = fs::system();
    let journal = Journal::open_enrolled(fs.clone(), state).map_err(|e| log::chain(&e))?;
    let record = journal.record();
    // A hook that does not answer is no reason to say nothing.
    let current = install::open(fs, state, &config.backend)
        .and_then(|backend| backend.medium())
        .map_err(|e| log::line(&log::chain(&e)))
        .ok()
        .and_then(|medium| medium.active);
    // What really runs, where the medium says it: a switch may be meant and not made.
    let shown = current.or(record.active);
    let running = shown.and_then(|slot| record.slot(slot));
    let kept = shown.unwrap_or(record.inactive().other()).other();
    let kept = record.slot(kept);
    let status = record.status();
    // What only a running agent knows; without one the files say all there is.
    let live = control::ask(&config.control.place(state), Ask::Status)
        .ok()
        .map(|reply| reply.live);
    if json {
        let value = serde_json::json!({
            "device": config.device,
            "name": config.name,
            "server": config.server,
            "product": config.product,
            "channel": config.channel,
            "release": running.map(|i| i.release.to_string()),
            "image": running.map(|i| i.image.sha256),
            "slot": record.active,
            "slot_on_medium": current,
            "deployment": status.map(|(id, ..)| id),
            "state": status.map(|(_, state, _)| state),
            "window_left_s": status.and_then(|(.., left)| left),
            "kept": kept.map(|i| i.release.to_string()),
            "reports_waiting": record.outbox.len(),
            "bad_images": record.bad,
            "agent": live,
        });
        return serde_json::to_string_pretty(&value)
            .map(|t| t + "\n")
            .map_err(|e| e.to_string());
    }
    let release = running.map_or_else(|| "nothing".to_owned(), |i| i.release.to_string());
    let mut text = format!(
        "device   {} ({})\nserver   {}\nproduct  {}, channel {}\nruns     {release}",
        config.device, config.name, config.server, config.product, config.channel
    );
    if let Some(slot) = shown {
        text += &format!(" from slot {}", slot.name());
    }
    if let Some(kept) = kept {
        text += &format!(", keeps {}", kept.release);
    }
    match status {
        None => {
            let said = live.as_ref().and_then(|live| live.said.as_deref());
            text += "\nstate    idle";
            if let Some(said) = said {
                text += &format!(": {said}");
            }
            text += "\n";
        }
        Some((id, state, left)) => {
            text += &format!("\nstate    {state} ({id})");
            if let Some(left) = left {
                text += &format!(", {left} s of the rollback window left");
            }
            text += "\n";
        }
    }
    text += &about(live.as_ref());
    if !record.outbox.is_empty() {
        text += &format!("waiting  {} reports for the server\n", record.outbox.len());
    }
    Ok(text)
}

/// What a running agent says of itself.
fn about(live: Option<&Live>) -> String {
    let Some(live) = live else {
        return "agent    does not run, or this user may not speak to it\n".into();
    };
    let mut text = format!("agent    runs as process {}", live.pid);
    match live.heard_s {
        Some(seconds) => text += &format!(", heard of the server {seconds} s ago\n"),
        None => text += ", has not heard of the server yet\n",
    }
    if let Some(error) = &live.error {
        text += &format!("error    {error}\n");
    }
    if let Some(why) = &live.waits {
        text += &format!("waits    {why}\n");
    }
    if let Some(seconds) = live.paused_s {
        text += &format!("paused   for {seconds} s more (tidegate-agent resume ends it)\n");
    }
    text
}

/// Asks the running agent for something.
pub(super) fn told(state: &Path, what: Ask) -> Result<String, String> {
    let config = Config::load(state).map_err(|e| log::chain(&e))?;
    let place = config.control.place(state);
    let reply = control::ask(&place, what).map_err(|e| {
        format!(
            "no agent answers at {}: {e}; it runs as a service, and root or its group may ask it",
            place.display()
        )
    })?;
    if reply.ok {
        Ok(reply.text + "\n")
    } else {
        Err(reply.text)
    }
}
