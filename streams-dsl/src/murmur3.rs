//! The 128-bit hash of Murmur3 for 64-bit machines (Austin Appleby's `MurmurHash3_x64_128`, seed 0).
//!
//! Foreign-key joins recognise a row by it. It is here because it is a page, fixed for ever by what is
//! stored in topics, and checked by its author's own verification; a dependency would have to be
//! trusted not to change.

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The hash; its first half is the higher one.
pub(crate) fn hash128(bytes: &[u8]) -> u128 {
    with_seed(bytes, 0)
}

fn with_seed(bytes: &[u8], seed: u32) -> u128 {
    let (mut h1, mut h2) = (u64::from(seed), u64::from(seed));
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let (k1, k2) = halves(block);
        h1 = (h1 ^ mix_first(k1)).rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 = (h2 ^ mix_second(k2)).rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    // What is missing from the last block counts as zeros, which mix to zero.
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let (k1, k2) = halves(&last);
    h1 ^= mix_first(k1) ^ bytes.len() as u64;
    h2 ^= mix_second(k2) ^ bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (h1, h2) = (finish(h1), finish(h2));
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    (u128::from(h1) << 64) | u128::from(h2)
}

fn halves(block: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*block);
    (both as u64, (both >> 64) as u64)
}

fn mix_first(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_second(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(hash: u128) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&((hash >> 64) as u64).to_le_bytes());
        bytes[8..].copy_from_slice(&(hash as u64).to_le_bytes());
        bytes
    }

    /// The verification of SMHasher, which the author of the hash publishes for each of his hashes: all
    /// keys 0, 1, 2 … of each length with falling seeds, and then the hash of all those hashes.
    #[test]
    fn the_hash_is_the_published_one() {
        let key: Vec<u8> = (0..=255).collect();
        let hashes: Vec<u8> = (0..256)
            .flat_map(|length: usize| bytes_of(with_seed(&key[..length], 256 - length as u32)))
            .collect();
        let end = bytes_of(with_seed(&hashes, 0));
        assert_eq!(u32::from_le_bytes([end[0], end[1], end[2], end[3]]), 0x6384_ba69);
    }

    #[test]
    fn known_texts_have_their_known_hashes() {
        let known = [
            ("", 0),
            ("hello", 0xcbd8_a7b3_41bd_9b02_5b1e_906a_48ae_1d19),
            ("hello, world", 0x342f_ac62_3a5e_bc8e_4cdc_bc07_9642_414d),
            ("19 Jan 2038 at 3:14:07 AM", 0xb89e_5988_b737_affc_664f_c295_0231_b2cb),
            (
                "The quick brown fox jumps over the lazy dog.",
                0xcd99_481f_9ee9_02c9_695d_a1a3_8987_b6e7,
            ),
        ];
        for (text, hash) in known {
            assert_eq!(hash128(text.as_bytes()), hash, "{text}");
        }
    }
}
