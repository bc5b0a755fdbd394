//! Opens images: finds streams packed by zip and gzip, unpacks them, and keeps what is needed to
//! pack them to the same bytes again.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::DeflateDecoder;
use preflate_rs::{PreflateConfig, PreflateStreamProcessor};

use super::analyse::analyse;
use super::options::DeltaOptions;
use super::shape::{Executable, Part as Section};
use crate::engine::opened::recipe::{MAX_PART, MAX_RECIPE, MAX_STREAMS, Part, Recipe, Stream};
use crate::{MakeError, sha256};
use tidegate_protocol::Sha256;

/// Two images with their streams unpacked.
pub(super) struct Opened {
    pub(super) old: Image,
    pub(super) new: Image,
    pub(super) recipe: Recipe,
}

/// An image with its streams unpacked, and the executables in it.
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    pub(super) executables: Vec<Executable>,
}

/// Minimum length of a stream in bytes: a shorter one is not worth a line in the recipe.
const SHORTEST: usize = 64;
/// Maximum share of corrections in a stream: one part in this many. A stream with more was made by
/// an unknown compressor and stays packed.
const CORRECTIONS: usize = 8;
/// Maximum chain length of a replayed compressor: more makes applying slow.
const MAX_CHAIN: u32 = 4096;
/// Maximum size of an opened image in bytes, whatever is allowed.
const MAX_OPENED: usize = i32::MAX as usize;

/// Opens both images. Returns `None` if the new one has no packed stream that the old one lacks, if
/// none can be repacked, or if the result is too large: then the images are compared as they are.
pub(super) fn open(
    old: &[u8],
    new: &[u8],
    options: &DeltaOptions<'_>,
) -> Result<Option<Opened>, MakeError> {
    let (mut before, mut after) = (streams(old, options)?, streams(new, options)?);
    // Streams that are packed alike in both are copied as they are.
    let digests = |image: &[u8], found: &[Found]| -> Vec<_> {
        found.iter().map(|f| sha256(f.packed(image))).collect()
    };
    let (in_old, in_new) = (digests(old, &before), digests(new, &after));
    before = without(before, &in_old, &in_new);
    after = without(after, &in_new, &in_old);
    if after.is_empty() {
        return Ok(None);
    }
    // Checked before anything is unpacked into memory.
    let most = allowed(options);
    let large = |image: &[u8], found: &[Found]| {
        image.len() + found.iter().map(|f| f.unpacked).sum::<usize>() > most
    };
    if large(old, &before) || large(new, &after) {
        return Ok(None);
    }
    // The same rule on both sides: a stream that cannot be packed again is compared packed.
    let before = opened(old, &before, options)?;
    let after = opened(new, &after, options)?;
    if after.is_empty() {
        return Ok(None);
    }
    let recipe = recipe(&before, &after);
    if recipe.old.len() as u64 > MAX_STREAMS
        || recipe.new.len() as u64 > MAX_STREAMS
        || recipe.to_bytes().len() > MAX_RECIPE as usize
    {
        return Ok(None);
    }
    Ok(Some(Opened {
        old: replaced(old, &before),
        new: replaced(new, &after),
        recipe,
    }))
}

/// Returns the streams whose digests, `own`, the other image does not have.
fn without(found: Vec<Found>, own: &[Sha256], others: &[Sha256]) -> Vec<Found> {
    let others: HashSet<_> = others.iter().collect();
    let apart = found.into_iter().zip(own);
    apart
        .filter(|(_, digest)| !others.contains(digest))
        .map(|(found, _)| found)
        .collect()
}

/// A stream in an image.
#[derive(Debug, Clone, Copy)]
struct Found {
    at: usize,
    packed: usize,
    unpacked: usize,
}

impl Found {
    fn packed(self, image: &[u8]) -> &[u8] {
        &image[self.at..self.end()]
    }

    fn end(self) -> usize {
        self.at + self.packed
    }
}

/// An unpacked stream, and how to repack it: for each part its unpacked length, its packed length,
/// and its corrections.
struct Unpacked {
    found: Found,
    plain: Vec<u8>,
    parts: Vec<(u32, u32, Vec<u8>)>,
    /// Maximum number of tokens in a part.
    tokens: u32,
}

