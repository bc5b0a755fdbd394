//! Shapes of executables: the types that analysis fills and everything else reads.

use crate::engine::layout::{Kind, Space};

/// An executable in an image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Executable {
    /// Name by which its counterpart in the other image is found.
    pub(crate) name: String,
    /// Its addresses.
    pub(crate) space: Space,
    /// Memory without bytes: address and length.
    pub(crate) beyond: Vec<(u64, u32)>,
    /// Its parts, sorted.
    pub(crate) parts: Vec<Part>,
}

/// A part of an executable.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Name by which its counterpart is found.
    pub(crate) name: String,
    /// Offset in the image at which it begins.
    pub(crate) start: u32,
    /// Offset at which it ends.
    pub(crate) end: u32,
    /// Form of its references.
    pub(crate) shape: Shape,
}

/// Like [`Kind`], with one image's bases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Any kind but records.
    Simple(Kind),
    /// Stride, and for each field its offset, width and base.
    Records(u8, Vec<(u8, u8, u64)>),
}

/// Finds where the types of BTF (the kernel's description of its types) begin and end in it. Its
/// header is a magic number, version, flags, its length, then offset and length of the types.
pub(crate) fn btf_types(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if bytes.get(..4)? != [0x9F, 0xEB, 1, 0] {
        return None;
    }
    let begin = word(4)?.checked_add(word(8)?)?;
    let end = begin.checked_add(word(12)?)?;
    (end as usize <= bytes.len() && begin < end).then_some((begin, end))
}
