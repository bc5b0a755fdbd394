//! Size baseline for `size_verifier`: what an agent without a verifier would use of the same
//! crates, namely JSON, SHA-256, and the device's own key.
//!
//! `cargo build --profile agent -p tidegate-trust --example size_floor --example size_verifier`

use std::io::Read as _;

use sha2::Digest as _;
use tidegate_trust::{JoinToken, SecretKey};

fn main() {
    let mut bytes = Vec::new();
    let _ = std::io::stdin().take(1 << 20).read_to_end(&mut bytes);
    println!("{}", own(&bytes));
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
