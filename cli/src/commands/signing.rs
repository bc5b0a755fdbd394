//! `release sign` and `release policy`: signatures on releases beyond publishing them.

use tidegate_protocol::{Channel, ProductName, Version, plain};
use tidegate_trust::{ProductRole, RoleName};

use crate::api::Api;
use crate::error::CliError;
use crate::keys::{Access, Offline, Outcome};
use crate::output::line;

/// Adds the signatures of the keys that are here to the product's drafts on the server.
pub(crate) async fn sign(
    api: &Api,
    access: &Access,
    product: &ProductName,
    release: Option<Version>,
    yes: bool,
) -> Result<(), CliError> {
    let mut offline = Offline::open(access)?;
    offline.pull(api).await?;
    offline.pull_drafts(api).await?;
    let mut signed = 0;
    for channel in Channel::ALL {
        let name = RoleName::new(product.clone(), *channel);
        let role = name.to_string();
        let Some(mut draft) = offline.draft(&role)? else {
            continue;
        };
        let next = ProductRole::from_bytes(&name, &draft.to_bytes())
            .map_err(|e| CliError::failed("reading a draft", &e))?;
        if let Some(release) = &release
            && !next.images.keys().any(|path| path.release == *release)
        {
            continue;
        }
        let changes = changes(&offline, &name, &next)?;
        super::keys::confirm_text(
            &format!(
                "{role} version {}\n{changes}\n  for, as the server says it, unsigned: {}",
                next.version,
                plain(&offline.purpose(&role))
            ),
            yes,
        )?;
        if offline.sign_with_own(&role, &mut draft)?.is_empty() {
            return Err(CliError::Hinted(
                format!("no key in {} may sign {role}", access.dir.display()),
                "`tidegate keys show` lists the holders of each role".into(),
            ));
        }
        let purpose = offline.purpose(&role);
        let outcome = offline.settle(&role, &draft, &purpose)?;
        offline.push(api, std::slice::from_ref(&role)).await?;
        line(&outcome.describe(&role))?;
        signed += 1;
    }
    if signed == 0 {
        return Err(CliError::Failed(format!(
            "nothing of {product} waits for a signature"
        )));
    }
    Ok(())
}

/// Describes what a draft changes against the file in force. Refuses a draft with an image that
/// differs from the one published in the alpha channel: the second person signs what the first one
/// published.
fn changes(offline: &Offline, name: &RoleName, next: &ProductRole) -> Result<String, CliError> {
    let present = offline.repository().role(name);
    let published = RoleName::new(name.product.clone(), Channel::Alpha);
    let published = offline.repository().role(&published);
    let mut lines = Vec::new();
    for (path, facts) in &next.images {
        if present.is_some_and(|role| role.images.get(path) == Some(facts)) {
            continue;
        }
        let source = tidegate_trust::ImagePath {
            role: RoleName::new(name.product.clone(), Channel::Alpha),
            ..path.clone()
        };
        if name.channel != Channel::Alpha
            && published.is_none_or(|role| role.images.get(&source) != Some(facts))
        {
            return Err(CliError::Failed(format!(
                "{path} differs from the image published in {}: refusing to sign it",
                source.role
            )));
        }
        lines.push(format!(
            "  + {path}  {} bytes  sha256 {}",
            facts.image.length, facts.image.sha256
        ));
    }
    for path in present.into_iter().flat_map(|role| role.images.keys()) {
        if !next.images.contains_key(path) {
            lines.push(format!("  - {path}"));
        }
    }
    if present.is_none_or(|role| role.policy != next.policy) {
        lines.push(format!(
            "  policy {}",
            serde_json::to_string(&next.policy).map_err(|e| CliError::failed("the policy", &e))?
        ));
    }
    Ok(lines.join("\n"))
}

/// A change to the policy on what devices may install at all.
pub(crate) struct PolicyChange {
    pub(crate) channel: Option<Channel>,
    pub(crate) min_release: Option<Version>,
    pub(crate) eol: Vec<Version>,
    pub(crate) not_eol: Vec<Version>,
    pub(crate) notice: Option<String>,
}

/// Applies a policy change to the product's roles and signs them.
pub(crate) async fn policy(
    api: &Api,
    access: &Access,
    product: &ProductName,
    change: &PolicyChange,
) -> Result<(), CliError> {
    let mut offline = Offline::open(access)?;
    offline.pull(api).await?;
    offline.pull_drafts(api).await?;
    let mut changed = Vec::new();
    for channel in Channel::ALL {
        if change.channel.is_some_and(|only| only != *channel) {
            continue;
        }
        let name = RoleName::new(product.clone(), *channel);
        if !offline.may_sign(&name.to_string())? {
            line(&format!("skipped {name}: no key here may sign it"))?;
            continue;
        }
        let next = offline.next_role(&name)?;
        check(change, &next)?;
        let outcome = offline.sign_role(&name, "policy", |role| {
            let policy = &mut role.policy;
            if let Some(min) = &change.min_release {
                policy.min_release = Some(min.clone());
            }
            policy.eol.retain(|v| !change.not_eol.contains(v));
            for version in &change.eol {
                if !policy.eol.contains(version) {
                    policy.eol.push(version.clone());
                }
            }
            if let Some(notice) = &change.notice {
                policy.notice = Some(notice.clone()).filter(|n| !n.is_empty());
            }
        })?;
        line(&outcome.describe(&name.to_string()))?;
        if let Outcome::Waiting { .. } = outcome {
            line(&format!(
                "  next, by another holder: tidegate release sign {product}"
            ))?;
        }
        changed.push(name.to_string());
    }
    offline.push(api, &changed).await
}

/// Refuses a policy that leaves nothing to install, as a slip of the finger, or that lowers the
/// lowest release.
fn check(change: &PolicyChange, role: &ProductRole) -> Result<(), CliError> {
    let min = change
        .min_release
        .as_ref()
        .or(role.policy.min_release.as_ref());
    let ends = |release: &Version| {
        min.is_some_and(|min| release < min)
            || change.eol.contains(release)
            || (role.policy.eol.contains(release) && !change.not_eol.contains(release))
    };
    if !role.images.is_empty() && role.images.keys().all(|path| ends(&path.release)) {
        return Err(CliError::Hinted(
            format!("this would leave no installable release of {}", role.name),
            "publish their replacement first".into(),
        ));
    }
    if let Some(min) = &change.min_release
        && role
            .policy
            .min_release
            .as_ref()
            .is_some_and(|old| min < old)
    {
        return Err(CliError::Failed(format!(
            "the lowest release of {} is already {}; devices that have seen it accept none below",
            role.name,
            role.policy
                .min_release
                .as_ref()
                .map_or_else(String::new, ToString::to_string)
        )));
    }
    Ok(())
}
