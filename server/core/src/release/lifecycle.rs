//! End of life of a release, and settings of a product.

use tidegate_domain::event::Event;
use tidegate_protocol::{ProblemCode, ProductName, Stage, Timestamp, Version};
use tidegate_store::products::{self, Release};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;

impl App {
    /// Announces the end of life of a release. It may be changed later, also to a time in the past.
    pub async fn announce_eol(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        at: Timestamp,
        notice: &str,
        dry_run: bool,
    ) -> Result<Release, CoreError> {
        self.change_or_leave(async |tx| {
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| CoreError::not_found(format!("release {version} of {product}")))?;
            if release.stage == Stage::Withdrawn {
                let text = format!("release {version} is withdrawn; it cannot have an end of life");
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
            }
            let announced = Release {
                eol: Some((at, notice.to_owned())),
                ..release
            };
            if dry_run {
                return Ok(Done::Leave(announced));
            }
            products::set_eol(tx, product, version, at, notice).await?;
            let event = Event::EolAnnounced {
                product: product.clone(),
                release: version.clone(),
                at,
                notice: notice.to_owned(),
            };
            let after = Release {
                revision: announced.revision + 1,
                ..announced
            };
            Ok(Done::by(&by.actor, after, [event]))
        })
        .await
    }

    /// Moves releases whose announced end of life has come to the stage `eol`. Called only by the
    /// leader.
    pub async fn end_lives(&self) -> Result<(), CoreError> {
        let due = products::due_eol(&mut self.db.read().await?, self.now()).await?;
        for release in due {
            let reason = Some("announced end of life reached");
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
}
