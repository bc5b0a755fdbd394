//! Wire form of the layout: LEB128 numbers, offsets as distances from the one before.

use super::covers::Cover;
use super::layout::{Field, Kind, Layout, Record, Region, Segment, Space};
use super::numbers::Reader;
#[cfg(feature = "make")]
use super::numbers::put;

/// Maximum number of segments in a space: the applier searches them for each reference.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Maximum number of fields in a record.
const MAX_FIELDS: u64 = 16;

/// Writes a layout.
#[cfg(feature = "make")]
pub(crate) fn write(layout: &Layout) -> Vec<u8> {
    let mut out = Vec::new();
    for spaces in [&layout.old, &layout.new] {
        put(&mut out, spaces.len() as u64);
        let mut end = 0;
        for space in spaces {
            put(&mut out, u64::from(space.start - end));
            put(&mut out, u64::from(space.end - space.start));
            end = space.end;
            put(&mut out, space.segments.len() as u64);
            for segment in &space.segments {
                put(&mut out, u64::from(segment.offset));
                put(&mut out, u64::from(segment.length));
                put(&mut out, segment.address);
            }
        }
    }
    put(&mut out, layout.records.len() as u64);
    for record in &layout.records {
        put(&mut out, u64::from(record.stride));
        put(&mut out, record.fields.len() as u64);
        for field in &record.fields {
            put(&mut out, u64::from(field.at));
            put(&mut out, u64::from(field.width));
            put(&mut out, field.old_base);
            put(&mut out, field.new_base);
        }
    }
    put(&mut out, u64::from(layout.text));
    put(&mut out, layout.regions.len() as u64);
    let mut end = 0;
    for region in &layout.regions {
        put(&mut out, u64::from(region.start - end));
        put(&mut out, u64::from(region.end - region.start));
        end = region.end;
        put(&mut out, kind_code(region.kind));
    }
    put(&mut out, layout.beyond.len() as u64);
    for cover in &layout.beyond {
        put(&mut out, u64::from(cover.old));
        put(&mut out, u64::from(cover.new));
        put(&mut out, u64::from(cover.length));
    }
    out
}

#[cfg(feature = "make")]
fn kind_code(kind: Kind) -> u64 {
    match kind {
        Kind::Plain => 0,
        Kind::Text => 1,
        Kind::X86 => 2,
        Kind::Arm64 => 3,
        Kind::Thumb => 4,
        Kind::Arm => 5,
        Kind::Words32 => 6,
        Kind::Words64 => 7,
        Kind::Relative32 => 8,
        Kind::Numbers32 => 9,
        Kind::Records(index) => 16 + u64::from(index),
    }
}

fn kind(code: u64, records: usize) -> Option<Kind> {
    Some(match code {
        0 => Kind::Plain,
        1 => Kind::Text,
        2 => Kind::X86,
        3 => Kind::Arm64,
        4 => Kind::Thumb,
        5 => Kind::Arm,
        6 => Kind::Words32,
        7 => Kind::Words64,
        8 => Kind::Relative32,
        9 => Kind::Numbers32,
        16.. => {
            let index = u16::try_from(code - 16).ok()?;
            if usize::from(index) >= records {
                return None;
            }
            Kind::Records(index)
        }
        _ => return None,
    })
}

/// Reads a layout. Returns `None` if it contradicts itself, or has more parts than `budget` bytes
/// of memory can hold: counts are not believed before.
pub(crate) fn read(bytes: &[u8], budget: u64) -> Option<Layout> {
    let mut reader = Reader::new(bytes);
    let most = |size: usize| budget / size as u64;
    let old = spaces(&mut reader, budget)?;
    let new = spaces(&mut reader, budget)?;
    let mut records = Vec::new();
    for _ in 0..limited(reader.get()?, most(size_of::<Record>()))? {
        records.push(record(&mut reader)?);
    }
    let text = match reader.get()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut regions = Vec::new();
    let mut end = 0u32;
    for _ in 0..limited(reader.get()?, most(size_of::<Region>()))? {
        let start = end.checked_add(reader.get32()?)?;
        end = start.checked_add(reader.get32()?)?;
        let kind = kind(reader.get()?, records.len())?;
        if start == end {
            return None;
        }
        regions.push(Region { start, end, kind });
    }
    let mut beyond = Vec::new();
    for _ in 0..limited(reader.get()?, most(size_of::<Cover>()))? {
        let cover = Cover {
            old: reader.get32()?,
            new: reader.get32()?,
            length: reader.get32()?,
        };
        cover.old.checked_add(cover.length)?;
        cover.new.checked_add(cover.length)?;
        beyond.push(cover);
    }
    reader.is_empty().then_some(Layout {
        old,
        new,
        regions,
        text,
        records,
        beyond,
    })
}

fn limited(count: u64, most: u64) -> Option<u64> {
    (count <= most).then_some(count)
}

fn spaces(reader: &mut Reader<'_>, budget: u64) -> Option<Vec<Space>> {
    let mut spaces = Vec::new();
    let mut end = 0u32;
    let mut left = budget;
    for _ in 0..reader.get()? {
        let start = end.checked_add(reader.get32()?)?;
        end = start.checked_add(reader.get32()?)?;
        let count = reader.get()?;
        if count > MAX_SEGMENTS as u64 {
            return None;
        }
        let bytes = size_of::<Space>() as u64 + count * size_of::<Segment>() as u64;
        left = left.checked_sub(bytes)?;
        // Exact capacity, so that memory is what was counted.
        let mut segments = Vec::with_capacity(count as usize);
        let mut last = 0u32;
        for _ in 0..count {
            let segment = Segment {
                offset: reader.get32()?,
                length: reader.get32()?,
                address: reader.get()?,
            };
            if segment.offset < last || segment.length == 0 {
                return None;
            }
            last = segment.offset.checked_add(segment.length)?;
            segments.push(segment);
        }
        spaces.push(Space {
            start,
            end,
            segments,
        });
    }
    Some(spaces)
}

fn record(reader: &mut Reader<'_>) -> Option<Record> {
    let stride = u8::try_from(reader.get()?).ok().filter(|s| *s >= 4)?;
    let count = reader.get()?;
    if count > MAX_FIELDS {
        return None;
    }
    let mut fields = Vec::new();
    for _ in 0..count {
        let field = Field {
            at: u8::try_from(reader.get()?).ok()?,
            width: u8::try_from(reader.get()?).ok()?,
            old_base: reader.get()?,
            new_base: reader.get()?,
        };
        if !matches!(field.width, 4 | 8)
            || u16::from(field.at) + u16::from(field.width) > u16::from(stride)
        {
            return None;
        }
        fields.push(field);
    }
    Some(Record { stride, fields })
}
