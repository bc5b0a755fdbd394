//! Settings of a product.

use std::collections::BTreeSet;

use tidegate_api::SettingsBody;
use tidegate_delta::Limits;
use tidegate_domain::approval::{ApprovalRefusal, Request};
use tidegate_domain::event::Event;
use tidegate_domain::people::People;
use tidegate_domain::version_gate::Tls;
use tidegate_protocol::{ChangeId, ProductName};
use tidegate_store::products::{self, ProductSettings};
use tidegate_store::settings_changes::{self, SettingsChange};
use tidegate_store::{Tx, to_json};

use crate::app::App;
use crate::memory::access::Operator;
use crate::memory::tokens::people;
use crate::{CoreError, random};

/// Checks the settings that a person sends.
fn checked(body: &SettingsBody) -> Result<ProductSettings, CoreError> {
    let tls: Option<Tls> = parsed(body.min_tls.as_deref())?;
    if body.capabilities.len() > 32 || body.capabilities.iter().any(|c| !is_capability(c)) {
        let text = "capabilities: at most 32 names of 1 to 60 letters, digits, '-', '_' and '.'";
        return Err(CoreError::invalid(text));
    }
    let url = body.upgrade_url.trim();
    let web = ["https://", "http://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !url.is_empty() && (!web || url.chars().any(|c| c.is_control() || c.is_whitespace())) {
        let text = "upgrade_url: must start with https:// or http://";
        return Err(CoreError::invalid(text));
    }
    if body.approvals > 10 {
        return Err(CoreError::invalid("approvals: 0 to 10"));
    }
    for (name, kib, most) in [
        (
            "delta_chunk_kib",
            body.delta_chunk_kib,
            Limits::DELTA_CHUNK >> 10,
        ),
        (
            "full_chunk_kib",
            body.full_chunk_kib,
            Limits::FULL_CHUNK >> 10,
        ),
    ] {
        if kib.is_some_and(|kib| !(LEAST_CHUNK_KIB..=most).contains(&kib)) {
            let text = format!("{name}: {LEAST_CHUNK_KIB} to {most}");
            return Err(CoreError::invalid(text));
        }
    }
    Ok(ProductSettings {
        min_version: parsed(body.min_version.as_deref())?,
        min_tls: tls.map(|t| t.to_string()),
        capabilities: body.capabilities.iter().cloned().collect(),
        upgrade_url: body.upgrade_url.trim().chars().take(500).collect(),
        approvals: body.approvals,
        delta_chunk_kib: body.delta_chunk_kib,
        full_chunk_kib: body.full_chunk_kib,
    })
}

/// Parses a value that may be absent or empty.
fn parsed<T>(text: Option<&str>) -> Result<Option<T>, CoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.filter(|t| !t.is_empty())
        .map(|t| t.parse().map_err(CoreError::invalid))
        .transpose()
}

/// Minimum chunk size, in KiB: each chunk costs a request and 90 bytes of manifest.
const LEAST_CHUNK_KIB: u32 = 64;

fn is_capability(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=60).contains(&name.len()) && name.bytes().all(plain)
}

/// Settings of a product, and the change of them that waits.
#[derive(Debug, Clone)]
pub struct SettingsStanding {
    /// Settings in force.
    pub settings: ProductSettings,
    /// Change that waits for approvals.
    pub asked: Option<WaitingSettings>,
}

/// Change of settings that waits for approvals.
#[derive(Debug, Clone)]
pub struct WaitingSettings {
    /// The change asked for.
    pub change: SettingsChange,
    /// Number of people who must approve.
    pub needed: u32,
    /// Number of approvals still missing.
    pub missing: u32,
    /// Names of those who have approved.
    pub given_by: BTreeSet<String>,
}

/// Returns the hash of a change of settings: people approve what it leads from and to.
fn plan_hash(
    product: &ProductName,
    before: &ProductSettings,
    after: &ProductSettings,
) -> Result<String, CoreError> {
    let text = to_json("plan", &(product.as_str(), before, after))?;
    Ok(tidegate_delta::sha256(text.as_bytes()).to_string())
}

/// Reads the settings in force.
async fn current(tx: &mut Tx, product: &ProductName) -> Result<ProductSettings, CoreError> {
    let all = products::all_settings(tx).await?;
    let found = all.into_iter().find(|(name, _)| name == product);
    let (_, settings) = found.ok_or_else(|| CoreError::not_found(format!("product {product}")))?;
    Ok(settings)
}

