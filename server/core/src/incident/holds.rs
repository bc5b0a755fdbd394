//! Holds: created quickly by responders, lifted by releasers.

use tidegate_domain::event::Event;
use tidegate_domain::hold::Hold;
use tidegate_domain::selector::Selector;
use tidegate_protocol::{HoldId, ProductName, Version};
use tidegate_store::holds::{self, HoldRow};
use tidegate_store::products;

use crate::app::App;
use crate::memory::access::Operator;
use crate::{CoreError, random};

/// Hold to create.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Product the hold applies to.
    pub product: ProductName,
    /// Release that is held back; `None` for every release.
    pub release: Option<Version>,
    /// Selected devices.
    pub selector: Selector,
    /// The reason.
    pub reason: String,
    /// Link to more information; may be empty.
    pub link: String,
}

impl App {
    /// Holds a release back from devices, starting with their next check-in. Returns the hold and
    /// the number of devices it selects now.
    pub async fn create_hold(
        &self,
        by: &Operator,
        new: NewHold,
        dry_run: bool,
    ) -> Result<(HoldRow, u64), CoreError> {
        let is_web = ["https://", "http://"]
            .iter()
            .any(|scheme| new.link.starts_with(scheme));
        if !new.link.is_empty() && !is_web {
            let text = "link: begin it with https:// or http://, people will follow it";
            return Err(CoreError::invalid(text));
        }
        let now = self.now();
        let row = HoldRow {
            product: new.product,
            hold: Hold {
                id: HoldId::from_random(random::bytes()),
                release: new.release,
                selector: new.selector,
                reason: new.reason.chars().take(300).collect(),
                link: new.link.chars().take(300).collect(),
            },
            created_at: now,
            created_by: by.name.clone(),
        };
        if let Some(release) = &row.hold.release
            && !self
                .fleet
                .plan()
                .product(&row.product)
                .releases
                .contains_key(release)
        {
            let what = format!("release {release} of {}", row.product);
            return Err(CoreError::not_found(what));
        }
        let concerned = self
            .fleet
            .devices()
            .iter()
            .filter(|entry| {
                let state = entry.lock();
                state.device.product == row.product
                    && row.hold.selector.matches(state.facts().selectable())
            })
            .count() as u64;
        if dry_run {
            return Ok((row, concerned));
        }
        self.change(&by.actor, async |tx| {
            if !products::product_exists(tx, &row.product).await? {
                return Err(CoreError::not_found(format!("product {}", row.product)));
            }
            holds::insert(tx, &row).await?;
            let made = Event::HoldMade {
                hold: row.hold.id,
                product: row.product.clone(),
                release: row.hold.release.clone(),
                selector: row.hold.selector.to_string(),
                reason: row.hold.reason.clone(),
            };
            Ok(((), vec![made]))
        })
        .await?;
        Ok((row, concerned))
    }

    /// Lifts a hold.
    pub async fn lift_hold(
        &self,
        by: &Operator,
        id: HoldId,
        reason: &str,
    ) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            if !holds::lift(tx, id, &by.name, now).await? {
                return Err(CoreError::not_found(format!("hold {id} in force")));
            }
            let reason = reason.to_owned();
            Ok(((), vec![Event::HoldLifted { hold: id, reason }]))
        })
        .await
    }
}