/// Returns where the packed bytes begin, if a header of a zip member or of a gzip file begins at
/// `at`.
fn head(image: &[u8], at: usize) -> Option<usize> {
    let bytes = image.get(at..)?;
    let half = |i: usize| {
        Some(usize::from(u16::from_le_bytes([
            *bytes.get(i)?,
            *bytes.get(i + 1)?,
        ])))
    };
    if bytes.starts_with(b"PK\x03\x04") {
        // Deflated, and not encrypted.
        let (flags, method) = (half(6)?, half(8)?);
        return (flags & 1 == 0 && method == 8).then_some(at + 30 + half(26)? + half(28)?);
    }
    if !bytes.starts_with(b"\x1f\x8b\x08") {
        return None;
    }
    let flags = *bytes.get(3)?;
    let mut skip = 10;
    if flags & 0xE0 != 0 {
        return None;
    }
    if flags & 4 != 0 {
        skip += 2 + half(skip)?;
    }
    // A name and a comment, each ending with a zero byte.
    for flag in [8, 16] {
        if flags & flag != 0 {
            skip += 1 + bytes.get(skip..)?.iter().take(4096).position(|b| *b == 0)?;
        }
    }
    if flags & 2 != 0 {
        skip += 2;
    }
    Some(at + skip)
}

/// Finds streams that unpack to their end. All bytes unpacked for that count, those of false finds
/// too: beyond what is allowed, the search stops.
fn streams(image: &[u8], options: &DeltaOptions<'_>) -> Result<Vec<Found>, MakeError> {
    let mut found = Vec::new();
    let (mut at, mut left) = (0, allowed(options) as u64);
    let begins = |rest: &[u8]| rest.iter().position(|b| matches!(b, b'P' | 0x1F));
    while let Some(step) = image.get(at..).and_then(begins) {
        at += step;
        let Some(packed) = head(image, at).and_then(|begin| Some((begin, image.get(begin..)?)))
        else {
            at += 1;
            continue;
        };
        options.stop()?;
        let (begin, packed) = packed;
        let mut decoder = DeflateDecoder::new(packed);
        let whole = io::copy(&mut decoder.by_ref().take(left), &mut io::sink()).is_ok();
        let (packed, unpacked) = (decoder.total_in(), decoder.total_out());
        left = left.saturating_sub(unpacked);
        if left == 0 {
            break;
        }
        // A stream that unpacks to nothing does not count.
        if whole && unpacked > 0 {
            let stream = Found {
                at: begin,
                packed: packed as usize,
                unpacked: unpacked as usize,
            };
            at = stream.end();
            if stream.packed >= SHORTEST {
                found.push(stream);
            }
        } else {
            at += 1;
        }
    }
    Ok(found)
}

/// Maximum size of an opened image in bytes.
fn allowed(options: &DeltaOptions<'_>) -> usize {
    usize::try_from(options.unpacked)
        .unwrap_or(MAX_OPENED)
        .min(MAX_OPENED)
}

/// Unpacks streams on several threads, and leaves out those that cannot be repacked.
fn opened(
    image: &[u8],
    found: &[Found],
    options: &DeltaOptions<'_>,
) -> Result<Vec<Unpacked>, MakeError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Unpacked>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, found.len().max(1)) {
            scope.spawn(|| {
                while let Some(found) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if options.stop().is_err() {
                        return;
                    }
                    let made = unpack(image, *found);
                    if let (Some(made), Ok(mut done)) = (made, done.lock()) {
                        done.push(made);
                    }
                }
            });
        }
    });
    options.stop()?;
    let mut done = done.into_inner().map_err(|_| MakeError::Cancelled)?;
    done.sort_by_key(|stream| stream.found.at);
    Ok(done)
}

