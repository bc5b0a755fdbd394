//! Recipe: the streams of both images that are unpacked.

use crate::engine::head::MAX_FRAME;
use crate::engine::numbers::Reader;

/// Maximum number of bytes that a part unpacks to. The way a compressor works is guessed from the
/// first part: with less than this, the guess is wrong for most executables.
pub(crate) const MAX_PART: u32 = 1 << 20;
/// Memory that the library takes per token, in bytes.
const TOKEN: u64 = 6;
/// Memory of the chains of a replayed compressor and of the library's buffers, in bytes.
const CHAINS: u64 = 1 << 20;
/// Maximum length of a recipe in bytes.
pub(crate) const MAX_RECIPE: u32 = 1 << 20;
/// Maximum number of parts, and of streams.
pub(crate) const MAX_STREAMS: u64 = 1 << 16;
/// A stream of the old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Number of bytes between the stream before and this one.
    pub(crate) gap: u32,
    pub(crate) packed: u32,
    pub(crate) unpacked: u32,
}

/// A part of a stream of the new image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its position and lengths.
    pub(crate) place: Stream,
    /// Whether it continues the stream of the part before.
    pub(crate) continues: bool,
    /// Length of its corrections in bytes.
    pub(crate) corrections: u32,
}

/// Streams of both images that are unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) old: Vec<Stream>,
    pub(crate) new: Vec<Part>,
    pub(crate) corrections: Vec<u8>,
    /// Maximum number of tokens in a part.
    pub(crate) tokens: u32,
}

/// Length of an image with its streams unpacked; `None` if they exceed the image.
fn opened_length(length: u64, streams: impl Iterator<Item = Stream>) -> Option<u64> {
    let (mut at, mut opened) = (0u64, 0u64);
    for stream in streams {
        at += u64::from(stream.gap) + u64::from(stream.packed);
        opened += u64::from(stream.gap) + u64::from(stream.unpacked);
    }
    Some(opened + length.checked_sub(at)?)
}

impl Recipe {
    #[cfg(feature = "make")]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |number: u64| crate::engine::numbers::put(&mut bytes, number);
        put(u64::from(self.tokens));
        put(self.old.len() as u64);
        for stream in &self.old {
            for number in [stream.gap, stream.packed, stream.unpacked] {
                put(u64::from(number));
            }
        }
        put(self.new.len() as u64);
        for part in &self.new {
            let Stream {
                gap,
                packed,
                unpacked,
            } = part.place;
            let continues = u32::from(part.continues);
            for number in [gap, continues, packed, unpacked, part.corrections] {
                put(u64::from(number));
            }
        }
        bytes.extend_from_slice(&self.corrections);
        bytes
    }

    /// Cost of repacking, in bits coded by models, each of which takes about as long as repacking a
    /// byte.
    #[cfg(feature = "make")]
    pub(crate) fn work(&self) -> u64 {
        let parts = self.new.iter();
        parts.map(|part| u64::from(part.place.unpacked)).sum()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut recipe = Self {
            tokens: reader.get32()?,
            ..Self::default()
        };
        for _ in 0..count(&mut reader)? {
            let gap = reader.get32()?;
            recipe.old.push(Stream {
                gap,
                packed: reader.get32()?,
                unpacked: reader.get32()?,
            });
        }
        let mut sum = 0;
        for _ in 0..count(&mut reader)? {
            let gap = reader.get32()?;
            let continues = match reader.get()? {
                0 => false,
                1 if gap == 0 && !recipe.new.is_empty() => true,
                _ => return None,
            };
            let part = Part {
                place: Stream {
                    gap,
                    packed: reader.get32()?,
                    unpacked: reader.get32()?,
                },
                continues,
                corrections: reader.get32()?,
            };
            if part.place.unpacked > MAX_PART || part.place.unpacked == 0 {
                return None;
            }
            sum += u64::from(part.corrections);
            recipe.new.push(part);
        }
        recipe.corrections = reader.rest().to_vec();
        (recipe.corrections.len() as u64 == sum).then_some(recipe)
    }

    /// Memory in bytes that is taken for as long as the payload is applied: the recipe, twice while
    /// it is read, and the packing state of a stream that continues in another part.
    pub(crate) fn resident(&self, length: usize) -> u64 {
        let lists = self.old.len() * size_of::<Stream>() + self.new.len() * size_of::<Part>();
        let goes_on = self.new.iter().any(|part| part.continues);
        let carried = if goes_on {
            self.largest() * 2 + CHAINS
        } else {
            0
        };
        (2 * length + 2 * lists) as u64 + carried
    }

    /// Memory in bytes that packing takes between two frames: one part and what it was copied into,
    /// its tokens, and the chains of the replayed compressor.
    pub(crate) fn packing(&self) -> u64 {
        self.largest() * 3 + u64::from(self.tokens) * TOKEN + CHAINS
    }

    fn largest(&self) -> u64 {
        let unpacked = self.new.iter().map(|part| u64::from(part.place.unpacked));
        unpacked.max().unwrap_or(0)
    }

    /// Size in bytes of the file for the unpacked old image, followed by a frame of the new one.
    pub(crate) fn scratch(&self, old_length: u64, new_length: u64) -> Option<u64> {
        let frame = u64::from(MAX_FRAME) + u64::from(MAX_PART);
        Some(self.old_opened(old_length)? + self.new_opened(new_length)?.min(frame))
    }

    /// Length of the old image with its streams unpacked, given its length as it is.
    pub(crate) fn old_opened(&self, length: u64) -> Option<u64> {
        opened_length(length, self.old.iter().copied())
    }

    pub(super) fn new_opened(&self, length: u64) -> Option<u64> {
        opened_length(length, self.new.iter().map(|part| part.place))
    }
}

fn count(reader: &mut Reader<'_>) -> Option<u64> {
    reader.get().filter(|n| *n <= MAX_STREAMS)
}
