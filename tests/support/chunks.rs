//! Cutting bodies into pieces: the same exchange must come out the same however the network cuts it.

/// How to cut.
#[derive(Clone, Copy, Debug)]
pub enum Chunking {
    /// In one piece.
    Whole,
    /// In pieces of so many bytes.
    Every(usize),
    /// In pieces of 0 to 40 bytes, the same for the same seed.
    Random(u64),
}

impl Chunking {
    /// What every golden exchange is run at.
    pub const ALL: [Chunking; 7] = [
        Chunking::Whole,
        Chunking::Every(1),
        Chunking::Every(5),
        Chunking::Every(7),
        Chunking::Random(1),
        Chunking::Random(2),
        Chunking::Random(3),
    ];

    /// The pieces, in order.
    pub fn cut(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Chunking::Whole => vec![bytes],
            Chunking::Every(size) => bytes.chunks(size).collect(),
            Chunking::Random(seed) => {
                let mut state = seed;
                let mut rest = bytes;
                let mut pieces = Vec::new();
                while !rest.is_empty() {
                    // splitmix64: a well-mixed next number from a counter.
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    let size = ((mixed ^ (mixed >> 27)) % 41) as usize;
                    let (piece, left) = rest.split_at(size.min(rest.len()));
                    pieces.push(piece);
                    rest = left;
                }
                pieces
            }
        }
    }
}
