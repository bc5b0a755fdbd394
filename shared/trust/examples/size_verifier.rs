//! `size_floor` with the whole verifier: a refresh from files in a folder and the check of an
//! assignment from standard input. The difference in size is what the verifier adds to an agent.

use std::io::Read as _;
use std::path::Path;

use sha2::Digest as _;
use tidegate_protocol::{DeviceId, Timestamp};
use tidegate_trust::assignment::{self, Clock, Situation};
use tidegate_trust::verify::{Refresh, TrustedFiles};
use tidegate_trust::{Floors, JoinToken, SecretKey, TrustError};

fn main() {
    let mut bytes = Vec::new();
    let _ = std::io::stdin().take(1 << 20).read_to_end(&mut bytes);
    let folder = std::env::args().nth(1).unwrap_or_default();
    let accepted = verify(Path::new(&folder), &bytes).map_err(|e| e.to_string());
    println!("{} {:?}", own(&bytes), accepted.map(|a| a.counter));
}

fn own(bytes: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let text = String::from_utf8_lossy(bytes);
    let key = SecretKey::from_pem(&text).unwrap_or_else(|_| SecretKey::from_seed([1; 32]));
    let signature = key.sign(&sha2::Sha256::digest(bytes));
    text.parse::<JoinToken>().is_ok()
        || value.is_some_and(|v| v.to_string().len() > 7)
        || key.public().verify(bytes, &signature).is_ok()
}

fn verify(folder: &Path, bytes: &[u8]) -> Result<assignment::Accepted, TrustError> {
    let read = |name: &str| std::fs::read(folder.join(name)).ok();
    let first = TrustedFiles {
        root: read("1.root.json").unwrap_or_default(),
        ..TrustedFiles::default()
    };
    let role = "app-stable".parse()?;
    let mut refresh = Refresh::start(first, Floors::default(), role, Timestamp::ZERO)?;
    while let Some(request) = refresh.request() {
        refresh.answer(read(&request.file))?;
    }
    let trusted = refresh.finish()?;
    let platform = "linux-x86_64"
        .parse()
        .map_err(|_| TrustError::Missing("platform".into()))?;
    let situation = Situation {
        device: DeviceId::from_random([0; 16]),
        platform: &platform,
        nonce: "",
        counter: 0,
        kept: None,
        installed: None,
        floor: None,
        clock: Clock {
            shows: Timestamp::ZERO,
            floor: Timestamp::ZERO,
            strict: false,
        },
        agent: None,
        formats: &["tar"],
    };
    assignment::verify(&trusted, bytes, &situation)
}
