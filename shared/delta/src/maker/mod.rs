//! Making `quick` and `dense` payloads.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "images are below 2 GiB here, which is checked first"
)]

mod analyse;
mod build;
mod containers;
mod ext4;
mod firmware;
mod frames;
mod index;
mod mask;
mod matcher;
mod member;
mod open;
mod options;
mod pair;
mod shape;

pub use build::make_delta;
pub use options::DeltaOptions;
