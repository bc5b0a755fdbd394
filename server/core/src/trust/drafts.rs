//! Drafts: signed files that still wait for signatures, so that people in different places can sign
//! one file.
//!
//! The server stores drafts and counts signatures for people to see. It cannot add one: devices
//! verify every file themselves.

use tidegate_domain::event::Event;
use tidegate_store::trust::{self, Draft};
use tidegate_trust::{Quorum, Signed, UploadedFile, signed_by};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::memory::trust::{TrustState, is_online};
use crate::trust::signed_by_server;

/// Draft and its signers.
#[derive(Debug, Clone)]
pub struct DraftStanding {
    /// The draft.
    pub draft: Draft,
    /// Holders who have signed.
    pub signed_by: Vec<String>,
    /// All holders who may sign.
    pub holders: Vec<String>,
    /// Number of holders who must sign.
    pub people: u32,
    /// Whether it had enough signatures, and is in force now.
    pub complete: bool,
}

impl App {
    /// Lists all drafts with their signatures.
    pub async fn drafts(&self) -> Result<Vec<DraftStanding>, CoreError> {
        let drafts = trust::drafts(&mut self.db.read().await?).await?;
        let plan = self.fleet.plan();
        drafts
            .into_iter()
            // A role that is no longer delegated has no holders to wait for.
            .filter_map(|draft| {
                let quorum = plan.trust.repository.quorum(&draft.role).ok()?;
                Some(standing(draft, &quorum, false))
            })
            .collect()
    }

    /// Takes a draft with at least one signature of its role's holders and merges it with the
    /// signatures of the stored draft. Once there are enough, it is in force.
    pub async fn upload_draft(
        &self,
        by: &Operator,
        file: &UploadedFile,
        purpose: &str,
    ) -> Result<DraftStanding, CoreError> {
        if is_online(&file.role) {
            return Err(signed_by_server(&file.role));
        }
        let now = self.now();
        let mut signed = Signed::from_bytes(&file.role, &file.bytes)?;
        let found = self
            .change_or_leave(async |tx| {
                trust::lock(tx).await?;
                let state = TrustState::load(tx).await?;
                let keys = state.repository.draft_keys(&file.role, &signed)?;
                if signed.valid_signers(&keys)?.is_empty() {
                    return Err(CoreError::invalid(format!(
                        "no holder of {} has signed this draft",
                        file.role
                    )));
                }
                let there = trust::drafts(tx).await?;
                let there = there.into_iter().find(|d| d.role == file.role);
                let mut purpose: String = purpose.chars().take(300).collect();
                if let Some(there) = &there {
                    let old = Signed::from_bytes(&there.role, &there.body)?;
                    if old.body() == signed.body() {
                        signed.merge(&old, &keys)?;
                        if purpose.is_empty() {
                            purpose.clone_from(&there.purpose);
                        }
                    }
                }
                // Drop signatures of strangers.
                let mut clean = Signed::unsigned(signed.body().clone());
                clean.merge(&signed, &keys)?;
                let version = clean.body()["version"].as_u64().unwrap_or(0);
                let quorum = state.repository.quorum(&file.role)?;
                let draft = Draft {
                    role: file.role.clone(),
                    version,
                    body: clean.to_bytes(),
                    purpose,
                    created_at: now,
                    created_by: by.name.clone(),
                };
                let complete = UploadedFile {
                    role: file.role.clone(),
                    bytes: draft.body.clone(),
                };
                match state.repository.clone().accept(&complete, now) {
                    Ok(_) => return Ok(Done::Leave(standing(draft, &quorum, true)?)),
                    Err(error) if error.lacks_signatures() => {}
                    // No further signature would make it valid.
                    Err(error) => return Err(error.into()),
                }
                trust::put_draft(tx, &draft).await?;
                let standing = standing(draft, &quorum, false)?;
                let event = Event::DraftSigned {
                    role: file.role.clone(),
                    version,
                    signed: standing.signed_by.len() as u64,
                    people: standing.people,
                    signers: standing.signed_by.join(", "),
                };
                Ok(Done::by(&by.actor, standing, [event]))
            })
            .await?;
        if found.complete {
            // Checked again there: nothing is lost if somebody else was faster.
            let whole = UploadedFile {
                role: found.draft.role.clone(),
                bytes: found.draft.body.clone(),
            };
            self.upload_metadata(by, &[whole]).await?;
        }
        Ok(found)
    }
}

fn standing(draft: Draft, quorum: &Quorum, complete: bool) -> Result<DraftStanding, CoreError> {
    Ok(DraftStanding {
        signed_by: signed_by(&draft.role, &draft.body, quorum)?,
        holders: quorum.holders.iter().map(|h| h.name.clone()).collect(),
        people: quorum.people(),
        draft,
        complete,
    })
}
