//! Makes a payload from two images: analyses, masks, matches, and codes the frames on all cores.

use std::io::{self, Write};

use super::analyse;
use super::frames::{Job, code_covers, compress};
use super::index::Index;
use super::mask;
use super::matcher::{self, Choice, Choices};
use super::open::{self, Opened};
use super::options::DeltaOptions;
use super::pair::{self, Paired};
use super::shape::Executable;
use crate::engine::covers::{Cover, CoverMap};
use crate::engine::dense::Size;
use crate::engine::head::{Coding, Head, LAYOUT_UNIT, MAX_CODED, MAX_LAYOUT};
use crate::engine::layout_wire;
use crate::engine::opened;
use crate::engine::payload::put_element;
use crate::engine::quick::WINDOW_LOG;
use crate::{
    ChunkWriter, Encoding, FORMAT, Image, Limits, MakeError, Manifest, OPENED_FORMAT, sha256,
};

/// Text: a copy must save more than describing it costs, and words are cheap to spell.
const TEXT: Choice = choice(64, 24, 32);
/// Code with its references masked.
const CODE: Choice = choice(12, 6, 12);
/// The models of `dense` know instructions, so that a copy must save more to be worth describing.
const X86: Choice = choice(16, 8, 12);
const ARM: Choice = choice(13, 7, 12);
/// Large tables make learned instructions cheaper still.
const X86_LARGE: Choice = choice(18, 8, 14);
const ARM_LARGE: Choice = choice(16, 8, 12);

const fn choice(gain: usize, near: usize, shortest: usize) -> Choice {
    Choice {
        gain,
        near,
        shortest,
    }
}

/// Other data, which is expensive to spell.
const PLAIN: Choice = choice(10, 6, 10);

/// Memory in bytes from which on `dense` uses its large tables.
const LARGE: u64 = 130 << 20;
/// Maximum memory for the layout, in bytes: more is better spent on copies.
const MAX_LAYOUT_MEMORY: u64 = 2 << 20;
/// Memory limit of `quick` in bytes, whatever is allowed: it is for devices that have little.
const QUICK: u64 = 7 << 20;

/// Makes a delta and writes it to `out`.
///
/// Fails with [`MakeError::TooLarge`] for images of 2 GiB and more, and with
/// [`MakeError::Cancelled`] when cancelled.
pub fn make_delta(
    old: &[u8],
    new: &[u8],
    out: impl Write,
    options: &DeltaOptions<'_>,
) -> Result<Manifest, MakeError> {
    if old.len() > i32::MAX as usize || new.len() > i32::MAX as usize {
        return Err(MakeError::TooLarge);
    }
    let mut writer = ChunkWriter::new(out, options.chunk.clamp(1, Limits::DELTA_CHUNK));
    let (made, scratch) = match open::open(old, new, options)? {
        None => {
            let found = (analyse::analyse(old), analyse::analyse(new));
            (between([old, new], found, &mut writer, options)?, 0)
        }
        Some(opened) => {
            let lengths = (old.len() as u64, new.len() as u64);
            let scratch = opened.recipe.scratch(lengths.0, lengths.1);
            let made = between_opened(opened, lengths.1, &mut writer, options)?;
            (made, scratch.ok_or(MakeError::TooLarge)?)
        }
    };
    let (mut out, payload, chunks) = writer.finish();
    out.flush()?;
    let image = |bytes: &[u8]| Image {
        sha256: sha256(bytes),
        length: bytes.len() as u64,
    };
    Ok(Manifest {
        format: if scratch > 0 { OPENED_FORMAT } else { FORMAT },
        encoding: options.encoding,
        from: Some(image(old)),
        to: image(new),
        payload,
        window_log: made.window_log,
        memory: made.memory,
        work: made.work,
        scratch,
        chunks,
    })
}

/// Figures of a payload that its manifest states.
struct Made {
    window_log: u32,
    memory: u64,
    work: u64,
}

/// Writes the payload between two opened images; `length` is that of the new one before opening.
fn between_opened(
    opened: Opened,
    length: u64,
    writer: &mut impl Write,
    options: &DeltaOptions<'_>,
) -> Result<Made, MakeError> {
    let Opened { old, new, recipe } = opened;
    let bytes = recipe.to_bytes();
    writer.write_all(opened::MAGIC)?;
    put_element(writer, &compress(&bytes)?, bytes.len() as u32)?;
    let resident = recipe.resident(bytes.len());
    // Reported in bytes of the image itself, whose length people know.
    let long = new.bytes.len().max(1) as u64;
    let scaled = options
        .progress
        .map(|told| move |done: u64| told(done * length / long));
    let inner = DeltaOptions {
        memory: options.memory.saturating_sub(resident),
        progress: scaled.as_ref().map(|told| told as &(dyn Fn(u64) + Sync)),
        ..*options
    };
    let found = (old.executables, new.executables);
    let made = between([&old.bytes, &new.bytes], found, writer, &inner)?;
    Ok(Made {
        memory: resident + made.memory.max(recipe.packing()),
        work: made.work + recipe.work(),
        ..made
    })
}

