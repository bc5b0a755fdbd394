//! Masking: the bytes of references are blanked before matching, so that code that moved looks
//! the same.

use crate::engine::layout::{Kind, Record, Region, Space, space_at};
use crate::engine::refs::{self, AFTER, BEFORE, Form};

/// Returns a copy of the image with its references blanked.
pub(crate) fn masked(
    image: &[u8],
    regions: &[Region],
    records: &[Record],
    spaces: &[Space],
) -> Vec<u8> {
    let mut out = image.to_vec();
    let mut hint = 0;
    let mut labels: Vec<(usize, u32)> = Vec::new();
    let mut padded = vec![0u8; BEFORE + 65_536 + AFTER];
    for region in regions {
        if matches!(region.kind, Kind::Plain | Kind::Text) {
            continue;
        }
        let mut at = region.start as usize;
        let end = (region.end as usize).min(image.len());
        while at < end {
            // A window, as the applier sees it.
            let count = (end - at).min(65_536);
            let from = at.saturating_sub(BEFORE);
            let to = (at + count + AFTER).min(image.len());
            padded.fill(0);
            let skip = BEFORE - (at - from);
            padded[skip..skip + (to - from)].copy_from_slice(&image[from..to]);
            let mut i = 0;
            while i < count {
                let offset = (at + i) as u32;
                let found = space_at(spaces, offset, &mut hint).and_then(|space| {
                    refs::find(&padded, BEFORE + i, offset, region, records, space)
                });
                let Some(found) = found else {
                    i += 1;
                    continue;
                };
                let width = found.form.width();
                if at + i + width > end {
                    break;
                }
                let place = at + i;
                match found.form {
                    Form::Branch26 | Form::ArmBranch => {
                        out[place..place + 3].fill(0);
                        if found.form == Form::Branch26 {
                            out[place + 3] &= 0xFC;
                        }
                    }
                    Form::Branch19 => {
                        out[place] &= 0x1F;
                        out[place + 1] = 0;
                        out[place + 2] = 0;
                    }
                    Form::Adr | Form::Page => {
                        out[place] &= 0x1F;
                        out[place + 1] = 0;
                        out[place + 2] = 0;
                        out[place + 3] &= 0x9F;
                    }
                    Form::Low12 | Form::Low12Scaled { .. } => {
                        out[place + 1] &= 3;
                        out[place + 2] &= 0xC0;
                    }
                    Form::ThumbBranch => {
                        out[place] = 0;
                        out[place + 1] &= 0xF8;
                        out[place + 2] = 0;
                        out[place + 3] &= 0xD0;
                    }
                    Form::Rel32 { .. } | Form::Number => out[place..place + 4].fill(0),
                    Form::Abs32 { .. } | Form::Abs64 { .. } | Form::Self32 => {
                        out[place..place + width].fill(0);
                        labels.push((place, found.to));
                    }
                }
                i += width;
            }
            at += i.max(1);
        }
    }
    // Pointers are labelled with a hash of what they point to: a table of blanks would match
    // anywhere.
    let plain = out.clone();
    for (place, to) in labels {
        let to = to as usize;
        let mut hash = 0x811C_9DC5u32;
        for byte in plain.iter().skip(to).take(20) {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
        let label = hash.to_le_bytes();
        out[place..place + 3].copy_from_slice(&label[1..4]);
    }
    out
}
