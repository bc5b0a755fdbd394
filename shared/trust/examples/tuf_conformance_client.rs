//! A client with the interface of the public TUF conformance suite, on the same verifier as the
//! agent. The suite also signs with ECDSA and RSA, which no repository of ours does: only this
//! example knows them.
//!
//! ```text
//! tuf_conformance_client --metadata-dir D init ROOT
//! tuf_conformance_client --metadata-dir D --metadata-url U refresh
//! tuf_conformance_client --metadata-dir D --metadata-url U --target-name N [...]
//!                        --target-dir T --target-base-url B download
//! ```
//!
//! Exit codes: 0 done, 1 refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::Digest as _;
use sigstore_crypto::{CryptoProvider, Error, HashContext, SigningScheme};
use sigstore_tuf::TrustedMetadataSet;
use sigstore_tuf::metadata::TargetFile;
use tidegate_protocol::Timestamp;
use tidegate_trust::verify::{Refresh, TrustedFiles};
use tidegate_trust::{Floors, MlDsaPublic, PublicKey};

type Failure = Box<dyn std::error::Error>;

fn main() {
    let _ = sigstore_crypto::install_default_provider(&Provider);
    if let Err(error) = run() {
        eprintln!("refused: {error}");
        std::process::exit(1);
    }
}

#[derive(Default)]
struct Options {
    metadata_dir: PathBuf,
    metadata_url: String,
    targets: Vec<String>,
    target_dir: PathBuf,
    target_url: String,
}

fn run() -> Result<(), Failure> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    let mut verb = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--metadata-dir" => options.metadata_dir = value()?.into(),
            "--metadata-url" => options.metadata_url = value()?,
            "--target-name" => options.targets.push(value()?),
            "--target-dir" => options.target_dir = value()?.into(),
            "--target-base-url" => options.target_url = value()?,
            "init" => {
                let root = std::fs::read(value()?)?;
                std::fs::create_dir_all(&options.metadata_dir)?;
                std::fs::write(options.metadata_dir.join("root.json"), root)?;
                return Ok(());
            }
            "refresh" | "download" => verb = Some(argument),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    match verb.as_deref() {
        Some("refresh") => refresh(&options).map(drop),
        Some("download") => download(&options),
        _ => Err("expected a command: init, refresh or download".into()),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::ZERO.plus(since)
}

fn kept(dir: &Path, role: &str) -> Option<Vec<u8>> {
    std::fs::read(dir.join(format!("{}.json", encoded(role)))).ok()
}

fn keep(dir: &Path, role: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::write(dir.join(format!("{}.json", encoded(role))), bytes)
}

/// Encodes a role's name, which may be any text, for file names and addresses.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn refresh(options: &Options) -> Result<TrustedMetadataSet, Failure> {
    let dir = &options.metadata_dir;
    let files = TrustedFiles {
        root: kept(dir, "root").ok_or("no root")?,
        timestamp: kept(dir, "timestamp"),
        snapshot: kept(dir, "snapshot"),
        targets: kept(dir, "targets"),
        role: None,
    };
    let mut refresh = Refresh::top(files, Floors::default(), now())?;
    let result = (|| -> Result<(), Failure> {
        while let Some(wanted) = refresh.request() {
            let url = format!("{}{}", options.metadata_url, wanted.file);
            let bytes = match fetch(&url, wanted.limit)? {
                None if wanted.may_be_absent => None,
                None => return Err(format!("{url} is not there").into()),
                Some(bytes) => Some(bytes),
            };
            refresh.answer(bytes)?;
        }
        Ok(())
    })();
    let files = refresh.files();
    keep(dir, "root", &files.root)?;
    for (role, bytes) in [
        ("timestamp", &files.timestamp),
        ("snapshot", &files.snapshot),
        ("targets", &files.targets),
    ] {
        if let Some(bytes) = bytes {
            keep(dir, role, bytes)?;
        }
    }
    result?;
    Ok(refresh.into_set()?)
}

fn download(options: &Options) -> Result<(), Failure> {
    let mut set = refresh(options)?;
    for name in &options.targets {
        let target = find(options, &mut set, name)?.ok_or(format!("{name} is not listed"))?;
        take(options, name, &target, set.root().consistent_snapshot)?;
    }
    Ok(())
}

/// Looks a target up along the delegations, depth first, as in section 5.6.7 of the specification;
/// at most 32 roles.
fn find(
    options: &Options,
    set: &mut TrustedMetadataSet,
    name: &str,
) -> Result<Option<TargetFile>, Failure> {
    let mut to_visit = vec![("targets".to_owned(), None::<String>)];
    let mut visited = std::collections::BTreeSet::new();
    while let Some((role, delegator)) = to_visit.pop() {
        if visited.len() > 32 || !visited.insert(role.clone()) {
            continue;
        }
        if let Some(delegator) = delegator {
            load(options, set, &role, &delegator)?;
        }
        let targets = set.targets_role(&role).ok_or("the role is not loaded")?;
        if let Some(target) = targets.targets.get(name) {
            return Ok(Some(target.clone()));
        }
        let mut next = Vec::new();
        for child in targets.delegations.iter().flat_map(|d| &d.roles) {
            if child.matches_path(name)? {
                next.push((child.name.clone(), Some(role.clone())));
                if child.terminating {
                    to_visit.clear();
                    break;
                }
            }
        }
        next.reverse();
        to_visit.extend(next);
    }
    Ok(None)
}