/// Writes the payload between two images, given the executables found in them.
fn between(
    [old, new]: [&[u8]; 2],
    (before, after): (Vec<Executable>, Vec<Executable>),
    writer: &mut impl Write,
    options: &DeltaOptions<'_>,
) -> Result<Made, MakeError> {
    let mut paired = { pair::pair(&before, &after, old.len() as u32, new.len() as u32) };
    options.stop()?;
    if layout_wire::write(&paired.layout).len() > MAX_LAYOUT as usize
        || paired.layout.memory() > MAX_LAYOUT_MEMORY
    {
        // Describing so many executables takes too much: plain bytes, then.
        paired = Paired::default();
    }
    let layout = paired.layout;
    let (x86, arm) = match options.encoding {
        Encoding::Quick => (CODE, CODE),
        _ if options.memory >= LARGE => (X86_LARGE, ARM_LARGE),
        _ => (X86, ARM),
    };
    let choices = Choices {
        regions: &paired.new_regions,
        text: TEXT,
        x86,
        arm,
        code: CODE,
        plain: PLAIN,
        // Headers of archive members are mostly text.
        between: if paired.archive { TEXT } else { PLAIN },
    };
    let mut covers = {
        let old_masked = mask::masked(old, &paired.old_regions, &layout.records, &layout.old);
        let new_masked = mask::masked(new, &paired.new_regions, &paired.new_records, &layout.new);
        options.stop()?;
        let index = Index::new(&old_masked).ok_or(MakeError::TooLarge)?;
        options.stop()?;
        let threads = options.threads;
        matcher::covers(&index, &new_masked, &choices, threads, options.cancel)
    };
    options.stop()?;
    let units = layout.memory().div_ceil(LAYOUT_UNIT) as u8;
    let head = fit(options, units, &mut covers, old, new)?;
    let coding = head.coding;
    let map = CoverMap::new(&covers, &layout.beyond);
    let job = Job {
        layout: &layout,
        covers: &covers,
        map: &map,
        old,
        new,
        coding,
    };
    let (frames, work) = job.frames(options)?;
    let head = Head {
        frames: frames.len() as u32,
        ..head
    };
    writer.write_all(&head.to_bytes())?;
    job.control(writer)?;
    for frame in &frames {
        put_element(writer, &frame.coded, frame.made)?;
    }
    Ok(Made {
        window_log: match coding {
            Coding::Quick => WINDOW_LOG,
            Coding::Dense(_) => 0,
        },
        memory: head.memory(),
        work,
    })
}

/// Chooses the largest tables that fit into the memory beside the covers. If none do, drops the
/// shortest covers until the rest fits, into the memory and into an element.
fn fit(
    options: &DeltaOptions<'_>,
    layout: u8,
    covers: &mut Vec<Cover>,
    old: &[u8],
    new: &[u8],
) -> io::Result<Head> {
    let (codings, memory): (&[Coding], u64) = match options.encoding {
        Encoding::Quick => (&[Coding::Quick], options.memory.min(QUICK)),
        _ if options.memory >= LARGE => (&[Coding::Dense(Size::LARGE)], options.memory),
        _ if options.memory < Limits::MEMORY => (
            &[Coding::Dense(Size::SMALL), Coding::Dense(Size::TINY)],
            options.memory,
        ),
        _ => (
            &[Coding::Dense(Size::MEDIUM), Coding::Dense(Size::SMALL)],
            options.memory,
        ),
    };
    let mut shortest = 16;
    loop {
        let mut last = None;
        for &coding in codings {
            let head = Head {
                coding,
                layout,
                covers: covers.len() as u32,
                frames: 0,
            };
            let fits = head.memory() <= memory
                && code_covers(coding, covers, old, new)?.0.len() <= MAX_CODED as usize;
            if fits {
                return Ok(head);
            }
            last = Some(head);
        }
        if let (Some(head), true) = (last, covers.is_empty()) {
            return Ok(head);
        }
        covers.retain(|c| c.length > shortest);
        shortest += shortest / 4;
    }
}
