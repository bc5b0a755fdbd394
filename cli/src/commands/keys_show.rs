//! `keys show`: the contents of a file, and the state of a folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate_trust::Signed;

use super::Context;
use crate::error::CliError;
use crate::keys::{Access, Offline, Outcome, holder};
use crate::output::{show, table};

/// Reads a draft that was sent; returns its role with it.
pub(super) fn read_draft(path: &Path) -> Result<(String, Signed), CliError> {
    let bytes = crate::keys::read_bounded(path)
        .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    let draft = Signed::from_bytes(&path.display().to_string(), &bytes)
        .map_err(|e| CliError::failed("reading a draft", &e))?;
    let body = draft.body();
    let images = body["targets"].as_object();
    let role = match body["_type"].as_str() {
        Some("root") => "root".to_owned(),
        Some("targets") if body.get("delegations").is_some() => "targets".to_owned(),
        // The paths name the product and channel; an empty role is known only by its file name.
        Some("targets") => match images.and_then(|i| i.keys().next()) {
            Some(image) => image.splitn(3, '/').take(2).collect::<Vec<_>>().join("-"),
            None => path
                .file_stem()
                .map(|s| s.to_string_lossy().into_owned())
                .unwrap_or_default(),
        },
        _ => {
            return Err(CliError::Failed(format!(
                "{} is not a root, targets or product role",
                path.display()
            )));
        }
    };
    Ok((role, draft))
}

/// Describes a file of public keys, or a draft against what is in force in the folder.
pub(super) fn describe_file(access: &Access, path: &Path) -> Result<String, CliError> {
    if let Ok(holder) = holder::read_public(path) {
        let kinds = if holder.is_hybrid() {
            "Ed25519 and ML-DSA-65"
        } else {
            "Ed25519"
        };
        return Ok(format!(
            "public keys of {} ({kinds}): {}",
            holder.name,
            holder.fingerprint()
        ));
    }
    let (role, draft) = read_draft(path)?;
    Offline::open_any(access)?.review(&role, &draft)
}

#[derive(Deserialize, Serialize)]
struct RoleRow {
    role: String,
    version: u64,
    expires: String,
    people: String,
    holders: Vec<String>,
    draft: Option<String>,
}

pub(super) fn show_folder(context: &Context, access: &Access) -> Result<(), CliError> {
    if !access.dir.exists() {
        Offline::open(access)?;
    }
    let offline = Offline::open_any(access)?;
    let mut roles = offline.names("metadata")?;
    for role in offline.names("drafts")? {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    let mut rows = Vec::new();
    for role in roles {
        let quorum = offline.quorum(&role);
        let (people, holders) = match &quorum {
            Ok(q) => (
                format!("{} of {}", q.people(), q.holders.len()),
                q.holders.iter().map(|h| h.name.clone()).collect(),
            ),
            Err(_) => ("-".into(), Vec::new()),
        };
        let expires = offline
            .repository()
            .bytes(&role)
            .and_then(|b| serde_json::from_slice::<serde_json::Value>(b).ok())
            .and_then(|v| v["signed"]["expires"].as_str().map(str::to_owned));
        let draft = match (offline.draft(&role)?, &quorum) {
            (None, _) => None,
            (Some(draft), Ok(_)) => match offline.standing(&role)? {
                Outcome::Waiting { signed_by, people } => Some(format!(
                    "v{} signed by {} of {people} {}",
                    draft.body()["version"],
                    signed_by.len(),
                    signed_by.join(", ")
                )),
                Outcome::Complete => None,
            },
            (Some(draft), Err(_)) => Some(format!("v{}", draft.body()["version"])),
        };
        rows.push(RoleRow {
            version: offline.repository().version(&role),
            expires: expires.unwrap_or_else(|| "-".into()),
            role,
            people,
            holders,
            draft,
        });
    }
    let here = holder::all_here(&access.dir)?.join(", ");
    let root = offline
        .repository()
        .root()
        .map(|(version, bytes)| format!("v{version} {}", tidegate_delta::sha256(bytes)));
    show(context.format, &rows, |rows| {
        let cells = rows
            .iter()
            .map(|r| {
                [
                    r.role.clone(),
                    r.version.to_string(),
                    r.expires.clone(),
                    r.people.clone(),
                    r.holders.join(", "),
                    r.draft.clone().unwrap_or_else(|| "-".into()),
                ]
            })
            .collect();
        format!(
            "{}\n\nprivate keys here: {}\nroot of trust: {}",
            table(
                ["ROLE", "VERSION", "EXPIRES", "PEOPLE", "HOLDERS", "DRAFT"],
                cells
            ),
            if here.is_empty() { "none" } else { &here },
            root.as_deref().unwrap_or("none")
        )
    })
}
