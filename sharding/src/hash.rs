//! The hash that places an object: FNV-1a, 64 bits.
//!
//! It is the function of Kubernetes' server-side sharded list and watch (KEP-5866), so that a slot is a range the API
//! server can select.

/// Offset basis of FNV-1a-64 (Fowler, Noll, Vo; draft-eastlake-fnv).
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
/// Prime of FNV-1a-64 (same source).
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a-64 of some bytes.
pub const fn fnv1a64(bytes: &[u8]) -> u64 {
    fnv1a64_after(OFFSET_BASIS, bytes)
}

/// FNV-1a-64 of bytes that follow those whose FNV-1a-64 is `hash`.
pub(crate) const fn fnv1a64_after(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash ^= bytes[index] as u64;
        hash = hash.wrapping_mul(PRIME);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors_hold() {
        assert_eq!(fnv1a64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(fnv1a64_after(fnv1a64(b"foo"), b"bar"), 0x8594_4171_f739_67e8);
    }
}
