//! Changes to signed files: signers of roles, products, images, policies.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_protocol::{Channel, ProductName, Version};
use tidegate_trust::{
    DIRECTOR, Delegation, Holder, ImageFacts, ImagePath, Policy, ProductRole, Quorum, RoleName,
    RootRole, TOP_ROLES, TopTargets, lifetime,
};

use super::base::{Base, is_same};
use super::exchange::OnlineKeys;
use super::{Access, Offline, Outcome, holder, now, trust};
use crate::api::Api;
use crate::error::CliError;
use crate::keys::holder::Profile;

/// Holder of the top roles in a folder of one person.
pub(crate) const OWNER: &str = "owner";
/// Holder of the release roles in a folder of one person.
pub(crate) const RELEASES: &str = "releases";

impl Offline {
    /// Sets up a folder for trying out: one person holds every key, and the server gets the public
    /// halves.
    pub(crate) async fn init(
        access: &Access,
        profile: Profile,
        api: &Api,
    ) -> Result<Self, CliError> {
        let server: tidegate_api::TrustView = api.get("/api/v1/trust").await?;
        let mut offline = Self::open_any(access)?;
        if offline.repository().root().is_none() {
            if let Some(root) = server.root_sha256 {
                return Err(CliError::Hinted(
                    format!(
                        "the server already trusts a root (sha256 {})",
                        crate::output::start(&root)
                    ),
                    "use the folder of its keys with --keys; a new root would strand its devices"
                        .into(),
                ));
            }
            for name in [OWNER, RELEASES] {
                if !holder::is_here(&access.dir, name) {
                    holder::make(&access.dir, name, profile, None, &access.unlock)?;
                }
            }
            let owner = holder::read_public(&holder::public_path(&access.dir, OWNER))?;
            let online = OnlineKeys::ask(api).await?;
            offline.change_root("the first root", |root| {
                root.root = Quorum::one(owner.clone());
                root.targets = Quorum::one(owner.clone());
                set_online(root, &online)
            })?;
            offline.change_targets("the first delegations", |targets| {
                set_director(targets, &online)
            })?;
        }
        offline
            .push(api, &["root".into(), "targets".into()])
            .await?;
        Ok(offline)
    }

    /// Returns the next version of the root, to be changed.
    fn next_root(&self, base: Base) -> Result<RootRole, CliError> {
        let version = self.repository().version("root").saturating_add(1);
        let mut root = match (self.on(base, "root")?, self.repository().bytes("root")) {
            (Some(draft), _) => RootRole::from_bytes(&draft.to_bytes()).map_err(|e| trust(&e))?,
            (None, Some(bytes)) => RootRole::from_bytes(bytes).map_err(|e| trust(&e))?,
            (None, None) => RootRole {
                version,
                issued: now(),
                expires: now(),
                root: Quorum::default(),
                targets: Quorum::default(),
                snapshot: Quorum::default(),
                timestamp: Quorum::default(),
            },
        };
        root.version = version;
        root.issued = now();
        root.expires = now().plus(lifetime::ROOT);
        Ok(root)
    }

    fn next_targets(&self, base: Base) -> Result<TopTargets, CliError> {
        let mut targets = match (
            self.on(base, "targets")?,
            self.repository().bytes("targets"),
        ) {
            (Some(draft), _) => TopTargets::from_bytes(&draft.to_bytes()).map_err(|e| trust(&e))?,
            (None, Some(bytes)) => TopTargets::from_bytes(bytes).map_err(|e| trust(&e))?,
            (None, None) => TopTargets {
                version: 0,
                issued: now(),
                expires: now(),
                delegations: Vec::new(),
            },
        };
        targets.version = self.repository().version("targets").saturating_add(1);
        targets.issued = now();
        targets.expires = now().plus(lifetime::TARGETS);
        Ok(targets)
    }

    /// Changes the root and signs it with the keys that are here.
    fn change_root(
        &mut self,
        purpose: &str,
        change: impl Fn(&mut RootRole) -> Result<(), CliError>,
    ) -> Result<Outcome, CliError> {
        let (mut root, mut own) = (self.next_root(Base::Draft)?, self.next_root(Base::InForce)?);
        change(&mut root)?;
        change(&mut own)?;
        let quorums = |root: &RootRole| TOP_ROLES.map(|role| root.quorum(role).cloned());
        self.seen("root", quorums(&root) == quorums(&own))?;
        root.check_quorums().map_err(|e| trust(&e))?;
        self.propose("root", root.body(), purpose)
    }

    /// Changes the delegations and signs them with the keys that are here.
    fn change_targets(
        &mut self,
        purpose: &str,
        change: impl Fn(&mut TopTargets) -> Result<(), CliError>,
    ) -> Result<Outcome, CliError> {
        let draft = Base::Draft;
        let (mut targets, mut own) = (self.next_targets(draft)?, self.next_targets(Base::InForce)?);
        change(&mut targets)?;
        change(&mut own)?;
        self.seen("targets", targets.delegations == own.delegations)?;
        targets.check().map_err(|e| trust(&e))?;
        self.propose("targets", targets.body(), purpose)
    }

