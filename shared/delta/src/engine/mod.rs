//! The `quick` and `dense` encodings: one set of streams, two ways to code them.
//!
//! ```text
//! layout   addresses and kinds of references in both images      (layout, layout_wire)
//! covers   which parts of the new image are copies of the old one (covers, control)
//! bytes    frame by frame: what the copies and the references that
//!          they hold do not foretell                             (dense, quick)
//! ```
//!
//! docs/reference/delta-format.md gives the bytes.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "coders work in fixed widths: each narrowing is meant, and checked where it is input"
)]

pub(crate) mod coder;
pub(crate) mod control;
pub(crate) mod covers;
pub(crate) mod dense;
pub(crate) mod head;
pub(crate) mod history;
pub(crate) mod layout;
pub(crate) mod layout_wire;
mod math;
pub(crate) mod model;
pub(crate) mod numbers;
pub(crate) mod opened;
pub(crate) mod payload;
pub(crate) mod predict;
pub(crate) mod quick;
pub(crate) mod refs;
pub(crate) mod sample;
pub(crate) mod window;
