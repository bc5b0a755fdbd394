//! What the maker tells the applier about an image's insides: which addresses its bytes have
//! and where references are. The applier parses no executable.
//!
//! Offsets are positions in the image. Memory that has an address but no bytes (`.bss`) has
//! *virtual* offsets behind the image's end, so that a reference to it can be mapped too.

/// A run of bytes that is loaded at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where it begins in the image.
    pub(crate) offset: u32,
    /// Its length in bytes, at least 1.
    pub(crate) length: u32,
    /// The address of its first byte.
    pub(crate) address: u64,
}

/// One executable's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Space {
    /// The executable's place in the image.
    pub(crate) start: u32,
    /// Its end.
    pub(crate) end: u32,
    /// Sorted by offset, not overlapping.
    pub(crate) segments: Vec<Segment>,
}

impl Space {
    /// The address of an offset.
    #[inline]
    pub(crate) fn address_of(&self, offset: u32) -> Option<u64> {
        let after = self.segments.partition_point(|s| s.offset <= offset);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let inside = offset - segment.offset;
        (inside < segment.length).then(|| segment.address.wrapping_add(u64::from(inside)))
    }

    /// The offset of an address.
    #[inline]
    pub(crate) fn offset_of(&self, address: u64) -> Option<u32> {
        self.segments.iter().find_map(|s| {
            let inside = address.wrapping_sub(s.address);
            (inside < u64::from(s.length)).then(|| s.offset.wrapping_add(inside as u32))
        })
    }
}

/// How references look in a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes.
    Plain,
    /// Text: bytes too, but modelled with words.
    Text,
    /// x86-64 instructions.
    X86,
    /// AArch64 instructions.
    Arm64,
    /// Thumb-2 instructions, with pointers of 32 bits between them.
    Thumb,
    /// ARM instructions, with pointers of 32 bits between them.
    Arm,
    /// Aligned pointers of 32 bits among other data.
    Words32,
    /// Aligned pointers of 64 bits among other data.
    Words64,
    /// Aligned 32-bit distances from themselves to their destination.
    Relative32,
    /// Aligned numbers of 32 bits that name something, such as a type or a symbol: the same number
    /// mostly becomes the same other number.
    Numbers32,
    /// Records of a fixed length with fields; the index of a [`Record`].
    Records(u16),
}

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Where in the record, in bytes.
    pub(crate) at: u8,
    /// 4 or 8 bytes.
    pub(crate) width: u8,
    /// Added to the value to get an address: 0 for a pointer, the image base for an RVA.
    pub(crate) old_base: u64,
    /// The same in the new image.
    pub(crate) new_base: u64,
}

/// A table's record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// Its length in bytes, 4 to 255.
    pub(crate) stride: u8,
    /// Sorted by place, not overlapping.
    pub(crate) fields: Vec<Field>,
}

/// A part of the old image with one kind of references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// Where it begins in the old image; records and words are counted from here.
    pub(crate) start: u32,
    /// Where it ends.
    pub(crate) end: u32,
    /// Its kind.
    pub(crate) kind: Kind,
}

/// Everything about both images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Executables of the old image, sorted, not overlapping.
    pub(crate) old: Vec<Space>,
    /// Executables of the new image, sorted, not overlapping.
    pub(crate) new: Vec<Space>,
    /// Regions of the old image, sorted, not overlapping.
    pub(crate) regions: Vec<Region>,
    /// Whether what is in no region is text.
    pub(crate) text: bool,
    /// Kinds of records.
    pub(crate) records: Vec<Record>,
    /// Pieces of memory without bytes: where they were, where they are, how long they are, all
    /// in virtual offsets.
    pub(crate) beyond: Vec<super::covers::Cover>,
}

/// The space that holds an offset, starting the search at `hint`, which is kept up to date.
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
    /// Bytes of memory that it takes.
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

    /// The region that holds an old offset, and where that kind ends.
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
