//! The offline side of trust: keys and signed files in a folder that never leaves its owner.
//!
//! ```text
//! tidegate-keys/root.pem targets.pem app-stable.pem ...     private, PKCS#8
//! tidegate-keys/metadata/root.json targets.json app-stable.json ...   as signed last
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tidegate_protocol::{Channel, ProductName, Timestamp};
use tidegate_server::http::dto::{MetadataBody, MetadataFileBody, TrustView};
use tidegate_trust::{
    Delegation, ImageFacts, ImagePath, Policy, ProductRole, PublicKey, Repository, RoleName,
    RootRole, SecretKey, TopTargets, UploadedFile, lifetime, sign, signed_version,
};

use crate::api::Api;
use crate::error::CliError;

/// A folder of keys and signed files.
pub(crate) struct Offline {
    dir: PathBuf,
    repository: Repository,
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Whole seconds: that is what the files can say.
    Timestamp::from_secs(Timestamp::ZERO.plus(since).as_secs())
}

fn trust(error: &tidegate_trust::TrustError) -> CliError {
    CliError::failed("signed metadata", error)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Temporary files are private from the start.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

impl Offline {
    /// Makes the keys of `root` and `targets` and signs both for a server's online keys.
    pub(crate) async fn init(dir: &Path, api: &Api) -> Result<Self, CliError> {
        let server: TrustView = api.get("/api/v1/trust").await?;
        if dir.join("metadata/root.json").exists() {
            let offline = Self::open(dir)?;
            offline
                .push(api, &["root".into(), "targets".into()])
                .await?;
            return Ok(offline);
        }
        if let Some(root) = server.root_sha256 {
            return Err(CliError::Hinted(
                format!("the server trusts a root already (sha256 {})", &root[..12]),
                "use the folder of its keys with --keys; a new root would strand its devices"
                    .into(),
            ));
        }
        fs::create_dir_all(dir.join("metadata"))
            .map_err(|e| CliError::Failed(format!("{}: {e}", dir.display())))?;
        let mut offline = Self {
            dir: dir.to_owned(),
            repository: Repository::default(),
        };
        let online = |role: &str| -> Result<PublicKey, CliError> {
            server
                .online_keys
                .get(role)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| CliError::Failed(format!("the server names no {role} key")))
        };
        let (root_key, targets_key) = (offline.key("root")?, offline.key("targets")?);
        let root = RootRole {
            version: 1,
            expires: now().plus(lifetime::ROOT),
            root: vec![root_key.public()],
            targets: vec![targets_key.public()],
            snapshot: online("snapshot")?,
            timestamp: online("timestamp")?,
        };
        offline.keep("root", root.body(), &root_key)?;
        let targets = TopTargets {
            version: 1,
            issued: now(),
            expires: now().plus(lifetime::TARGETS),
            delegations: vec![Delegation::director(online("director")?)],
        };
        offline.keep("targets", targets.body(), &targets_key)?;
        offline
            .push(api, &["root".into(), "targets".into()])
            .await?;
        Ok(offline)
    }

    /// Opens a folder; its files are verified from the root down.
    pub(crate) fn open(dir: &Path) -> Result<Self, CliError> {
        let mut offline = Self {
            dir: dir.to_owned(),
            repository: Repository::default(),
        };
        if !dir.join("metadata/root.json").exists() {
            return Err(CliError::Hinted(
                format!("{} holds no keys", dir.display()),
                "`tidegate keys init`, or name the folder with --keys".into(),
            ));
        }
        let mut roles = vec!["root".to_owned(), "targets".to_owned()];
        roles.extend(offline.product_roles()?);
        for role in roles {
            if let Some(bytes) = offline.stored(&role)? {
                let file = UploadedFile { role, bytes };
                offline
                    .repository
                    .accept(&file, Timestamp::ZERO)
                    .map_err(|e| trust(&e))?;
            }
        }
        Ok(offline)
    }

    fn product_roles(&self) -> Result<Vec<String>, CliError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir.join("metadata"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(".json")
                && !matches!(stem, "root" | "targets")
            {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn stored(&self, role: &str) -> Result<Option<Vec<u8>>, CliError> {
        match fs::read(self.dir.join("metadata").join(format!("{role}.json"))) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// The key of a role; made when there is none yet.
    fn key(&self, role: &str) -> Result<SecretKey, CliError> {
        let path = self.dir.join(format!("{role}.pem"));
        let bad =
            |e: tidegate_trust::KeyError| CliError::Failed(format!("{}: {e}", path.display()));
        match fs::read_to_string(&path) {
            Ok(pem) => SecretKey::from_pem(&pem).map_err(bad),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let key = SecretKey::from_seed(rand::random());
                write_private(&path, key.to_pem().map_err(bad)?.as_bytes())?;
                Ok(key)
            }
            Err(e) => Err(CliError::Failed(format!("{}: {e}", path.display()))),
        }
    }

    /// The key of a role that must be there.
    fn existing_key(&self, role: &str) -> Result<SecretKey, CliError> {
        if !self.dir.join(format!("{role}.pem")).exists() {
            return Err(CliError::Hinted(
                format!("{} holds no key of role {role}", self.dir.display()),
                "ask the person who has it to do this step".into(),
            ));
        }
        self.key(role)
    }

    /// Signs a file, checks it as the server will, and keeps it.
    fn keep(
        &mut self,
        role: &str,
        body: serde_json::Value,
        key: &SecretKey,
    ) -> Result<(), CliError> {
        let bytes = sign(body, &[key]).map_err(|e| trust(&e))?.to_bytes();
        self.take(role, bytes)
    }

    fn take(&mut self, role: &str, bytes: Vec<u8>) -> Result<(), CliError> {
        let path = self.dir.join("metadata").join(format!("{role}.json"));
        let file = UploadedFile {
            role: role.to_owned(),
            bytes,
        };
        self.repository
            .accept(&file, Timestamp::ZERO)
            .map_err(|e| trust(&e))?;
        write_private(&path, &file.bytes)
    }

    /// Takes over what others have signed since, verified from our root down.
    pub(crate) async fn pull(&mut self, api: &Api) -> Result<(), CliError> {
        let server: TrustView = api.get("/api/v1/trust").await?;
        let mut roles: Vec<(String, u64)> = server.versions.into_iter().collect();
        roles.retain(|(role, _)| !matches!(role.as_str(), "snapshot" | "timestamp" | "director"));
        roles.sort_by_key(|(role, _)| match role.as_str() {
            "root" => 0,
            "targets" => 1,
            _ => 2,
        });
        for (role, newest) in roles {
            let stored = self.stored(&role)?;
            let have = stored.as_deref().and_then(signed_version).unwrap_or(0);
            // Roots are followed one by one, others taken at once.
            let first = if role == "root" { have + 1 } else { newest };
            for version in first..=newest {
                if version > have {
                    let path = format!("/metadata/{version}.{role}.json");
                    if let Some(bytes) = api.get_bytes(&path).await? {
                        self.take(&role, bytes)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands signed files to the server.
    pub(crate) async fn push(&self, api: &Api, roles: &[String]) -> Result<(), CliError> {
        let mut files = Vec::new();
        for role in roles {
            if let Some(bytes) = self.stored(role)? {
                let body = String::from_utf8_lossy(&bytes).into_owned();
                files.push(MetadataFileBody {
                    role: role.clone(),
                    body,
                });
            }
        }
        let _: BTreeMap<String, u64> = api
            .post("/api/v1/trust/metadata", &MetadataBody { files })
            .await?;
        Ok(())
    }

    /// Makes the roles of a product: keys, delegations, empty files. Gives the changed roles;
    /// nothing when they are there.
    pub(crate) fn add_product(&mut self, product: &ProductName) -> Result<Vec<String>, CliError> {
        let (_, bytes) = self
            .repository
            .targets()
            .ok_or_else(|| CliError::Failed("there is no targets.json".into()))?;
        let mut targets = TopTargets::from_bytes(bytes).map_err(|e| trust(&e))?;
        let missing: Vec<RoleName> = Channel::ALL
            .iter()
            .map(|channel| RoleName::new(product.clone(), *channel))
            .filter(|role| !self.repository.delegates(role))
            .collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let targets_key = self.existing_key("targets")?;
        for role in &missing {
            let key = self.key(&role.to_string())?;
            targets
                .delegations
                .push(Delegation::product(role, key.public()));
        }
        targets.version += 1;
        targets.issued = now();
        targets.expires = now().plus(lifetime::TARGETS);
        self.keep("targets", targets.body(), &targets_key)?;
        let mut changed = vec!["targets".to_owned()];
        for role in missing {
            self.sign_role(&role, |_| {})?;
            changed.push(role.to_string());
        }
        Ok(changed)
    }

    /// Signs a product-channel role anew with a change.
    fn sign_role(
        &mut self,
        name: &RoleName,
        change: impl FnOnce(&mut ProductRole),
    ) -> Result<(), CliError> {
        let key = self.existing_key(&name.to_string())?;
        let mut role = self
            .repository
            .role(name)
            .cloned()
            .unwrap_or_else(|| ProductRole {
                name: name.clone(),
                version: 0,
                issued: now(),
                expires: now(),
                policy: Policy::default(),
                images: BTreeMap::new(),
            });
        change(&mut role);
        role.version += 1;
        role.issued = now();
        role.expires = now().plus(lifetime::ROLE);
        self.keep(&name.to_string(), role.body(), &key)
    }

    /// Lists an image in a role; nothing is signed when it is listed so already.
    pub(crate) fn list_image(
        &mut self,
        path: &ImagePath,
        facts: &ImageFacts,
    ) -> Result<bool, CliError> {
        match self.repository.image(path) {
            Some(listed) if listed == facts => return Ok(false),
            Some(listed) if listed.image != facts.image => {
                return Err(CliError::Hinted(
                    format!("{path} is signed already, with other bytes"),
                    "a release never changes: publish it under a new version".into(),
                ));
            }
            _ => {}
        }
        self.sign_role(&path.role, |role| {
            role.images.insert(path.clone(), facts.clone());
        })?;
        Ok(true)
    }

    /// What a role says of a release's images.
    pub(crate) fn images(
        &self,
        role: &RoleName,
        release: &tidegate_protocol::Version,
    ) -> Vec<(ImagePath, ImageFacts)> {
        self.repository
            .role(role)
            .into_iter()
            .flat_map(|r| &r.images)
            .filter(|(path, _)| path.release == *release)
            .map(|(path, facts)| (path.clone(), facts.clone()))
            .collect()
    }

    /// Names, versions and key ids, for people.
    pub(crate) fn describe(&self) -> Result<Vec<[String; 4]>, CliError> {
        let mut roles = vec!["root".to_owned(), "targets".to_owned()];
        roles.extend(self.product_roles()?);
        let mut rows = Vec::new();
        for role in roles {
            let stored = self.stored(&role)?.unwrap_or_default();
            let expires = serde_json::from_slice::<serde_json::Value>(&stored)
                .ok()
                .and_then(|v| v["signed"]["expires"].as_str().map(str::to_owned));
            let has_key = self.dir.join(format!("{role}.pem")).exists();
            let key = if has_key {
                self.key(&role)?.public().key_id()[..16].to_owned()
            } else {
                "-".into()
            };
            let version = signed_version(&stored).unwrap_or(0);
            rows.push([role, version.to_string(), expires.unwrap_or_default(), key]);
        }
        Ok(rows)
    }
}
