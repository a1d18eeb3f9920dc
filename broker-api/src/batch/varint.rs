//! Kafka's variable-length integers: zigzag, seven bits a byte, least significant first.

/// Appends `n`.
pub(super) fn put(n: i64, out: &mut Vec<u8>) {
    let mut z = ((n << 1) ^ (n >> 63)) as u64;
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
}

/// How many bytes [`put`] appends.
pub(super) fn len(n: i64) -> usize {
    let z = ((n << 1) ^ (n >> 63)) as u64;
    (64 - (z | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads a number off the front of `bytes`. Most of a record's numbers have one byte.
#[inline]
pub(super) fn get(bytes: &mut &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        *bytes = rest;
        return Some(i64::from(first >> 1) ^ -i64::from(first & 1));
    }
    get_long(bytes)
}

fn get_long(bytes: &mut &[u8]) -> Option<i64> {
    let mut z = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == 9 && bits > 1 {
            return None; // more than 64 bits
        }
        z |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some((z >> 1) as i64 ^ -((z & 1) as i64));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_lengths_agree() {
        let mut numbers = vec![0, -1, 1, 63, -64, 64, i64::MAX, i64::MIN, 300, -300];
        numbers.extend((0..63).flat_map(|i| [1i64 << i, (1i64 << i) - 1, -(1i64 << i)]));
        for n in numbers {
            let mut out = Vec::new();
            put(n, &mut out);
            assert_eq!(out.len(), len(n), "{n}");
            let mut bytes = &out[..];
            assert_eq!(get(&mut bytes), Some(n));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn cut_or_endless_numbers_are_refused() {
        assert_eq!(get(&mut &[0x80u8][..]), None);
        assert_eq!(get(&mut &[0xffu8; 11][..]), None);
        assert_eq!(get(&mut &[][..]), None);
    }
}