    /// Writes a change to a quorum as an unsigned draft: a ceremony goes step by step, and half-way
    /// through the draft need not be valid yet.
    pub(crate) fn edit_quorum(
        &mut self,
        role: &str,
        change: impl FnOnce(&mut Quorum) -> Result<(), tidegate_trust::TrustError>,
    ) -> Result<&'static str, CliError> {
        if TOP_ROLES.contains(&role) {
            let mut root = self.next_root(Base::Draft)?;
            let quorum = root
                .quorum_mut(role)
                .ok_or_else(|| CliError::Failed(format!("there is no role {role}")))?;
            change(quorum).map_err(|e| trust(&e))?;
            self.lay_down("root", root.body())?;
            return Ok("root");
        }
        let mut targets = self.next_targets(Base::Draft)?;
        if targets.delegation(role).is_none() {
            targets.delegations.push(if role == DIRECTOR {
                Delegation {
                    name: role.to_owned(),
                    quorum: Quorum::default(),
                    paths: vec!["director/*".into()],
                }
            } else {
                let name: RoleName = role.parse().map_err(|_| {
                    CliError::Failed(format!(
                        "{role}: a role is root, targets, snapshot, timestamp, director, or \
                         <product>-<alpha|beta|stable>"
                    ))
                })?;
                Delegation::product(&name, Quorum::default())
            });
        }
        let delegation = targets
            .delegation_mut(role)
            .ok_or_else(|| CliError::Failed(format!("there is no role {role}")))?;
        change(&mut delegation.quorum).map_err(|e| trust(&e))?;
        self.lay_down("targets", targets.body())?;
        Ok("targets")
    }

    /// Puts the server's keys into the drafts of root and targets.
    pub(crate) fn edit_online(&mut self, online: &OnlineKeys) -> Result<(), CliError> {
        let mut root = self.next_root(Base::Draft)?;
        set_online(&mut root, online)?;
        self.lay_down("root", root.body())?;
        let mut targets = self.next_targets(Base::Draft)?;
        set_director(&mut targets, online)?;
        self.lay_down("targets", targets.body())
    }

    fn lay_down(&self, role: &str, body: serde_json::Value) -> Result<(), CliError> {
        let draft = tidegate_trust::Signed::unsigned(body);
        super::write_private(&self.path("drafts", role), &draft.to_bytes())
    }

    /// Returns the body that `renew` would sign.
    pub(crate) fn next_body(&self, role: &str) -> Result<serde_json::Value, CliError> {
        Ok(match role {
            "root" => {
                let root = self.next_root(Base::Draft)?;
                root.check_quorums().map_err(|e| trust(&e))?;
                root.body()
            }
            "targets" => {
                let targets = self.next_targets(Base::Draft)?;
                targets.check().map_err(|e| trust(&e))?;
                targets.body()
            }
            name => {
                let name: RoleName = name.parse().map_err(|e| trust(&e))?;
                let mut next = self.next_role(&name, Base::Draft)?;
                self.date(&mut next);
                next.body()
            }
        })
    }

    /// Signs the body that [`Offline::next_body`] gave and that a person has looked at.
    pub(crate) fn renew(&mut self, role: &str, body: Value) -> Result<Outcome, CliError> {
        let before = self.purpose(role);
        let purpose = if before.is_empty() {
            "renewed".to_owned()
        } else {
            format!("{before}; renewed")
        };
        self.propose(role, body, &purpose)
    }

    /// Creates the roles of a product; returns the changed roles, none if they all exist. In a
    /// folder of one person the releases key signs them all; otherwise their holders must have been
    /// named before.
    pub(crate) fn add_product(&mut self, product: &ProductName) -> Result<Vec<String>, CliError> {
        let missing: Vec<RoleName> = Channel::ALL
            .iter()
            .map(|channel| RoleName::new(product.clone(), *channel))
            .filter(|role| !self.repository().delegates(role))
            .collect();
        let mut changed = Vec::new();
        if !missing.is_empty() {
            let path = holder::public_path(self.dir(), RELEASES);
            if !holder::is_here(self.dir(), RELEASES) {
                return Err(CliError::Hinted(
                    format!("nobody may sign releases of {product} yet"),
                    format!(
                        "for each channel: `tidegate keys add {product}-stable HOLDER.json ...` and \
                         `keys threshold`, then `keys sign` by the holders of targets, `keys push`"
                    ),
                ));
            }
            let releases = holder::read_public(&path)?;
            self.change_targets(&format!("product {product}"), |targets| {
                for role in &missing {
                    let quorum = Quorum::one(releases.clone());
                    targets.delegations.push(Delegation::product(role, quorum));
                }
                Ok(())
            })?;
            changed.push("targets".to_owned());
        }
        for channel in Channel::ALL {
            let role = RoleName::new(product.clone(), *channel);
            if self.repository().role(&role).is_none() && self.draft(&role.to_string())?.is_none() {
                self.sign_role(&role, "an empty role", |_| {})?;
                changed.push(role.to_string());
            }
        }
        Ok(changed)
    }

    /// Signs the next version of a product-channel role with a change, on top of a waiting draft.
    pub(crate) fn sign_role(
        &mut self,
        name: &RoleName,
        purpose: &str,
        change: impl Fn(&mut ProductRole),
    ) -> Result<Outcome, CliError> {
        let (mut role, mut own) = (
            self.next_role(name, Base::Draft)?,
            self.next_role(name, Base::InForce)?,
        );
        change(&mut role);
        change(&mut own);
        self.seen(&name.to_string(), is_same(&role, &own))?;
        let before = self.purpose(&name.to_string());
        self.date(&mut role);
        let purpose = if before.is_empty() {
            purpose.to_owned()
        } else {
            format!("{before}; {purpose}")
        };
        self.propose(&name.to_string(), role.body(), &purpose)
    }

    /// Makes a role the next version, from now on.
    pub(super) fn date(&self, role: &mut ProductRole) {
        role.version = self.version(&role.name.to_string()).saturating_add(1);
        role.issued = now();
        role.expires = now().plus(lifetime::ROLE);
    }

    /// Returns a role as it will be with its draft, if there is one.
    pub(crate) fn drafted(&self, name: &RoleName) -> Result<ProductRole, CliError> {
        self.next_role(name, Base::Draft)
    }

    pub(super) fn next_role(&self, name: &RoleName, base: Base) -> Result<ProductRole, CliError> {
        if let Some(draft) = self.on(base, &name.to_string())? {
            return ProductRole::from_bytes(name, &draft.to_bytes()).map_err(|e| trust(&e));
        }
        if let Some(bytes) = self.stale.get(&name.to_string()) {
            return ProductRole::from_bytes(name, bytes).map_err(|e| trust(&e));
        }
        let present = self.repository().role(name).cloned();
        Ok(present.unwrap_or_else(|| ProductRole {
            name: name.clone(),
            version: 0,
            issued: now(),
            expires: now(),
            policy: Policy::default(),
            images: BTreeMap::new(),
        }))
    }

    /// Lists an image in a role; `None` when it is already listed with the same facts.
    pub(crate) fn list_image(
        &mut self,
        path: &ImagePath,
        facts: &ImageFacts,
    ) -> Result<Option<Outcome>, CliError> {
        let next = self.next_role(&path.role, Base::Draft)?;
        match next.images.get(path) {
            Some(listed) if listed == facts => {
                let role = path.role.to_string();
                let mut own = self.next_role(&path.role, Base::InForce)?;
                own.images.insert(path.clone(), facts.clone());
                self.seen(&role, is_same(&next, &own))?;
                return Ok(match self.draft(&role)? {
                    // It is listed in the draft, which may lack our signature.
                    Some(mut draft) => {
                        self.sign_with_own(&role, &mut draft)?;
                        Some(self.settle(&role, &draft, &self.purpose(&role))?)
                    }
                    None => None,
                });
            }
            Some(listed) if listed.image != facts.image => {
                return Err(CliError::Hinted(
                    format!("{path} is already signed with different bytes"),
                    "a release never changes: publish it under a new version".into(),
                ));
            }
            _ => {}
        }
        let purpose = format!("{} {}", path.release, path.platform);
        self.sign_role(&path.role, &purpose, |role| {
            role.images.insert(path.clone(), facts.clone());
        })
        .map(Some)
    }

    /// Returns the images of a release that a role lists.
    pub(crate) fn images(
        &self,
        role: &RoleName,
        release: &Version,
    ) -> Vec<(ImagePath, ImageFacts)> {
        self.repository()
            .role(role)
            .into_iter()
            .flat_map(|r| &r.images)
            .filter(|(path, _)| path.release == *release)
            .map(|(path, facts)| (path.clone(), facts.clone()))
            .collect()
    }
}

fn set_online(root: &mut RootRole, online: &OnlineKeys) -> Result<(), CliError> {
    for role in ["snapshot", "timestamp"] {
        if let Some(quorum) = root.quorum_mut(role) {
            let name = format!("server-{role}");
            *quorum = Quorum::one(Holder::machine(&name, online.key(role)?));
        }
    }
    Ok(())
}

fn set_director(targets: &mut TopTargets, online: &OnlineKeys) -> Result<(), CliError> {
    let delegation = Delegation::director(online.key(DIRECTOR)?);
    targets.delegations.retain(|d| d.name != DIRECTOR);
    targets.delegations.push(delegation);
    Ok(())
}
