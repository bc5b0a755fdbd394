//! Resource limits of an applier.

/// Limits that the caller sets before a payload is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest image that may be written, in bytes.
    pub max_image: u64,
    /// Largest chunk that may be held in memory, in bytes.
    pub max_chunk: u32,
    /// Largest zstd window, as a power of two: the decoder's memory is about that plus 2 MiB.
    pub max_window_log: u32,
    /// Maximum number of chunks in a manifest.
    pub max_chunks: usize,
    /// Largest manifest, in bytes of JSON.
    pub max_manifest: usize,
    /// Maximum memory for decoding, in bytes, without the chunk that the caller holds.
    pub max_memory: u64,
    /// Whether only payloads are taken that are the image itself, so that nothing is decoded.
    pub raw_only: bool,
}

impl Limits {
    /// Chunks of full images, in bytes: 10 MiB.
    pub const FULL_CHUNK: u32 = 10 << 20;
    /// Chunks of deltas, in bytes: 1 MiB, so that a cut download loses little.
    pub const DELTA_CHUNK: u32 = 1 << 20;
    /// Window that the makers use, as a power of two: 8 MiB, which leaves room within 16 MiB.
    pub const WINDOW_LOG: u32 = 23;
    /// Memory for decoding a zstd stream with [`Limits::WINDOW_LOG`], in bytes.
    pub const STREAM_MEMORY: u64 = (1 << Self::WINDOW_LOG) + (2 << 20);
    /// Memory of a controller for applying, in bytes: 16 MiB less the delta chunk that the caller
    /// holds.
    pub const MEMORY: u64 = (16 << 20) - Self::DELTA_CHUNK as u64;
}

impl Default for Limits {
    /// Limits of an agent: images up to 16 GiB, chunks up to 10 MiB, a window of 8 MiB.
    fn default() -> Self {
        Self {
            max_image: 16 << 30,
            max_chunk: Self::FULL_CHUNK,
            max_window_log: Self::WINDOW_LOG,
            max_chunks: 20_000,
            max_manifest: 4 << 20,
            max_memory: Self::MEMORY,
            raw_only: false,
        }
    }
}
