//! The end of a release's life, and what holds for a whole product.

use tidegate_protocol::{ProblemCode, ProductName, Stage, Timestamp, Version};

use super::access::Operator;
use super::releases::release_event;
use super::{ServiceError, event};
use crate::app::App;
use crate::store::events::{self, EventKind, NewEvent};
use crate::store::products::{self, ProductSettings, Release};

impl App {
    /// Announces the end of a release's life. It may be moved, also into the past.
    pub async fn announce_eol(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        at: Timestamp,
        notice: &str,
        dry_run: bool,
    ) -> Result<Release, ServiceError> {
        let mut tx = self.db.write().await?;
        let release = products::release(&mut tx, product, version)
            .await?
            .ok_or_else(|| ServiceError::not_found(format!("release {version} of {product}")))?;
        let announced = Release {
            eol: Some((at, notice.to_owned())),
            ..release.clone()
        };
        if release.stage == Stage::Withdrawn {
            let text = format!("release {version} is withdrawn: its life is over already");
            return Err(ServiceError::refuse(ProblemCode::Conflict, text));
        }
        if dry_run {
            return Ok(announced);
        }
        products::set_eol(&mut tx, product, version, at, notice).await?;
        let text = format!("release {version} reaches its end of life at {at}: {notice}");
        let event = release_event(&release, by, text);
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        self.fleet.reload_plan(&self.db).await?;
        Ok(Release {
            revision: release.revision + 1,
            ..announced
        })
    }

    /// Gives releases whose announced end has come the stage `eol`. Only the leader calls it.
    pub(crate) async fn end_lives(&self) -> Result<(), ServiceError> {
        let due = products::due_eol(&mut self.db.read().await?, self.now()).await?;
        for release in due {
            let reason = Some("its announced end of life has come");
            let (product, version) = (&release.product, &release.version);
            self.promote(
                &Operator::planner(),
                product,
                version,
                Stage::Eol,
                reason,
                false,
            )
            .await?;
        }
        Ok(())
    }

    /// Sets what holds for a whole product.
    pub async fn set_settings(
        &self,
        by: &Operator,
        product: &ProductName,
        settings: &ProductSettings,
    ) -> Result<(), ServiceError> {
        let mut tx = self.db.write().await?;
        if !products::set_settings(&mut tx, product, settings).await? {
            return Err(ServiceError::not_found(format!("product {product}")));
        }
        let text = format!(
            "settings: {}",
            serde_json::to_string(settings).unwrap_or_default()
        );
        let event = NewEvent {
            product: Some(product.clone()),
            ..event(EventKind::Release, by.actor(), text)
        };
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        self.fleet.reload_plan(&self.db).await?;
        Ok(())
    }
}
