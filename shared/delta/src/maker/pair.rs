//! Pairs the executables of both images, for the layout that the applier gets.

use super::shape::{Executable, Shape};
use crate::engine::layout::{Field, Kind, Record, Region, Segment, Space};

/// Layout of the executables of both images, and each image's own regions for masking.
#[derive(Debug, Default)]
pub(crate) struct Paired {
    pub(crate) layout: crate::engine::layout::Layout,
    pub(crate) old_regions: Vec<Region>,
    pub(crate) new_regions: Vec<Region>,
    pub(crate) new_records: Vec<Record>,
    /// Whether the new image is an archive.
    pub(crate) archive: bool,
}

/// Pairs the executables of both images.
pub(crate) fn pair(
    old: &[Executable],
    new: &[Executable],
    old_length: u32,
    new_length: u32,
) -> Paired {
    let mut layout = crate::engine::layout::Layout::default();
    let mut new_records: Vec<Record> = Vec::new();
    let (mut old_regions, mut new_regions) = (Vec::new(), Vec::new());
    let by_name: std::collections::BTreeMap<&str, &Executable> =
        new.iter().map(|e| (e.name.as_str(), e)).collect();
    let (mut old_beyond, mut new_beyond) = (old_length, new_length);
    let mut new_spaces: std::collections::BTreeMap<u32, Space> = new
        .iter()
        .map(|e| (e.space.start, e.space.clone()))
        .collect();
    for executable in old {
        let like = by_name
            .get(executable.name.as_str())
            .copied()
            .or(if old.len() == 1 { new.first() } else { None });
        let mut space = executable.space.clone();
        for (index, &(address, length)) in executable.beyond.iter().enumerate() {
            let Some(end) = old_beyond.checked_add(length) else {
                break;
            };
            space.segments.push(Segment {
                offset: old_beyond,
                length,
                address,
            });
            if let Some((like, &(new_address, new_len))) =
                like.and_then(|l| Some((l, l.beyond.get(index)?)))
                && let (Some(s), Some(new_end)) = (
                    new_spaces.get_mut(&like.space.start),
                    new_beyond.checked_add(new_len),
                )
            {
                s.segments.push(Segment {
                    offset: new_beyond,
                    length: new_len,
                    address: new_address,
                });
                layout.beyond.push(crate::engine::covers::Cover {
                    old: old_beyond,
                    new: new_beyond,
                    length: length.min(new_len),
                });
                new_beyond = new_end;
            }
            old_beyond = end;
        }
        for part in &executable.parts {
            let kind = match &part.shape {
                Shape::Simple(kind) => *kind,
                Shape::Records(stride, fields) => {
                    let other = like
                        .and_then(|l| l.parts.iter().find(|p| p.name == part.name))
                        .map(|p| &p.shape);
                    let record = record(*stride, fields, other);
                    intern(&mut layout.records, record)
                }
            };
            let region = Region {
                start: part.start,
                end: part.end,
                kind,
            };
            old_regions.push(region);
        }
        if !space.segments.is_empty() {
            layout.old.push(space);
        }
    }
    for executable in new {
        for part in &executable.parts {
            let kind = match &part.shape {
                Shape::Simple(kind) => *kind,
                Shape::Records(stride, fields) => {
                    let record = record(*stride, fields, None);
                    intern(&mut new_records, record)
                }
            };
            new_regions.push(Region {
                start: part.start,
                end: part.end,
                kind,
            });
        }
    }
    layout.new = new_spaces
        .into_values()
        .filter(|s| !s.segments.is_empty())
        .collect();
    let bytes = |kind: Kind| -> u64 {
        old_regions
            .iter()
            .filter(|r| r.kind == kind)
            .map(|r| u64::from(r.end - r.start))
            .sum()
    };
    layout.text = bytes(Kind::Text) > bytes(Kind::Plain);
    let usual = if layout.text { Kind::Text } else { Kind::Plain };
    for region in old_regions.iter().filter(|r| r.kind != usual) {
        match layout.regions.last_mut() {
            // Headers of archive members between two regions of a kind count as that kind.
            Some(last)
                if last.kind == region.kind
                    && matches!(region.kind, Kind::Text | Kind::Plain)
                    && region.start - last.end <= 1536 =>
            {
                last.end = region.end;
            }
            _ => layout.regions.push(*region),
        }
    }
    Paired {
        layout,
        old_regions,
        new_regions,
        new_records,
        archive: new.len() > 1,
    }
}

fn record(stride: u8, fields: &[(u8, u8, u64)], other: Option<&Shape>) -> Record {
    let others = match other {
        Some(Shape::Records(s, f)) if *s == stride && f.len() == fields.len() => Some(f),
        _ => None,
    };
    Record {
        stride,
        fields: fields
            .iter()
            .enumerate()
            .map(|(index, &(at, width, base))| Field {
                at,
                width,
                old_base: base,
                new_base: others.map_or(base, |o| o[index].2),
            })
            .collect(),
    }
}

fn intern(records: &mut Vec<Record>, record: Record) -> Kind {
    let index = records
        .iter()
        .position(|r| *r == record)
        .unwrap_or_else(|| {
            records.push(record);
            records.len() - 1
        });
    Kind::Records(index as u16)
}
