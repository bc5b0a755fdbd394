//! Following a rollout.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidegate_api::{EventView, Page, RolloutView};
use tidegate_domain::rollout::RolloutState;
use tidegate_protocol::plain;

use crate::api::Api;
use crate::error::CliError;
use crate::foreign::{self, spoken};
use crate::output::{Format, clock, fancy, line};
use crate::pages::Pages;

/// Condition on which following stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Nothing more happens by itself.
    Settled,
    /// Every device is back.
    Returned,
}

impl Until {
    fn reached(self, rollout: &RolloutView) -> bool {
        // A word that only a newer server has says nothing about the end.
        let Ok(state) = rollout.state.parse::<RolloutState>() else {
            return false;
        };
        match self {
            Self::Settled => {
                state.is_final() || matches!(state, RolloutState::Halted | RolloutState::Draft)
            }
            Self::Returned => matches!(
                state,
                RolloutState::RolledBack | RolloutState::RolledBackPartly
            ),
        }
    }
}

/// Time a server may be unreachable before a watch gives up.
pub(super) const SERVER_SILENCE: Duration = Duration::from_mins(1);

/// Follows a rollout: repaints waves on a terminal, prints one line per event elsewhere. Ctrl-C
/// leaves the rollout running.
pub(crate) async fn follow(
    api: &Api,
    id: &str,
    format: Format,
    until: Until,
    timeout: Option<Duration>,
) -> Result<RolloutView, CliError> {
    let began = Instant::now();
    let mut screen = Screen::new(format);
    let mut cursor: Option<String> = None;
    let mut silent_since: Option<Instant> = None;
    loop {
        let looked = look(api, id, &mut cursor, &screen).await;
        let rollout = match looked {
            Ok(rollout) => {
                silent_since = None;
                rollout
            }
            // A server restart must not end the watch: the rollout goes on.
            Err(error @ CliError::Unreachable { .. }) => {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SERVER_SILENCE {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        screen.paint(&rollout)?;
        if until.reached(&rollout) {
            screen.finish(&rollout)?;
            return Ok(rollout);
        }
        if timeout.is_some_and(|t| began.elapsed() >= t) {
            return Err(CliError::Timeout(format!(
                "rollout {id} is still {}; it continues unwatched",
                rollout.state
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(CliError::Hinted(
                    "no longer watching; the rollout continues".into(),
                    format!("tidegate rollout halt {id} --reason ... stops it"),
                ));
            }
        }
    }
}

/// Prints the events since the last look; returns the rollout as it is now.
async fn look(
    api: &Api,
    id: &str,
    cursor: &mut Option<String>,
    screen: &Screen,
) -> Result<RolloutView, CliError> {
    let mut pages = Pages::default();
    loop {
        let query = cursor
            .as_ref()
            .map(|c| format!("&cursor={c}"))
            .unwrap_or_default();
        let path = format!("/api/v1/rollouts/{id}/events?limit=200{query}");
        let page: Page<EventView> = api.get(&path).await?;
        if let Some(last) = page.items.last() {
            *cursor = Some(cursor_after(id, last.seq));
        }
        for event in &page.items {
            screen.event(event)?;
        }
        let Some(next) = &page.next_cursor else {
            return api.get(&format!("/api/v1/rollouts/{id}")).await;
        };
        pages.follow(page.items.len(), next)?;
    }
}

/// Cursor after an event of a rollout, in the API's own form.
fn cursor_after(id: &str, seq: i64) -> String {
    tidegate_api::cursor(&format!("/api/v1/rollouts/{id}/events"), &seq.to_string())
}

/// Fails unless the rollout completed on every device that it was for, with an exit code that says how it
/// ended: see `docs/reference/cli.md`.
pub(crate) fn verdict(rollout: &RolloutView) -> Result<(), CliError> {
    let text = format!("the rollout is {}: {}", rollout.state, rollout.reason.text);
    Err(match rollout.state.parse() {
        Ok(RolloutState::Completed) => return Ok(()),
        Ok(RolloutState::CompletedPartly) => CliError::LeftOut(text),
        Ok(RolloutState::NothingToDo) => CliError::NothingToDo(text),
        Ok(RolloutState::RolledBackPartly) => {
            let stuck = rollout.tally.stuck;
            CliError::Partly(format!(
                "{text}; {stuck} devices stay on {}",
                rollout.release
            ))
        }
        _ => CliError::RolloutFailed(text),
    })
}

struct Screen {
    bars: Option<MultiProgress>,
    head: Option<ProgressBar>,
    waves: Vec<ProgressBar>,
    format: Format,
    said: String,
}

impl Screen {
    fn new(format: Format) -> Self {
        let bars = (fancy() && format == Format::Table).then(MultiProgress::new);
        Self {
            bars,
            head: None,
            waves: Vec::new(),
            format,
            said: String::new(),
        }
    }

    fn event(&self, event: &EventView) -> Result<(), CliError> {
        match (&self.bars, self.format) {
            (Some(bars), _) if event.topic == "rollout" => {
                let _ = bars.println(format!("{} {}", clock(&event.at), spoken(event)));
                Ok(())
            }
            (Some(_), _) => Ok(()),
            (None, Format::Json) => {
                line(&serde_json::to_string(event).map_err(|e| CliError::failed("JSON", &e))?)
            }
            (None, Format::Table) => line(&format!(
                "{} {}: {}",
                clock(&event.at),
                plain(&event.actor),
                spoken(event)
            )),
        }
    }

    fn paint(&mut self, rollout: &RolloutView) -> Result<(), CliError> {
        let rollout = &plain_view(rollout)?;
        let Some(bars) = &self.bars else {
            // Prints why it does no more, once for each reason.
            if self.format == Format::Table && self.said != rollout.reason.text {
                self.said.clone_from(&rollout.reason.text);
                line(&format!("         {}: {}", rollout.state, self.said))?;
            }
            return Ok(());
        };
        if self.waves.is_empty() {
            let head = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                head.set_style(style);
            }
            self.head = Some(head);
            for _ in &rollout.waves {
                let bar = bars.add(ProgressBar::new(1));
                if let Ok(style) =
                    ProgressStyle::with_template("  {prefix:18} {bar:24} {pos:>5}/{len:5} {msg}")
                {
                    bar.set_style(style);
                }
                self.waves.push(bar);
            }
        }
        if let Some(head) = &self.head {
            head.set_message(format!(
                "{} {} {}: {}",
                rollout.product, rollout.release, rollout.state, rollout.reason.text
            ));
        }
        for (bar, wave) in self.waves.iter().zip(&rollout.waves) {
            bar.set_length(wave.members);
            bar.set_position(wave.tally.healthy);
            bar.set_prefix(wave.name.clone());
            let t = &wave.tally;
            let mut text = format!("{}  {} in flight", wave.state, t.in_flight);
            for (count, word) in [
                (t.failed, "failed"),
                (t.returning, "returning"),
                (t.returned, "returned"),
            ] {
                if count > 0 {
                    text += &format!("  {count} {word}");
                }
            }
            bar.set_message(text);
        }
        Ok(())
    }

    fn finish(&self, rollout: &RolloutView) -> Result<(), CliError> {
        for bar in self.waves.iter().chain(&self.head) {
            bar.finish();
        }
        if self.bars.is_some() || self.format == Format::Table {
            line(&super::rollout_show::describe(&plain_view(rollout)?))?;
        }
        Ok(())
    }
}

/// Makes the texts of a rollout fit to be shown.
fn plain_view(rollout: &RolloutView) -> Result<RolloutView, CliError> {
    foreign::shown(rollout).map_err(|e| CliError::failed("showing the answer", &e))
}
