//! Releases, artifacts, payloads and settings.

use tidegate_api::{
    ArtifactView, AskedSettingsView, PayloadView, ReleaseView, SettingsBody, SettingsView, time,
};
use tidegate_core::release::settings::SettingsStanding;
use tidegate_core::release::{PayloadStanding, PayloadState};
use tidegate_core::rows::{Artifact, ProductSettings, Release};

use super::View;

/// Shows it.
pub(crate) fn release_view(release: Release, artifacts: &[Artifact]) -> ReleaseView {
    ReleaseView {
        product: release.product.to_string(),
        version: release.version.to_string(),
        stage: release.stage.to_string(),
        notes: release.notes,
        reason: release.reason,
        eol_at: release.eol.as_ref().map(|(at, _)| time(*at)),
        eol_notice: release.eol.map(|(_, notice)| notice).unwrap_or_default(),
        revision: release.revision,
        created_at: time(release.created_at),
        created_by: release.created_by,
        artifacts: artifacts.iter().map(ArtifactView::view).collect(),
    }
}

impl View<&Artifact> for ArtifactView {
    fn view(artifact: &Artifact) -> Self {
        Self {
            platform: artifact.platform.to_string(),
            sha256: artifact.image.sha256.to_string(),
            length: artifact.image.length,
        }
    }
}

impl View<ProductSettings> for SettingsBody {
    fn view(s: ProductSettings) -> Self {
        Self {
            min_version: s.min_version.map(|v| v.to_string()),
            min_tls: s.min_tls,
            capabilities: s.capabilities.into_iter().collect(),
            upgrade_url: s.upgrade_url,
            approvals: s.approvals,
            delta_chunk_kib: s.delta_chunk_kib,
            full_chunk_kib: s.full_chunk_kib,
        }
    }
}

impl View<SettingsStanding> for SettingsView {
    fn view(standing: SettingsStanding) -> Self {
        Self {
            settings: SettingsBody::view(standing.settings),
            asked: standing.asked.map(|asked| AskedSettingsView {
                settings: SettingsBody::view(asked.change.settings),
                asked_by: asked.change.asked_by,
                plan: asked.change.plan,
                needed: asked.needed,
                missing: asked.missing,
                given_by: asked.given_by.into_iter().collect(),
            }),
        }
    }
}

impl View<PayloadStanding> for PayloadView {
    fn view(payload: PayloadStanding) -> Self {
        let state = match payload.state {
            PayloadState::Ready => "ready",
            PayloadState::Building => "building",
            PayloadState::Failed => "failed",
        };
        Self {
            platform: payload.platform.to_string(),
            from: payload.from.map(|from| from.to_string()),
            encoding: payload.encoding.to_string(),
            bytes: payload.bytes,
            image_bytes: payload.image_bytes,
            state: state.into(),
            error: payload.error,
        }
    }
}
