//! Enrollment: joining a fleet.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::archive::PackOptions;
use tidegate_machine::fsm::{Installed, Record, SlotId};
use tidegate_protocol::{
    Channel, Enroll, Enrolled, Format, Image, Platform, ProductName, Region, Speaker, Timestamp,
    Version, paths, plain, said,
};
use tidegate_trust::verify::TrustedFiles;
use tidegate_trust::{CommandLine, ImageFacts, JoinToken, RootRole};

use super::config::{self, Config, ConfigError};
use super::control::ControlSettings;
use super::identity;
use crate::fs::journal::{self, JournalError};
use crate::fs::{self, Fs};
use crate::host::power::{Metered, PowerSettings};
use crate::host::rights::make_dirs;
use crate::install::{self, BackendSettings, SlotError};
use crate::net::TransportError;
use crate::net::client::{Answer, Client};
use crate::net::signed::send_signed;
use crate::net::tls::{self, TlsClock};
use crate::trust::{TrustStore, TrustStoreError};

/// Parameters of an enrollment.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub server: String,
    /// Other addresses of the same control plane.
    pub also: Vec<String>,
    /// Hosts whose mirrors are used beside those on the server's own.
    pub mirror_hosts: Vec<String>,
    pub token: String,
    pub state: PathBuf,
    pub product: ProductName,
    pub platform: Platform,
    pub name: String,
    pub region: Option<Region>,
    pub channel: Option<Channel>,
    pub labels: BTreeMap<String, String>,
    pub adopt: Option<(PathBuf, Version)>,
    /// Losses that adopting the folder may make.
    pub(crate) carry: PackOptions,
    pub ca_file: Option<PathBuf>,
    /// Whether secrets may leave this machine unencrypted.
    pub(crate) plain_http: bool,
    pub health: Option<CommandLine>,
    pub restart: Option<CommandLine>,
    pub(crate) power: PowerSettings,
    pub(crate) metered: Metered,
    pub(crate) clock_trusted: bool,
    pub(crate) health_every_s: u32,
    pub(crate) backend: BackendSettings,
    pub(crate) reboot: Option<CommandLine>,
}

/// Reason why a device could not enroll.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrollError {
    #[error("{0}")]
    Token(#[from] tidegate_trust::JoinTokenError),
    #[error("asking the server failed")]
    Transport(#[from] TransportError),
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    #[error("the installed version cannot be adopted")]
    Slot(#[from] SlotError),
    #[error("the signed files cannot be kept")]
    Trust(#[from] TrustStoreError),
    #[error("the state directory cannot be written")]
    Io(#[from] std::io::Error),
    #[error(
        "the server's root metadata is not the one that the join token pins: this is not the \
         server that made the token, or someone is intercepting the connection"
    )]
    WrongRoot,
    #[error(
        "the server assigns the channel {0}, which was not asked for: leave out --channel to take it"
    )]
    OtherChannel(Channel),
    #[error("the server's root metadata does not verify")]
    Root(#[from] tidegate_trust::TrustError),
    #[error(
        "a machine that boots from images runs one already: name it with --adopt IMAGE-FILE \
         --release VERSION (the file that was written to the slot in use)"
    )]
    NothingRuns,
    #[error(
        "{0} is the agent's own folder {1}, or holds it or lies in it: what is adopted must lie beside it"
    )]
    OwnFolder(PathBuf, PathBuf),
    #[error("--ca-file")]
    Authority(#[source] TransportError),
    #[error("{0} is already enrolled as {1}; use another --state, or remove it")]
    Enrolled(PathBuf, String),
}