async fn standing(tx: &mut Tx, product: &ProductName) -> Result<SettingsStanding, CoreError> {
    let settings = current(tx, product).await?;
    let asked = match settings_changes::waiting(tx, product).await? {
        None => None,
        Some(change) => {
            let given_by = settings_changes::approvals(tx, &change).await?;
            let people = people(tx).await?;
            let missing = request(&change, settings.approvals, &given_by, &people).missing();
            Some(WaitingSettings {
                needed: settings.approvals,
                missing,
                given_by,
                change,
            })
        }
    };
    Ok(SettingsStanding { settings, asked })
}

/// Nobody else has written the settings asked for: they are one person's.
const NO_AUTHORS: &BTreeSet<String> = &BTreeSet::new();

fn request<'a>(
    change: &'a SettingsChange,
    needed: u32,
    given_by: &'a BTreeSet<String>,
    people: &'a People,
) -> Request<'a> {
    Request {
        needed,
        asked_by: &change.asked_by,
        authors: NO_AUTHORS,
        given_by,
        plan: &change.plan,
        people,
    }
}

impl App {
    /// Returns the settings of a product.
    pub async fn product_settings(
        &self,
        product: &ProductName,
    ) -> Result<SettingsStanding, CoreError> {
        standing(&mut self.db.read().await?, product).await
    }

    /// Replaces the settings of a product. Fewer approvals are a widening of everything that is
    /// rolled out after it, so they wait for as many people as have been needed so far.
    pub async fn set_settings(
        &self,
        by: &Operator,
        product: &ProductName,
        body: &SettingsBody,
    ) -> Result<SettingsStanding, CoreError> {
        let after = checked(body)?;
        let now = self.now();
        self.change(&by.actor, async |tx| {
            settings_changes::lock(tx, product).await?;
            let before = current(tx, product).await?;
            let event = if after.approvals < before.approvals {
                let change = SettingsChange {
                    id: ChangeId::from_random(random::bytes()),
                    product: product.clone(),
                    plan: plan_hash(product, &before, &after)?,
                    asked_by: by.name.clone(),
                    asked_at: now,
                    settings: after,
                };
                settings_changes::insert(tx, &change).await?;
                Event::SettingsAsked {
                    product: product.clone(),
                    change: change.id,
                    settings: to_json("settings", &change.settings)?,
                    needed: before.approvals,
                    plan: change.plan,
                }
            } else {
                // What was asked for before led from other settings.
                settings_changes::void(tx, product).await?;
                applied(tx, product, &after, None).await?
            };
            Ok((standing(tx, product).await?, vec![event]))
        })
        .await
    }

    /// Approves the settings that wait; with the last approval that is needed they take effect.
    pub async fn approve_settings(
        &self,
        by: &Operator,
        product: &ProductName,
        plan: &str,
    ) -> Result<SettingsStanding, CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            settings_changes::lock(tx, product).await?;
            let needed = current(tx, product).await?.approvals;
            let waiting = settings_changes::waiting(tx, product).await?;
            let change = waiting.ok_or(ApprovalRefusal::NothingAsked)?;
            let mut given_by = settings_changes::approvals(tx, &change).await?;
            given_by.insert(by.name.clone());
            let people = people(tx).await?;
            let request = request(&change, needed, &given_by, &people);
            request.may_approve(&by.name, plan)?;
            let missing = request.missing();
            settings_changes::approve(tx, &change, &by.name, now).await?;
            let mut events = vec![Event::SettingsApproved {
                product: product.clone(),
                change: change.id,
                missing,
            }];
            if missing == 0 {
                settings_changes::end(tx, change.id).await?;
                events.push(applied(tx, product, &change.settings, Some(change.id)).await?);
            }
            Ok((standing(tx, product).await?, events))
        })
        .await
    }
}

/// Writes the settings of a product.
pub(super) async fn applied(
    tx: &mut Tx,
    product: &ProductName,
    settings: &ProductSettings,
    change: Option<ChangeId>,
) -> Result<Event, CoreError> {
    products::set_settings(tx, product, settings).await?;
    Ok(Event::SettingsChanged {
        product: product.clone(),
        settings: to_json("settings", settings)?,
        change,
    })
}
