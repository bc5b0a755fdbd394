//! Hashed tables of small probabilities, one for each order of context.

/// Number of contexts in which a byte is looked up.
pub(crate) const ORDERS: usize = 9;
/// A node of a hashed table: 12 bits of probability, 4 bits of confidence.
#[inline]
pub(super) fn node_update(node: &mut u16, bit: bool) {
    let n = i32::from(*node & 15);
    let p = i32::from(*node >> 4);
    let target = if bit { 4095 } else { 0 };
    let step = ((target - p) * NODE_RATE[n as usize] + 32_768) >> 16;
    let p = (p + step).clamp(0, 4095);
    let n = if n < 15 { n + 1 } else { n };
    *node = ((p << 4) | n) as u16;
}

const NODE_EVEN: u16 = 2048 << 4;

/// 65536 / (n + 1.5), but not below a tenth.
static NODE_RATE: [i32; 16] = [
    43_690, 26_214, 18_724, 14_563, 11_915, 10_082, 8_738, 7_710, 6_898, 6_553, 6_553, 6_553,
    6_553, 6_553, 6_553, 6_553,
];

/// Entries in a bucket: a check, then the 15 nodes of half a byte.
const BUCKET: usize = 16;

/// Hashed buckets of nodes, one table for each order, side by side in one allocation.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) nodes: Vec<[u16; BUCKET]>,
    /// Number of buckets of one order, less one.
    mask: u32,
    /// Current bucket of each order.
    pub(super) at: [u32; ORDERS],
}

impl Tables {
    pub(super) fn new(log_buckets: u32) -> Self {
        let mut bucket = [NODE_EVEN; BUCKET];
        bucket[0] = 0;
        Self {
            nodes: vec![bucket; ORDERS << log_buckets],
            mask: (1 << log_buckets) - 1,
            at: [0; ORDERS],
        }
    }

    /// Selects the buckets of these contexts; one that was never seen, or was lost, is reset.
    #[inline]
    pub(super) fn select(&mut self, contexts: &[u32; ORDERS], salt: u32) {
        // All places first, so that the processor can fetch them in parallel.
        let mut checks = [0u16; ORDERS];
        let mut found = [0u16; ORDERS];
        for order in 0..ORDERS {
            let hash = (contexts[order] ^ salt)
                .wrapping_mul(0x85EB_CA6B)
                .rotate_left(15);
            checks[order] = (hash >> 16) as u16 | 1;
            let place = (hash.wrapping_mul(0x9E37_79B1) >> 8) & self.mask;
            self.at[order] = order as u32 * (self.mask + 1) + place;
            found[order] = self.nodes[self.at[order] as usize][0];
        }
        for order in 0..ORDERS {
            if found[order] != checks[order] {
                self.at[order] = self.other(self.at[order], checks[order]);
            }
        }
    }

    /// Returns the second place of a context, or the less used of the two, emptied.
    fn other(&mut self, first: u32, check: u16) -> u32 {
        let second = first ^ 1;
        if self.nodes[second as usize][0] == check {
            return second;
        }
        // The first node counts the visits.
        let (a, b) = (
            self.nodes[first as usize][1] & 15,
            self.nodes[second as usize][1] & 15,
        );
        let (victim, kept) = if a <= b {
            (first, second)
        } else {
            (second, first)
        };
        // The one that is kept loses a little, so that old contexts go some day.
        if a.max(b) > 0 {
            self.nodes[kept as usize][1] -= 1;
        }
        let bucket = &mut self.nodes[victim as usize];
        *bucket = [NODE_EVEN; BUCKET];
        bucket[0] = check;
        victim
    }
}
