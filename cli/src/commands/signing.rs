//! `release sign` and `release policy`: signatures on releases beyond publishing them.

use std::path::PathBuf;

use tidegate_delta::archive::PackOptions;
use tidegate_protocol::{Channel, Platform, ProductName, Version, plain};
use tidegate_trust::{ImageFacts, ImagePath, Policy, ProductRole, RoleName};

use crate::api::Api;
use crate::error::CliError;
use crate::keys::{Access, Offline, Outcome};
use crate::output::{complain, line};

use super::pack::pack_artifact;

/// Adds the signatures of the keys that are here to the product's drafts on the server.
pub(crate) async fn sign(
    api: &Api,
    access: &Access,
    product: &ProductName,
    release: Option<Version>,
    builds: &[OwnBuild],
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
        check_published(&offline, &name, &next)?;
        compare(&offline, &next, release.as_ref(), builds)?;
        super::keys::confirm_text(
            &format!(
                "{}\n  for, as the server says it, unsigned: {}",
                offline.review(&role, &draft)?,
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

/// Images of a role that differ from what is in force.
fn changed<'a>(
    offline: &'a Offline,
    name: &RoleName,
    next: &'a ProductRole,
) -> impl Iterator<Item = (&'a ImagePath, &'a ImageFacts)> {
    let present = offline.repository().role(name);
    let known = move |path, facts| present.is_some_and(|r| r.images.get(path) == Some(facts));
    next.images
        .iter()
        .filter(move |(path, facts)| !known(*path, *facts))
}

/// Refuses a draft with an image that differs from the one published in the alpha channel: the
/// second person signs what the first one published.
fn check_published(offline: &Offline, name: &RoleName, next: &ProductRole) -> Result<(), CliError> {
    let alpha = RoleName::new(name.product.clone(), Channel::Alpha);
    if *name == alpha {
        return Ok(());
    }
    let published = offline.repository().role(&alpha);
    for (path, facts) in changed(offline, name, next) {
        let source = ImagePath {
            role: alpha.clone(),
            ..path.clone()
        };
        if published.is_none_or(|role| role.images.get(&source) != Some(facts)) {
            return Err(CliError::Failed(format!(
                "{path} differs from the image published in {alpha}: refusing to sign it"
            )));
        }
    }
    Ok(())
}

/// The signer's own build of a platform.
#[derive(Debug, Clone)]
pub(crate) struct OwnBuild {
    /// Platform that it is for; `None` if the draft has one alone.
    pub(crate) platform: Option<Platform>,
    /// File or folder, as it would be published.
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for OwnBuild {
    type Err = String;

    /// Reads `PATH` or `PLATFORM=PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let named = text
            .split_once('=')
            .and_then(|(platform, path)| Some((platform.parse().ok()?, path)));
        Ok(match named {
            Some((platform, path)) => Self {
                platform: Some(platform),
                path: path.into(),
            },
            None => Self {
                platform: None,
                path: text.into(),
            },
        })
    }
}

/// Packs the signer's own builds and refuses a draft whose images are others: reproducible builds
/// find out a publisher, or a machine, that has added something.
fn compare(
    offline: &Offline,
    next: &ProductRole,
    release: Option<&Version>,
    builds: &[OwnBuild],
) -> Result<(), CliError> {
    let name = &next.name;
    let new: Vec<(&ImagePath, &ImageFacts)> = changed(offline, name, next)
        .filter(|(path, _)| release.is_none_or(|release| path.release == *release))
        .collect();
    for build in builds {
        let of_build = |path: &ImagePath| match &build.platform {
            Some(platform) => path.platform == *platform,
            None => true,
        };
        let own: Vec<_> = new.iter().filter(|(path, _)| of_build(path)).collect();
        let [(path, facts)] = own[..] else {
            return Err(CliError::Hinted(
                format!(
                    "--compare {}: the draft of {name} has {} new images that it could be",
                    build.path.display(),
                    own.len()
                ),
                "name the release, and the platform with --compare PLATFORM=PATH".into(),
            ));
        };
        // What the publisher let go is not known here. It changes the bytes in one way only.
        let packed = |public| {
            let options = PackOptions {
                public,
                drop_attributes: true,
                owner: None,
            };
            let (_, image, _) = pack_artifact(&build.path, &facts.format, options)?;
            Ok::<_, CliError>(image)
        };
        let mut image = packed(false)?;
        if image != facts.image {
            let public = packed(true)?;
            if public == facts.image {
                line(&format!(
                    "{path}: private files of {} are readable by everybody in it",
                    build.path.display()
                ))?;
                image = public;
            }
        }
        if image != facts.image {
            return Err(CliError::Hinted(
                format!(
                    "{path} is not what {} packs to: {} bytes, sha256 {}; the draft has {} bytes, \
                     sha256 {}",
                    build.path.display(),
                    image.length,
                    image.sha256,
                    facts.image.length,
                    facts.image.sha256
                ),
                "do not sign it before you know why the two builds differ".into(),
            ));
        }
        line(&format!("{path} is what {} packs to", build.path.display()))?;
    }
    Ok(())
}

/// A change to the policy on what devices may install at all.
pub(crate) struct PolicyChange {
    pub(crate) channel: Option<Channel>,
    pub(crate) min_release: Option<Version>,
    pub(crate) eol: Vec<Version>,
    pub(crate) not_eol: Vec<Version>,
    pub(crate) notice: Option<String>,
}

impl PolicyChange {
    fn apply(&self, policy: &mut Policy) {
        if let Some(min) = &self.min_release {
            policy.min_release = Some(min.clone());
        }
        policy.eol.retain(|v| !self.not_eol.contains(v));
        for version in &self.eol {
            if !policy.eol.contains(version) {
                policy.eol.push(version.clone());
            }
        }
        if let Some(notice) = &self.notice {
            policy.notice = Some(notice.clone()).filter(|n| !n.is_empty());
        }
    }
}

/// Shows what a command of one's own would sign, and asks if there is somebody to ask.
pub(crate) fn ask(text: &str, yes: bool) -> Result<(), CliError> {
    use std::io::IsTerminal as _;
    complain(text);
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    super::keys::asked()
}

/// Applies a policy change to the product's roles and signs them.
pub(crate) async fn policy(
    api: &Api,
    access: &Access,
    product: &ProductName,
    change: &PolicyChange,
    yes: bool,
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
        let next = offline.drafted(&name)?;
        check(change, &next)?;
        let change = |role: &mut ProductRole| change.apply(&mut role.policy);
        if let Some(text) = offline.preview(&name, change)? {
            ask(&text, yes)?;
        }
        let outcome = offline.sign_role(&name, "policy", change)?;
        line(&outcome.describe(&name.to_string()))?;
        if let Outcome::Waiting { .. } = outcome {
            line(&format!(
                "  next, by another holder: tidegate release sign {product}"
            ))?;
        }
        changed.push(name.to_string());
    }
    if changed.is_empty() {
        return Err(CliError::Hinted(
            format!(
                "nothing of {product} was changed: no key in {} may sign it",
                access.dir.display()
            ),
            "`tidegate keys show` lists the holders of each role".into(),
        ));
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
