//! Bodies of the fuzz targets, and the seeds that they start from.
//!
//! Each module is one target: `run` takes libFuzzer's bytes and panics when a promise is broken,
//! `seeds` gives inputs that get far, by name. The first byte of an input says what the rest is.

pub mod assignment;
pub mod delta_engine;
pub mod delta_manifest;
pub mod metadata;
pub mod signature_headers;

mod world;

/// A named input that a target starts from.
pub type Seed = (String, Vec<u8>);

/// The seeds of every target, by its name.
pub fn seeds() -> [(&'static str, Vec<Seed>); 5] {
    [
        ("metadata", metadata::seeds()),
        ("assignment", assignment::seeds()),
        ("delta_manifest", delta_manifest::seeds()),
        ("delta_engine", delta_engine::seeds()),
        ("signature_headers", signature_headers::seeds()),
    ]
}