/// Enrolls this device. Interrupted at any step, it can be run again: the key is kept, the server
/// recognizes it, and the token is used up only once.
pub(crate) async fn enroll(request: Request) -> Result<String, EnrollError> {
    let token: JoinToken = request.token.parse()?;
    make_dirs(&request.state)?;
    // Before anything is in it: files inherit it when they are made.
    #[cfg(target_os = "linux")]
    crate::host::platform::overwrite_in_place(&request.state);
    let _lock = config::lock(&request.state)?;
    // An enrollment that was killed may have left a hook that installs.
    #[cfg(target_os = "linux")]
    crate::host::orphans::end(&request.state);
    if let Ok(known) = Config::load(&request.state) {
        return Err(EnrollError::Enrolled(
            request.state,
            known.device.to_string(),
        ));
    }
    // No signed time is known yet.
    let clock = TlsClock {
        floor: Timestamp::ZERO,
        trusted: request.clock_trusted,
    };
    // Before anything is made or sent: one that is not usable is refused at once.
    let mut clients = std::iter::once(&request.server)
        .chain(&request.also)
        .map(|server| {
            Client::new(
                server,
                request.ca_file.as_deref(),
                request.plain_http,
                clock,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(file) = &request.ca_file {
        tls::check_authority(file).map_err(EnrollError::Authority)?;
    }
    if let Some((from, _)) = &request.adopt
        && is_own(from, &request.state)
    {
        return Err(EnrollError::OwnFolder(from.clone(), request.state));
    }
    let fs = fs::system();
    let key = identity::new_identity(&*fs, &request.state)?;
    let adopted = adopt(&fs, &request)?;
    let body = Enroll {
        format: Format::CURRENT,
        token: token.to_string(),
        public_key: key.public().to_string(),
        name: request.name.clone(),
        product: request.product.clone(),
        platform: request.platform.clone(),
        region: request.region.clone(),
        channel: request.channel,
        labels: request.labels.clone(),
        release: request.adopt.as_ref().map(|(_, version)| version.clone()),
        image: adopted.map(|image| image.sha256),
    };
    let body = serde_json::to_vec(&body).map_err(|e| TransportError::Malformed(e.to_string()))?;
    let mut answer = None;
    for client in &mut clients {
        let sent = send_signed(client, &key, paths::ENROLL, body.clone()).await;
        let reached = sent.is_ok();
        answer = Some(sent.and_then(Answer::ok));
        if reached {
            break;
        }
    }
    let answer = answer.unwrap_or(Err(TransportError::Timeout))?;
    let enrolled: Enrolled =
        serde_json::from_slice(&answer).map_err(|e| TransportError::Malformed(e.to_string()))?;
    // Another channel is signed by others, of whom fewer may be needed.
    if request
        .channel
        .is_some_and(|asked| asked != enrolled.channel)
    {
        return Err(EnrollError::OtherChannel(enrolled.channel));
    }
    let files = pinned_root(enrolled.root.clone(), &token)?;
    TrustStore::open(fs.clone(), &request.state)?.save(&TrustedFiles::default(), &files)?;
    // No metadata was seen yet: the floors in the token stand in for it.
    let mut journal = journal::open(fs.clone(), &request.state)?;
    let mut record = journal.draft();
    record.floors = token.backstop.floors(enrolled.channel);
    // People vouched for this time by signing the root.
    let issued = RootRole::from_bytes(&files.root).map(|root| root.issued);
    record.time_floor = record.time_floor.max(issued.unwrap_or(Timestamp::ZERO));
    journal.write(record)?;
    let config = Config {
        server: request.server,
        device: enrolled.device,
        name: request.name,
        product: request.product,
        platform: request.platform,
        channel: enrolled.channel,
        also: request.also,
        mirror_hosts: request.mirror_hosts,
        ca_file: request.ca_file,
        plain_http: request.plain_http,
        health: request.health,
        restart: request.restart,
        power: request.power,
        metered: request.metered,
        clock_trusted: request.clock_trusted,
        health_every_s: request.health_every_s,
        backend: request.backend,
        reboot: request.reboot,
        control: ControlSettings::default(),
        decoder: None,
        decode: true,
        parallel: 2,
        limits: Vec::new(),
        download_deadline_s: 172_800,
    };
    // Written last: with it the device is enrolled.
    config.save(&*fs, &request.state)?;
    let mut text = format!("enrolled as {} ({})\n", config.device, plain(&config.name));
    if enrolled.awaiting {
        text += &format!(
            "it waits for a person to accept it: tidegate device accept {} --key {} --reason ...\n",
            config.device,
            key.public().fingerprint()
        );
    }
    if let Some(why) = &enrolled.no_way_back {
        text += &format!(
            "after the rollback window of its next update it cannot be ordered back to what it runs now\n{}\n",
            said(Speaker::Server, &why.to_string())
        );
    }
    Ok(text)
}

/// Fingerprint of this device's key, for a token that names it. The key is made if there is none.
pub(crate) fn fingerprint(state: &Path) -> Result<String, EnrollError> {
    make_dirs(state)?;
    let key = identity::new_identity(&*fs::system(), state)?;
    Ok(format!("{}\n", key.public().fingerprint()))
}

/// Fetches the root of trust that a join token pins, for a device that has lost its own. The
/// version floors stay in the journal; the token is not used up.
pub(crate) async fn recover(state: &Path, token: &str) -> Result<String, EnrollError> {
    let token: JoinToken = token.parse()?;
    let config = Config::load(state)?;
    let _lock = config::lock(state)?;
    let fs = fs::system();
    let store = TrustStore::open(fs.clone(), state)?;
    if store.load().is_ok() {
        return Ok("the root of trust is intact; nothing was changed\n".into());
    }
    let key = identity::identity(state)?;
    let clock = TlsClock {
        floor: journal::open_enrolled(fs, state)?.record().time_floor,
        trusted: config.clock_trusted,
    };
    let mut client = Client::new(
        &config.server,
        config.ca_file.as_deref(),
        config.plain_http,
        clock,
    )?;
    let body = Enroll {
        format: Format::CURRENT,
        token: token.to_string(),
        public_key: key.public().to_string(),
        name: config.name,
        product: config.product,
        platform: config.platform,
        region: None,
        channel: None,
        labels: BTreeMap::new(),
        release: None,
        image: None,
    };
    let body = serde_json::to_vec(&body).map_err(|e| TransportError::Malformed(e.to_string()))?;
    let answer = send_signed(&mut client, &key, paths::ENROLL, body)
        .await?
        .ok()?;
    let enrolled: Enrolled =
        serde_json::from_slice(&answer).map_err(|e| TransportError::Malformed(e.to_string()))?;
    let root = pinned_root(enrolled.root, &token)?;
    store.save(&TrustedFiles::default(), &root)?;
    Ok("the root of trust is restored; start the agent\n".into())
}

/// Checks the root against the token's pin: nothing else from the server is trusted before.
fn pinned_root(root: String, token: &JoinToken) -> Result<TrustedFiles, EnrollError> {
    let root = root.into_bytes();
    if tidegate_delta::sha256(&root) != token.root {
        return Err(EnrollError::WrongRoot);
    }
    RootRole::check(&root)?;
    Ok(TrustedFiles {
        root,
        ..TrustedFiles::default()
    })
}

/// Whether what is to be adopted is the agent's folder, holds it or lies in it, by whatever name.
fn is_own(from: &Path, state: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (from, state) = (real(from), real(state));
    from.starts_with(&state) || state.starts_with(&from)
}

fn adopt(fs: &Arc<dyn Fs>, request: &Request) -> Result<Option<Image>, EnrollError> {
    let backend = install::open(fs.clone(), &request.state, &request.backend)?;
    let mut journal = journal::open(fs.clone(), &request.state)?;
    let Some((from, release)) = &request.adopt else {
        if matches!(request.backend, BackendSettings::Image { .. }) {
            return Err(EnrollError::NothingRuns);
        }
        if journal.record().running().is_none() {
            journal.write(Record::new())?;
        }
        return Ok(None);
    };
    // The medium says which slot runs; if it cannot, it is the first one.
    let slot = backend.medium()?.active.unwrap_or(SlotId::A);
    let image = backend.adopt(slot, from, request.carry)?;
    let format = match request.backend {
        BackendSettings::Directory | BackendSettings::Agent => ImageFacts::TAR,
        _ => ImageFacts::RAW,
    };
    let installed = Installed {
        release: release.clone(),
        image,
        format: format.into(),
        health: None,
    };
    let mut record = Record {
        active: Some(slot),
        ..Record::new()
    };
    record.set_slot(slot, Some(installed));
    journal.write(record)?;
    // Nothing to wait for: the version runs already.
    backend.activate(Some(slot))?;
    Ok(Some(image))
}
