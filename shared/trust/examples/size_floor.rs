//! What a program with JSON and SHA-256 weighs: the floor for `size_verifier`.
//!
//! `cargo build --profile agent -p tidegate-trust --example size_floor --example size_verifier`

use std::io::Read as _;

use sha2::Digest as _;

fn main() {
    let mut bytes = Vec::new();
    let _ = std::io::stdin().take(1 << 20).read_to_end(&mut bytes);
    let value: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    println!("{value:?} {:?}", sha2::Sha256::digest(&bytes));
}
