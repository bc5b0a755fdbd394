//! Layout of images, as the maker describes it to the applier: the addresses of bytes and the
//! positions of references. The applier parses no executable.
//!
//! Offsets are positions in the image. Memory that has an address but no bytes (`.bss`) has
//! *virtual* offsets past the image's end, so that a reference to it can be mapped too.

/// A run of bytes that is loaded at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Offset in the image.
    pub(crate) offset: u32,
    /// Its length in bytes, at least 1.
    pub(crate) length: u32,
    /// Address of its first byte.
    pub(crate) address: u64,
}

/// One executable's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// Offset in the image at which the executable begins.
    pub(crate) start: u32,
    /// Offset at which it ends.
    pub(crate) end: u32,
    /// Sorted by offset, not overlapping.
    pub(crate) segments: Vec<Segment>,
}

impl Space {
    /// Returns the address of an offset.
    #[inline]
    pub(crate) fn address_of(&self, offset: u32) -> Option<u64> {
        let after = self.segments.partition_point(|s| s.offset <= offset);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let inside = offset - segment.offset;
        (inside < segment.length).then(|| segment.address.wrapping_add(u64::from(inside)))
    }

    /// Returns the offset of an address.
    #[inline]
    pub(crate) fn offset_of(&self, address: u64) -> Option<u32> {
        self.segments.iter().find_map(|s| {
            let inside = address.wrapping_sub(s.address);
            (inside < u64::from(s.length)).then(|| s.offset.wrapping_add(inside as u32))
        })
    }
}

/// Form of the references in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes without references.
    Plain,
    /// Text: no references either, but modelled with words.
    Text,
    /// x86-64 instructions.
    X86,
    /// AArch64 instructions.
    Arm64,
    /// Thumb-2 instructions, with 32-bit pointers between them.
    Thumb,
    /// ARM instructions, with 32-bit pointers between them.
    Arm,
    /// Aligned 32-bit pointers among other data.
    Words32,
    /// Aligned 64-bit pointers among other data.
    Words64,
    /// Aligned 32-bit distances from themselves to their destination.
    Relative32,
    /// Aligned 32-bit numbers that name something, such as a type or a symbol: the same number
    /// mostly becomes the same other number.
    Numbers32,
    /// Records of a fixed length with fields; holds the index of a [`Record`].
    Records(u16),
}

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Offset in the record, in bytes.
    pub(crate) at: u8,
    /// Width, 4 or 8 bytes.
    pub(crate) width: u8,
    /// Added to the value to get an address: 0 for a pointer, the image base for an RVA.
    pub(crate) old_base: u64,
    /// The same in the new image.
    pub(crate) new_base: u64,
}

/// Record of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// Its length in bytes, 4 to 255.
    pub(crate) stride: u8,
    /// Sorted by offset, not overlapping.
    pub(crate) fields: Vec<Field>,
}

/// A part of the old image with one kind of reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// Offset in the old image at which it begins; records and words are counted from here.
    pub(crate) start: u32,
    /// Offset at which it ends.
    pub(crate) end: u32,
    /// Its kind.
    pub(crate) kind: Kind,
}

/// Layout of both images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Executables of the old image, sorted, not overlapping.
    pub(crate) old: Vec<Space>,
    /// Executables of the new image, sorted, not overlapping.
    pub(crate) new: Vec<Space>,
    /// Regions of the old image, sorted, not overlapping.
    pub(crate) regions: Vec<Region>,
    /// Whether bytes in no region are text.
    pub(crate) text: bool,
    /// Types of records.
    pub(crate) records: Vec<Record>,
    /// Pieces of memory without bytes: old offset, new offset and length, all in virtual offsets.
    pub(crate) beyond: Vec<super::covers::Cover>,
}

/// Finds the space that holds an offset, starting the search at `hint`, which is kept up to date.
#[inline]
pub(crate) fn space_at<'a>(
    spaces: &'a [Space],
    offset: u32,
    hint: &mut usize,
) -> Option<&'a Space> {
    if let Some(space) = spaces.get(*hint)
        && space.start <= offset
        && offset < space.end
    {
        return Some(space);
    }
    let after = spaces.partition_point(|s| s.start <= offset);
    *hint = after.checked_sub(1)?;
    spaces.get(*hint).filter(|s| offset < s.end)
}

impl Layout {
    /// Memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let spaces = self.old.iter().chain(&self.new);
        let bytes: usize = spaces
            .map(|s| size_of::<Space>() + s.segments.len() * size_of::<Segment>())
            .chain(
                self.records
                    .iter()
                    .map(|r| size_of::<Record>() + r.fields.len() * size_of::<Field>()),
            )
            .sum();
        let rest = self.regions.len() * size_of::<Region>()
            + self.beyond.len() * size_of::<super::covers::Cover>();
        (bytes + rest) as u64
    }

    /// Returns the region that holds an old offset; outside all regions, one up to where the next
    /// begins.
    pub(crate) fn region_at(&self, offset: u32) -> Region {
        let after = self.regions.partition_point(|r| r.start <= offset);
        if let Some(region) = after.checked_sub(1).and_then(|i| self.regions.get(i))
            && offset < region.end
        {
            return *region;
        }
        let end = self.regions.get(after).map_or(u32::MAX, |r| r.start);
        Region {
            start: 0,
            end,
            kind: if self.text { Kind::Text } else { Kind::Plain },
        }
    }
}
