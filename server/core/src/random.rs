//! The server's only source of randomness.

/// `N` random bytes from the operating system's generator.
pub fn bytes<const N: usize>() -> [u8; N] {
    rand::random()
}

/// 64 random bits.
pub(crate) fn bits() -> u64 {
    rand::random()
}
