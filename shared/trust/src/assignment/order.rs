//! The order of releases: floors, end of life, direction, stepping stones.

use tidegate_protocol::{Platform, Version};

use super::{Action, Situation};
use crate::role::ImagePath;
use crate::trusted::Trusted;
use crate::{ImageFacts, TrustError};

/// Check 6, continued: floors, end of life, direction.
pub(super) fn check_order(
    trusted: &Trusted,
    facts: &ImageFacts,
    action: Action,
    situation: &Situation<'_>,
) -> Result<(), TrustError> {
    let image = facts.release.clone();
    let role = trusted.role();
    let floor = situation
        .floor
        .into_iter()
        .chain(role.policy.min_release.as_ref())
        .max();
    if let Some(floor) = floor
        && image < *floor
    {
        return Err(TrustError::BelowFloor {
            image,
            floor: floor.clone(),
        });
    }
    if role.policy.eol.contains(&image) {
        return Err(TrustError::EndOfLife(image));
    }
    let Some(installed) = situation.installed else {
        return Ok(());
    };
    if image == *installed {
        return Err(TrustError::AlreadyInstalled(image));
    }
    match action {
        Action::Install => {
            if image < *installed {
                return Err(TrustError::Downgrade {
                    image,
                    installed: installed.clone(),
                });
            }
            if let Some(needed) = &facts.min_from
                && installed < needed
            {
                return Err(TrustError::BelowMinimumSource {
                    image,
                    needed: needed.clone(),
                });
            }
            if let Some(stone) = skipped_stone(role, situation.platform, installed, &image) {
                return Err(TrustError::SkipsSteppingStone { image, stone });
            }
        }
        Action::Rollback => {
            // Upwards it would bypass minimum source, stepping stones and the rollback window.
            if image > *installed {
                return Err(TrustError::RollbackUpwards {
                    image,
                    installed: installed.clone(),
                });
            }
            let from = ImagePath {
                role: role.name.clone(),
                release: installed.clone(),
                platform: situation.platform.clone(),
            };
            if role
                .images
                .get(&from)
                .is_some_and(|facts| !facts.allow_rollback)
            {
                return Err(TrustError::RollbackNotAllowed(installed.clone()));
            }
        }
    }
    Ok(())
}

/// Returns the oldest stepping stone for this platform that lies between two releases and may still
/// be installed.
fn skipped_stone(
    role: &crate::ProductRole,
    platform: &Platform,
    installed: &Version,
    image: &Version,
) -> Option<Version> {
    role.images
        .iter()
        .filter(|(path, facts)| facts.stepping_stone && path.platform == *platform)
        .map(|(path, _)| &path.release)
        .filter(|stone| *stone > installed && *stone < image)
        .filter(|stone| !role.policy.eol.contains(stone))
        .filter(|stone| {
            role.policy
                .min_release
                .as_ref()
                .is_none_or(|min| *stone >= min)
        })
        .min()
        .cloned()
}
