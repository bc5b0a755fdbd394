//! Lookups: stored rows, page by page.

use tidegate_protocol::{DeviceId, ProductName, RolloutId, Timestamp, Version};
use tidegate_store::artifacts::{self, Artifact};
use tidegate_store::deployments::{self, Deployment};
use tidegate_store::holds::{self, HoldRow};
use tidegate_store::incidents::{self, Incident};
use tidegate_store::products::{self, Release};
use tidegate_store::{devices, rollouts};

use crate::CoreError;
use crate::app::App;

impl App {
    /// Returns all products, by name.
    pub async fn products(&self) -> Result<Vec<ProductName>, CoreError> {
        let list = products::products(&mut self.db.read().await?).await?;
        Ok(list.into_iter().map(|(name, _)| name).collect())
    }

    /// Returns the releases of a product, newest first.
    pub async fn releases(&self, product: &ProductName) -> Result<Vec<Release>, CoreError> {
        let mut tx = self.db.read().await?;
        if !products::product_exists(&mut tx, product).await? {
            return Err(CoreError::not_found(format!("product {product}")));
        }
        Ok(products::releases(&mut tx, product).await?)
    }

    /// Returns a release with its artifacts.
    pub async fn release(
        &self,
        product: &ProductName,
        version: &Version,
    ) -> Result<(Release, Vec<Artifact>), CoreError> {
        let mut tx = self.db.read().await?;
        let release = products::release(&mut tx, product, version)
            .await?
            .ok_or_else(|| CoreError::not_found(format!("release {version} of {product}")))?;
        let artifacts = artifacts::artifacts(&mut tx, product, version).await?;
        Ok((release, artifacts))
    }

    /// Returns deployments of a rollout after a position, by id; an empty `state` selects all.
    pub async fn deployments(
        &self,
        rollout: RolloutId,
        after: &str,
        state: &str,
        limit: i64,
    ) -> Result<Vec<Deployment>, CoreError> {
        let mut tx = self.db.read().await?;
        if rollouts::one(&mut tx, rollout).await?.is_none() {
            return Err(CoreError::not_found(format!("rollout {rollout}")));
        }
        Ok(deployments::page(&mut tx, rollout, after, state, limit).await?)
    }

    /// Returns devices after a position, by id; an empty `product` or `region` selects all.
    pub async fn device_ids(
        &self,
        after: &str,
        product: &str,
        region: &str,
        limit: i64,
    ) -> Result<Vec<DeviceId>, CoreError> {
        let mut tx = self.db.read().await?;
        let rows = devices::page(&mut tx, after, product, region, limit).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    /// Returns incidents older than a position, newest first.
    pub async fn incidents(
        &self,
        (before, id): (Timestamp, &str),
        limit: i64,
    ) -> Result<Vec<Incident>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(incidents::page(&mut tx, before, id, limit).await?)
    }

    /// Returns holds in force after a position, by id; an empty `product` selects all.
    pub async fn holds(
        &self,
        after: &str,
        product: &str,
        limit: i64,
    ) -> Result<Vec<HoldRow>, CoreError> {
        let mut tx = self.db.read().await?;
        Ok(holds::page(&mut tx, after, product, limit).await?)
    }
}
