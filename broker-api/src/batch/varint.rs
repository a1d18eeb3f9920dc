//! Kafka's variable-length integers: zigzag, seven bits a byte, least significant first.

/// Appends `n`. Few of a record's numbers have more than three bytes.
#[inline]
pub(super) fn put(n: i64, out: &mut Vec<u8>) {
    let z = zigzag(n);
    let [a, b, c] = [z as u8, (z >> 7) as u8, (z >> 14) as u8];
    if z < 1 << 7 {
        out.push(a);
    } else if z < 1 << 14 {
        out.extend_from_slice(&[a | 0x80, b]);
    } else if z < 1 << 21 {
        out.extend_from_slice(&[a | 0x80, b | 0x80, c]);
    } else {
        put_long(z, out);
    }
}

fn put_long(mut z: u64, out: &mut Vec<u8>) {
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
}

/// How many bytes [`put`] appends.
#[inline]
pub(super) fn len(n: i64) -> usize {
    match zigzag(n) {
        z if z < 1 << 7 => 1,
        z if z < 1 << 14 => 2,
        z if z < 1 << 21 => 3,
        z => (64 - z.leading_zeros() as usize).div_ceil(7),
    }
}

#[inline]
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// Reads a number off the front of `bytes`. Most of a record's numbers have one byte.
#[inline]
pub(super) fn get(bytes: &mut &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        *bytes = rest;
        return Some(unzigzag(u64::from(*first)));
    }
    get_long(bytes)
}

fn get_long(bytes: &mut &[u8]) -> Option<i64> {
    // The rule: offsets and times within a batch.
    let (z, rest) = match *bytes {
        [a, b, rest @ ..] if *b < 0x80 => (low(*a) | low(*b) << 7, rest),
        [a, b, c, rest @ ..] if *c < 0x80 => (low(*a) | low(*b) << 7 | low(*c) << 14, rest),
        _ => return get_longest(bytes),
    };
    *bytes = rest;
    Some(unzigzag(z))
}

/// A byte's part of a number.
#[inline]
fn low(byte: u8) -> u64 {
    u64::from(byte & 0x7f)
}

#[inline]
fn unzigzag(z: u64) -> i64 {
    (z >> 1) as i64 ^ -((z & 1) as i64)
}

fn get_longest(bytes: &mut &[u8]) -> Option<i64> {
    let mut z = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        let bits = low(*byte);
        if i == 9 && bits > 1 {
            return None; // more than 64 bits
        }
        z |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Some(unzigzag(z));
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