/// Unpacks one stream part by part, as it will be repacked. A stream of an upload that the library
/// cannot handle, for whatever reason, stays packed.
fn unpack(image: &[u8], found: Found) -> Option<Unpacked> {
    catch_unwind(AssertUnwindSafe(|| {
        let config = PreflateConfig {
            max_chain_length: MAX_CHAIN,
            plain_text_limit: MAX_PART as usize,
            verify_compression: true,
        };
        let mut processor = PreflateStreamProcessor::new(&config);
        let (mut plain, mut parts) = (Vec::with_capacity(found.unpacked), Vec::new());
        let (mut rest, mut spent) = (found.packed(image), 0);
        let (mut tokens, mut block) = (0, 0);
        while !processor.is_done() {
            let made = processor.decompress(rest).ok()?;
            let text = processor.plain_text().text();
            let fits = text.len() <= MAX_PART as usize && made.compressed_size > 0;
            if !fits || text.is_empty() {
                return None;
            }
            plain.extend_from_slice(text);
            let lengths = (text.len() as u32, made.compressed_size as u32);
            rest = rest.get(made.compressed_size..)?;
            spent += made.corrections.len();
            // Only the first part describes the compressor.
            let told = made.parameters.map(|p| u32::from(p.max_token_count));
            block = told.unwrap_or(block);
            tokens = tokens.max((made.blocks.len() as u32 * block).min(lengths.0));
            parts.push((lengths.0, lengths.1, made.corrections));
            processor.shrink_to_dictionary();
        }
        let whole = plain.len() == found.unpacked && rest.is_empty();
        (whole && spent <= found.packed / CORRECTIONS + 64).then_some(Unpacked {
            found,
            plain,
            parts,
            tokens,
        })
    }))
    .ok()
    .flatten()
}

fn recipe(before: &[Unpacked], after: &[Unpacked]) -> Recipe {
    let mut recipe = Recipe::default();
    let mut end = 0;
    for stream in before {
        let found = stream.found;
        recipe.old.push(Stream {
            gap: (found.at - end) as u32,
            packed: found.packed as u32,
            unpacked: found.unpacked as u32,
        });
        end = found.end();
    }
    end = 0;
    for stream in after {
        let mut gap = (stream.found.at - end) as u32;
        end = stream.found.end();
        recipe.tokens = recipe.tokens.max(stream.tokens);
        for (index, (unpacked, packed, corrections)) in stream.parts.iter().enumerate() {
            let place = Stream {
                gap: std::mem::take(&mut gap),
                packed: *packed,
                unpacked: *unpacked,
            };
            recipe.new.push(Part {
                place,
                continues: index > 0,
                corrections: corrections.len() as u32,
            });
            recipe.corrections.extend_from_slice(corrections);
        }
    }
    recipe
}

/// Returns the image with the streams unpacked in place.
fn replaced(image: &[u8], streams: &[Unpacked]) -> Image {
    let mut bytes = Vec::new();
    let mut inside = Vec::new();
    let mut end = 0;
    for stream in streams {
        bytes.extend_from_slice(&image[end..stream.found.at]);
        let start = bytes.len() as u32;
        for mut executable in analyse(&stream.plain) {
            moved(&mut executable, |at| at + start);
            inside.push(executable);
        }
        bytes.extend_from_slice(&stream.plain);
        end = stream.found.end();
    }
    bytes.extend_from_slice(&image[end..]);
    // Executables beside the streams are found in the image as it was: an archive is no longer one
    // when its members have other lengths.
    let mut executables = analyse(image);
    executables.retain(|executable| !executable.parts.iter().any(|p| overlap(streams, p)));
    let mut shift = 0;
    let shifts: Vec<i64> = std::iter::once(0)
        .chain(streams.iter().map(|s| {
            shift += s.found.unpacked as i64 - s.found.packed as i64;
            shift
        }))
        .collect();
    for executable in &mut executables {
        moved(executable, |at| {
            let before = streams.partition_point(|s| s.found.end() <= at as usize);
            (i64::from(at) + shifts[before]) as u32
        });
    }
    executables.extend(inside);
    executables.sort_by_key(|executable| executable.space.start);
    // Spaces must not overlap.
    let mut end = 0;
    executables.retain(|executable| {
        let apart = executable.space.start >= end;
        if apart {
            end = executable.space.end;
        }
        apart
    });
    Image { bytes, executables }
}

fn overlap(streams: &[Unpacked], part: &Section) -> bool {
    let behind = streams.partition_point(|s| s.found.end() <= part.start as usize);
    let next = streams.get(behind);
    next.is_some_and(|stream| stream.found.at < part.end as usize)
}

fn moved(executable: &mut Executable, to: impl Fn(u32) -> u32) {
    let space = &mut executable.space;
    (space.start, space.end) = (to(space.start), to(space.end));
    for segment in &mut space.segments {
        segment.offset = to(segment.offset);
    }
    for part in &mut executable.parts {
        (part.start, part.end) = (to(part.start), to(part.end));
    }
}