fn load(
    options: &Options,
    set: &mut TrustedMetadataSet,
    role: &str,
    delegator: &str,
) -> Result<(), Failure> {
    let now = jiff::Timestamp::from_microsecond(now().as_micros())?;
    if let Some(bytes) = kept(&options.metadata_dir, role)
        && set
            .update_delegated_targets(&bytes, role, delegator, now)
            .is_ok()
    {
        return Ok(());
    }
    let version = set
        .snapshot()
        .and_then(|s| s.meta.get(&format!("{role}.json")))
        .ok_or(format!("the snapshot does not pin {role}"))?
        .version;
    let file = if set.root().consistent_snapshot {
        format!("{version}.{}.json", encoded(role))
    } else {
        format!("{}.json", encoded(role))
    };
    let url = format!("{}{file}", options.metadata_url);
    let bytes = fetch(&url, 5 << 20)?.ok_or(format!("{url} is not there"))?;
    set.update_delegated_targets(&bytes, role, delegator, now)?;
    keep(&options.metadata_dir, role, &bytes)?;
    Ok(())
}

fn take(
    options: &Options,
    name: &str,
    target: &TargetFile,
    consistent: bool,
) -> Result<(), Failure> {
    let local = options.target_dir.join(encoded(name));
    if let Ok(bytes) = std::fs::read(&local)
        && matches(&bytes, target)
    {
        return Ok(());
    }
    let hash = target.hashes.values().next().ok_or("no hash")?;
    let path = match name.rsplit_once('/') {
        Some((dir, file)) if consistent => format!("{dir}/{hash}.{file}"),
        None if consistent => format!("{hash}.{name}"),
        _ => name.to_owned(),
    };
    let limit = usize::try_from(target.length)?;
    let url = format!("{}{path}", options.target_url);
    let bytes = fetch(&url, limit)?.ok_or(format!("{url} is not there"))?;
    if !matches(&bytes, target) {
        return Err(format!("{name} does not match its signed hash").into());
    }
    std::fs::create_dir_all(&options.target_dir)?;
    std::fs::write(local, bytes)?;
    Ok(())
}

fn matches(bytes: &[u8], target: &TargetFile) -> bool {
    let known: BTreeMap<&str, String> = target
        .hashes
        .keys()
        .filter_map(|name| match name.as_str() {
            "sha256" => Some((name.as_str(), hex::encode(sha2::Sha256::digest(bytes)))),
            "sha384" => Some((name.as_str(), hex::encode(sha2::Sha384::digest(bytes)))),
            "sha512" => Some((name.as_str(), hex::encode(sha2::Sha512::digest(bytes)))),
            _ => None,
        })
        .collect();
    bytes.len() as u64 == target.length
        && !known.is_empty()
        && known
            .iter()
            .all(|(name, hash)| target.hashes.get(*name) == Some(hash))
}

/// One GET over plain HTTP/1.0 on loopback; `None` for 403 and 404.
fn fetch(url: &str, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    let rest = url.strip_prefix("http://").ok_or("only http")?;
    let (host, path) = rest.split_once('/').ok_or("no path")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(limit as u64 + (16 << 10))
        .read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or("no HTTP answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = answer.split_off(end + 4);
    match head.split_whitespace().nth(1) {
        Some("200") if body.len() <= limit => Ok(Some(body)),
        Some("200") => Err("the answer is too large".into()),
        Some("403" | "404") => Ok(None),
        other => Err(format!("{url}: status {}", other.unwrap_or("missing")).into()),
    }
}

/// Crypto provider with the agent's algorithms, and the suite's other ones by ring.
#[derive(Debug)]
struct Provider;

struct Context<D>(D);

impl<D: sha2::Digest + Send> HashContext for Context<D> {
    fn update(&mut self, data: &[u8]) {
        sha2::Digest::update(&mut self.0, data);
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

impl CryptoProvider for Provider {
    fn hash(
        &self,
        algorithm: sigstore_types::HashAlgorithm,
    ) -> sigstore_crypto::Result<Box<dyn HashContext>> {
        use sigstore_types::HashAlgorithm as A;
        Ok(match algorithm {
            A::Sha2256 => Box::new(Context(sha2::Sha256::new())),
            A::Sha2384 => Box::new(Context(sha2::Sha384::new())),
            A::Sha2512 => Box::new(Context(sha2::Sha512::new())),
            other => return Err(Error::UnsupportedAlgorithm(format!("{other:?}"))),
        })
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> sigstore_crypto::Result<()> {
        use ring::signature as s;
        let by_ring = |algorithm: &'static dyn s::VerificationAlgorithm| {
            s::UnparsedPublicKey::new(algorithm, key)
                .verify(data, signature)
                .map_err(|e| e.to_string())
        };
        match scheme {
            SigningScheme::Ed25519 => hex::encode(key)
                .parse::<PublicKey>()
                .and_then(|key| key.verify(data, signature))
                .map_err(|e| e.to_string()),
            SigningScheme::MlDsa65 => MlDsaPublic::from_bytes(key)
                .and_then(|key| key.verify(data, signature))
                .map_err(|e| e.to_string()),
            SigningScheme::EcdsaP256Sha256 => by_ring(&s::ECDSA_P256_SHA256_ASN1),
            SigningScheme::EcdsaP384Sha384 => by_ring(&s::ECDSA_P384_SHA384_ASN1),
            SigningScheme::RsaPssSha256 => by_ring(&s::RSA_PSS_2048_8192_SHA256),
            other => Err(format!("{other:?} is not known")),
        }
        .map_err(Error::Verification)
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        _: &[u8],
        _: &[u8],
        _: &[u8],
    ) -> sigstore_crypto::Result<()> {
        Err(Error::UnsupportedAlgorithm(format!("{scheme:?}")))
    }
}
