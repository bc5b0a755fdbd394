//! Drafts of signed files.

use tidegate_api::DraftView;
use tidegate_core::trust::DraftStanding;

use super::View;

impl View<DraftStanding> for DraftView {
    fn view(standing: DraftStanding) -> Self {
        let draft = standing.draft;
        Self {
            role: draft.role,
            version: draft.version,
            body: String::from_utf8_lossy(&draft.body).into_owned(),
            purpose: draft.purpose,
            signed_by: standing.signed_by,
            holders: standing.holders,
            people: standing.people,
            complete: standing.complete,
            created_at: draft.created_at.to_string(),
            created_by: draft.created_by,
        }
    }
}
