//! Head of a payload, and the memory that applying takes.

use super::dense::Size;
use super::quick::{self, STREAMS};

/// First bytes of a payload.
pub(crate) const MAGIC: &[u8; 4] = b"TGd2";
/// Length of the head in bytes.
pub(crate) const HEAD: usize = 16;
/// Maximum coded length of an element in bytes: the applier must hold it.
pub(crate) const MAX_CODED: u32 = 1 << 20;
/// Maximum length of a layout on the wire in bytes, decompressed.
pub(crate) const MAX_LAYOUT: u32 = 1 << 20;
/// Unit of a layout's memory, in bytes.
pub(crate) const LAYOUT_UNIT: u64 = 64 << 10;
/// Maximum number of bytes that a frame makes.
pub(crate) const MAX_FRAME: u32 = 64 << 20;

/// Coding of the bytes of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// zstd streams.
    Quick,
    /// Context mixing with models of a given size.
    Dense(Size),
}

/// Contents of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) coding: Coding,
    /// Memory of the layout, in units of [`LAYOUT_UNIT`] bytes.
    pub(crate) layout: u8,
    pub(crate) covers: u32,
    pub(crate) frames: u32,
}

impl Head {
    #[cfg(feature = "make")]
    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(MAGIC);
        if let Coding::Dense(size) = self.coding {
            bytes[4] = 1;
            bytes[5] = size.log_buckets as u8;
            bytes[6] = size.log_history as u8;
        }
        bytes[7] = self.layout;
        bytes[8..12].copy_from_slice(&self.covers.to_le_bytes());
        bytes[12..].copy_from_slice(&self.frames.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD] = bytes.try_into().ok()?;
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let size = Size {
            log_buckets: u32::from(bytes[5]),
            log_history: u32::from(bytes[6]),
        };
        let coding = match bytes[4] {
            0 if bytes[5] == 0 && bytes[6] == 0 => Coding::Quick,
            1 if (8..=20).contains(&size.log_buckets) && (16..=24).contains(&size.log_history) => {
                Coding::Dense(size)
            }
            _ => return None,
        };
        (bytes[..4] == *MAGIC).then_some(Self {
            coding,
            layout: bytes[7],
            covers: number(8),
            frames: number(12),
        })
    }

    /// Memory that applying takes in bytes, without the chunk that the caller holds.
    pub(crate) fn memory(self) -> u64 {
        let covers = u64::from(self.covers) * COVER_MEMORY + (1 << 18);
        let coding = match self.coding {
            // Windows and buffers of the streams, learned references.
            Coding::Quick => STREAMS as u64 * ((1 << quick::WINDOW_LOG) + (400 << 10)) + (1 << 20),
            Coding::Dense(size) => size.memory(),
        };
        let layout = u64::from(self.layout) * LAYOUT_UNIT;
        covers + layout + coding + u64::from(MAX_CODED) + (1 << 17)
    }
}

/// Memory of one cover in bytes: the cover itself, and one and a quarter pieces in the map.
const COVER_MEMORY: u64 = 12 + 15;
