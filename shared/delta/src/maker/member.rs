//! Files in an image: which of its bytes each one has.

use std::borrow::Cow;

/// A run of a member's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Offset in the member.
    pub(crate) inside: usize,
    /// Offset in the image.
    pub(crate) at: usize,
    /// Its length in bytes.
    pub(crate) length: usize,
}

/// A file in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Path, or another name that tells it from others.
    pub(crate) name: String,
    /// Its bytes, in the member's order; bytes in no piece are zero.
    pub(crate) pieces: Vec<Piece>,
}

impl Member {
    pub(crate) fn whole(name: String, at: usize, length: usize) -> Self {
        let piece = Piece {
            inside: 0,
            at,
            length,
        };
        Self {
            name,
            pieces: vec![piece],
        }
    }

    /// Returns its bytes. A member whose pieces extend past the image is cut there.
    pub(crate) fn bytes<'a>(&self, image: &'a [u8]) -> Cow<'a, [u8]> {
        if let [piece] = self.pieces[..]
            && piece.inside == 0
        {
            let end = (piece.at + piece.length).min(image.len());
            return Cow::Borrowed(image.get(piece.at..end).unwrap_or(&[]));
        }
        let length = self.pieces.iter().map(|p| p.inside + p.length).max();
        let mut bytes = vec![0; length.unwrap_or(0)];
        for piece in &self.pieces {
            let from = image.get(piece.at..).unwrap_or(&[]);
            let count = piece.length.min(from.len());
            bytes[piece.inside..piece.inside + count].copy_from_slice(&from[..count]);
        }
        Cow::Owned(bytes)
    }
}
